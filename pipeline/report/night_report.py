"""A night's report: output/reports/NAME/ with index.html, report.json and report.txt.

The page opens on what a person must decide. Everything in it that packages, guests and mirrors
wrote is a text with a bound.
"""

import json
from dataclasses import asdict
from pathlib import Path

from pipeline.console.progress import progress_bar
from pipeline.console.terminal import printable
from pipeline.files import write_durably
from pipeline.project import Project
from pipeline.proof.names import FOLDER, SCREENSHOT
from pipeline.report.changelogs import DebFinder, Library
from pipeline.report.decisions import find_decisions
from pipeline.report.guest_report import Desk, describe_guest, find_shown, read_series
from pipeline.report.night_model import NightReport
from pipeline.report.night_page import Sheet, render_night
from pipeline.report.night_text import render_text
from pipeline.report.outcome import Night
from pipeline.report.page_contents import read_picture
from pipeline.report.trend import REPORT, draw_plot, read_earlier
from pipeline.walls.privacy import make_private_folder

PAGE, TEXT = "index.html", "report.txt"
_BRIEF, _METRICS = 1000, ("boot_s", "build_s", "image_bytes")


def write_report(project: Project, night: Night) -> Path:
    """Write the three files, for this user alone; returns their folder."""
    folder = project.output / "reports" / night.name
    make_private_folder(folder.parent)
    make_private_folder(folder)
    earlier = read_earlier(folder.parent, before=night.name)
    desk = Desk(
        project=project,
        page=folder,
        began_at=night.began_at,
        finder=DebFinder(project),
        library=Library(project),
        tracker=night.tracker,
        earlier=earlier,
    )
    guests, sheets = [], []
    with progress_bar("report", total=len(night.guests), unit="guests") as bar:
        for guest in night.guests:
            report = describe_guest(desk, guest)
            shown = find_shown(guest)
            series = read_series(report, earlier.get(guest.guest, ()), night.name)
            plots = [draw_plot(name, series[name]) for name in _METRICS if name in series]
            picture = read_picture(shown / FOLDER / SCREENSHOT) if shown else ""
            is_new = guest.verdict != "unchanged"
            sheets.append(Sheet(report, tuple(plots), picture if is_new else ""))
            guests.append(report)
            bar.advance()
    told = NightReport(
        name=night.name,
        began_at=night.began_at,
        ended_at=night.ended_at,
        host=night.host,
        is_complete=night.is_complete,
        decisions=find_decisions(night, tuple(guests)),
        guests=tuple(guests),
        mirrors={printable(name): printable(text) for name, text in night.mirrors.items()},
        notes=tuple(printable(note)[:_BRIEF] for note in night.notes),
    )
    _write(folder / PAGE, render_night(told, sheets))
    _write(folder / TEXT, render_text(told))
    _write(folder / REPORT, f"{json.dumps(asdict(told), indent=1, ensure_ascii=False)}\n")
    return folder


def _write(path: Path, text: str) -> None:
    write_durably(path, text.encode("utf-8", "backslashreplace"), mode=0o600)
