"""Nights, and channels moved by hand."""

import os
import time
from contextlib import ExitStack
from pathlib import Path

from pipeline.artifact import published as versions
from pipeline.commands import delivery_options
from pipeline.commands.host import on_host
from pipeline.commands.publish import serve_published
from pipeline.commands.site import describe_service
from pipeline.console.answer import ANSWER
from pipeline.console.progress import lines_into, print_line
from pipeline.errors import PipelineError
from pipeline.mirror.proxy.units import write_units
from pipeline.night.night import Plan, spend_night
from pipeline.night.nightly_file import read_nightly_file
from pipeline.night.timer import NAME, render_units
from pipeline.night.verdicts import describe_night, find_trouble
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.report.outcome import GuestNight, Night
from pipeline.spec import Specs
from pipeline.spec.values import parse_duration
from pipeline.supply.keys import has_keys, load_signer


def nightly(recipe: Recipe, specs: Specs, asked: delivery_options.Nightly) -> None:
    """Every guest of nightly.toml: built, proven, published; the report of it."""
    file = read_nightly_file(recipe.project.nightly)
    if asked.units:
        _write_units(recipe.project, asked.units, asked.at)
        return
    if has_keys(recipe.project.keys):  # a night would fail guest by guest, hours later
        load_signer(recipe.project.keys, "statements", file.passphrase)
    only = tuple(asked.name.split(",")) if asked.name else ()
    limit_s = parse_duration(file.limit if asked.limit is None else asked.limit)
    ends_at = time.monotonic() + limit_s if limit_s else None
    plan = Plan(file, file.choose(sorted(specs.names), only), ends_at)
    with ExitStack() as stack:
        if asked.quiet:
            stack.enter_context(lines_into(stack.enter_context(open(os.devnull, "w"))))
        spent = spend_night(recipe, specs, plan)
    _answer(spent.night, spent.report)
    page = spent.report / "index.html"
    trouble = find_trouble(spent.night, str(page), spent.faults)
    if trouble is not None:
        raise trouble
    if not asked.quiet:
        print_line(f"{describe_night(spent.night)}; report {page}")


def _answer(night: Night, folder: Path) -> None:
    """For programs."""
    ANSWER.expect([guest.guest for guest in night.guests], is_one=False, is_build=False)
    ANSWER.add("", night=night.name, report=str(folder), complete=night.is_complete)
    for guest in night.guests:
        ANSWER.add(guest.guest, **_facts(guest))
        if fault := guest.fault:
            error = PipelineError(fault.brief, details=fault.details, hint=fault.hint)
            error.stage, error.log = fault.stage, fault.log
            ANSWER.add_failure([guest.guest], error)


def _facts(guest: GuestNight) -> dict[str, object]:
    return {
        "verdict": guest.verdict,
        "version": guest.version,
        "before": guest.before,
        "channels": dict(guest.channels),
        "seconds": dict(guest.seconds),
        "notes": list(guest.notes),
        "removed": list(guest.removed),
    }


def _write_units(project: Project, folder: Path, at: str) -> None:
    units = render_units(**describe_service(project), at=at)
    for path in write_units(units, folder):
        print_line(f"wrote {path}")
    print_line("  as root:")
    print_line(f"    cp -r {folder}/etc /")
    print_line(f"    systemctl daemon-reload && systemctl enable --now {NAME}.timer")
    print_line(f"  what came of it:  journalctl -u {NAME}; the reports are in {project.reports}")


@on_host
def promote(recipe: Recipe, _specs: object, asked: delivery_options.Promote) -> None:
    """Move a channel of a guest's published versions, there or back."""
    project, name = recipe.project, asked.name
    if asked.rollback:
        versions.roll_back(project, name, asked.channel)
    else:
        versions.promote(
            project, name, channel=asked.channel, wanted=asked.version, unproven=asked.unproven
        )
    for channel, version in versions.channels(project, name).items():
        proof = "" if version.proof == "proven" else f", not proven: {version.proof}"
        print_line(f"{name}: {channel} is {version.name}{proof}")
    serve_published(project, asked.passphrase)
