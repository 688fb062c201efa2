"""report.txt: the night for a mail, plain, WIDTH columns; the page has the rest."""

import textwrap
from collections.abc import Iterator

from pipeline.console.terminal import printable
from pipeline.report.night_model import GuestReport, NightReport, PackageChange
from pipeline.report.page_contents import show_time
from pipeline.report.words import count, growth, name_cves, seconds, short_version, size

WIDTH = 76
MOST_SOURCES = 40


def render_text(night: NightReport) -> str:
    """Decisions first, then each guest in a few lines."""
    return "\n".join([*_render(night), ""])


def _render(night: NightReport) -> Iterator[str]:
    yield from _fill(f"Night {short_version(night.name)} on {night.host}")
    took = seconds(night.ended_at - night.began_at)
    early = "" if night.is_complete else ", ended early"
    yield from _fill(f"{show_time(night.began_at)} to {show_time(night.ended_at)}, {took}{early}")
    yield ""
    yield "TO DECIDE" if night.decisions else "Nothing to decide."
    for decision in night.decisions:
        mark = {"error": "!!", "warning": "! ", "notice": "- "}[decision.level]
        who = f"{decision.guest}: " if decision.guest else ""
        yield from _fill(f"{mark} {who}{decision.text}", indent=3)
        if decision.command:
            yield f"     {decision.command}"
    for note in night.notes:
        yield from _fill(note)
    for guest in night.guests:
        yield ""
        yield from _describe(guest)


def _describe(guest: GuestReport) -> Iterator[str]:
    yield from _fill(f"{guest.guest}: {guest.verdict.upper()}")
    if guest.version:
        before = f", before {short_version(guest.before)}" if guest.before else ""
        changed = before if guest.before != guest.version else ""
        yield from _fill(f"version {short_version(guest.version)}{changed}", at=2)
    facts = [
        *(
            [f"image {size(guest.metrics['image_bytes'])}"]
            if "image_bytes" in guest.metrics
            else []
        ),
        *([f"boot {seconds(guest.metrics['boot_s'])}"] if "boot_s" in guest.metrics else []),
        *(f"{step} {seconds(took)}" for step, took in guest.seconds.items()),
    ]
    if facts:
        yield from _fill(", ".join(facts), at=2)
    if guest.failure:
        yield from _fill(f"{guest.failure.stage}: {guest.failure.brief}", at=2)
        for cause in guest.failure.causes:
            yield from _fill(f"likely cause: {cause}", at=2)
        if guest.failure.hint:
            yield from _fill(f"next: {guest.failure.hint}", at=2)
        for line in guest.failure.console.splitlines()[-10:]:
            yield f"  | {printable(line)[: WIDTH - 4]}"
    for note in guest.notes:
        yield from _fill(note, at=2)
    for change in guest.packages[:MOST_SOURCES]:
        yield from _fill(_describe_change(change), at=2, indent=2)
    if len(guest.packages) > MOST_SOURCES:
        yield f"  and {len(guest.packages) - MOST_SOURCES} more"
    if guest.scan:
        text = guest.scan.note or f"{guest.scan.count or 'none'} in the security tracker's file"
        yield from _fill(f"known vulnerabilities: {text}", at=2)
    files = guest.files
    if files.count:
        grown = sum(group.growth_bytes for group in files.groups)
        numbers = f"{files.added} added, {files.removed} removed, {files.changed} changed"
        yield from _fill(f"{count(files.count, 'file')}: {numbers}; {growth(grown)}", at=2)
    elif files.note:
        yield from _fill(f"files were not compared: {files.note}", at=2)


def _describe_change(change: PackageChange) -> str:
    versions = " -> ".join(dict.fromkeys(filter(None, (change.before, change.after))))
    cves = f": {name_cves(change.cves)}" if change.cves else ""
    return f"{change.kind} {change.source} {versions}{cves}"


def _fill(text: str, *, at: int = 0, indent: int = 0) -> list[str]:
    """The text in lines of WIDTH columns; a word that is longer is broken."""
    lead = " " * at
    wrapped = textwrap.wrap(
        printable(text).replace("−", "-"),
        WIDTH,
        initial_indent=lead,
        subsequent_indent=lead + " " * indent,
        break_on_hyphens=False,
    )
    return wrapped or [lead]
