"""A night from its lock to its last word: every guest in turn, the report, who is told."""

import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import process
from pipeline.artifact.channels import NIGHTLY
from pipeline.artifact.published import channels
from pipeline.console.progress import lines_into, print_line
from pipeline.diagnosis import explained
from pipeline.errors import EnvironmentFault, PipelineError, SpecError
from pipeline.files import read_table
from pipeline.mirror.credentials import without_credentials
from pipeline.mirror.snapshot import SNAPSHOT
from pipeline.night.guest_steps import GuestSteps
from pipeline.night.journal import Journal, end_journal, only_night, read_journal, write_journal
from pipeline.night.nightly_file import NightlyFile
from pipeline.night.verdicts import describe_guest
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.report.night_report import write_report
from pipeline.report.outcome import Fault, GuestNight, Night
from pipeline.repository.metadata import refresh, signs
from pipeline.scratch import remove_tree
from pipeline.spec import Spec, Specs
from pipeline.stage import Stage

NOTIFY_S = 600


@dataclass(frozen=True)
class Plan:
    """What a night is to do: which guests in order, on whose terms, until when (monotonic)."""

    file: NightlyFile
    guests: tuple[str, ...]
    ends_at: float | None = None


@dataclass(frozen=True)
class Spent:
    """What became of a night, the folder of its report, and what failed that is no guest's."""

    night: Night
    report: Path
    faults: tuple[PipelineError, ...]


def spend_night(recipe: Recipe, specs: Specs, plan: Plan) -> Spent:
    """The whole night. Raises InUseError while another one is at work here."""
    project = recipe.project
    with only_night(project):
        began_at = time.time()
        name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(began_at))
        killed = read_journal(project)
        notes = [killed.describe_end()] if killed else []
        for note in notes:
            print_line(f"  {note}")
        journal = Journal(name, int(began_at), os.getpid(), _find_before(project, plan, killed))
        write_journal(project, journal)
        stages = [_asked_anew(stage) for stage in recipe.stages.values()]
        fresh = Recipe(project, stages, shared=recipe.shared, elsewhere=recipe.elsewhere)
        if fresh.elsewhere is not None:
            fresh.elsewhere.serve(fresh, [specs[name] for name in plan.guests if name in specs])
        guests = _spend_guests(fresh, specs, plan, journal)
        faults = [*_serve(project, plan.file.passphrase)]
        notes += [f"{fault.brief}; {fault.hint}" for fault in faults]
        night = Night(
            name=name,
            began_at=began_at,
            ended_at=time.time(),
            host=platform.node(),
            guests=tuple(guests),
            mirrors=_list_mirrors(fresh, specs, guests),
            is_complete=all(guest.verdict != "not begun" for guest in guests),
            tracker=Path(plan.file.scan) if plan.file.scan else None,
            notes=tuple(notes),
        )
        folder = project.reports / name
        faults += _report(project, night)
        end_journal(project)
        for old in sorted(project.reports.glob("2*T*Z"))[: -plan.file.keep_reports]:
            remove_tree(old)
        if plan.file.notify:
            faults += _notify(plan.file.notify, folder, project.reports / "notify.log")
    return Spent(night, folder, tuple(faults))


def _find_before(project: Project, plan: Plan, killed: Journal | None) -> dict[str, str]:
    """Where nightly leads; what a killed night published counts as of this one."""
    leads = {}
    for guest in plan.guests:
        now = channels(project, guest).get(NIGHTLY)
        leads[guest] = now.name if now else ""
        if killed is not None:
            leads[guest] = killed.before.get(guest, leads[guest])
    return leads


def _asked_anew(stage: Stage) -> Stage:
    """A stage whose artifact of an earlier run is never fresh enough; one of this run is."""

    def is_stale(_artifact: Path, _spec: Spec) -> str:
        return "a night asks the mirror anew"

    return replace(stage, is_stale=is_stale) if stage.ages else stage


def _spend_guests(recipe: Recipe, specs: Specs, plan: Plan, journal: Journal) -> list[GuestNight]:
    ended: list[GuestNight] = []
    for guest in plan.guests:
        if plan.ends_at is not None and time.monotonic() > plan.ends_at:
            leads: dict[str, str] = {
                name: version.name for name, version in channels(recipe.project, guest).items()
            }
            now = leads.get(NIGHTLY, "")
            ended.append(GuestNight(guest, "not begun", version=now, before=now, channels=leads))
        else:
            done = {night.guest: night.verdict for night in ended}
            journal = replace(journal, at=guest, done=done)
            write_journal(recipe.project, journal)
            ended.append(_spend_guest(recipe, specs, plan, journal))
        print_line(f"  {describe_guest(ended[-1])}")
    return ended


def _spend_guest(recipe: Recipe, specs: Specs, plan: Plan, journal: Journal) -> GuestNight:
    guest = journal.at
    if guest not in specs:
        return _refuse(specs, guest, journal.before[guest])
    log = recipe.project.log(guest, "night")
    log.parent.mkdir(parents=True, exist_ok=True)
    file = plan.file
    steps = GuestSteps(
        *(recipe, specs[guest], file.terms_of(guest), journal.name, journal.before[guest]),
        file.passphrase,
    )
    with log.open("w") as stream, lines_into(stream):
        return steps.spend()


def _refuse(specs: Specs, guest: str, before: str) -> GuestNight:
    """A guest that has no spec, or a broken one."""
    problems = specs.problems.get(guest)
    fault = Fault("spec", f"guests/{guest}.toml is not there", hint="correct nightly.toml")
    if problems:
        error = SpecError(problems)
        fault = Fault("spec", error.brief, hint=error.hint, details=error.details)
    return GuestNight(guest, "failed", version=before, before=before, fault=fault)


def _list_mirrors(
    recipe: Recipe, specs: Mapping[str, Spec], guests: Sequence[GuestNight]
) -> dict[str, str]:
    """Each suite of each mirror that was asked, with the date of the state that it showed."""
    shown: dict[str, str] = {}
    for guest in guests:
        if guest.verdict == "not begun" or guest.guest not in specs:
            continue
        state = recipe.state("mirror", specs[guest.guest])
        if recipe.origin(state):
            for source in read_table(state.folder / SNAPSHOT, "a snapshot")["sources"]:
                shown[f"{without_credentials(source['uri'])} {source['suite']}"] = source["date"]
        elif guest.fault and guest.fault.stage == "mirror":
            shown[specs[guest.guest].mirror] = guest.fault.brief
    return shown


def _report(project: Project, night: Night) -> Iterator[PipelineError]:
    """Write the report; what stood in the way."""
    try:
        with explained():
            write_report(project, night)
    except PipelineError as error:
        error.brief = f"the report is not whole: {error.brief}"
        yield error


def _serve(project: Project, passphrase: Path | None) -> Iterator[PipelineError]:
    """Bring the image repository up to date, where this site has one; what stood in the way."""
    if not signs(project):
        return
    try:
        with explained():
            refresh(project, passphrase)
    except PipelineError as error:
        error.brief = f"the image repository stays as it was: {error.brief}"
        yield error


def _notify(command: Sequence[str], folder: Path, log: Path) -> Iterator[PipelineError]:
    """Run the person's own program with the folder of the report as its last argument."""
    if shutil.which(command[0]) is None:
        yield EnvironmentFault(
            f"notify: {command[0]} is no program here", hint="correct notify in nightly.toml"
        )
        return
    log.write_bytes(b"")
    try:
        process.run(["timeout", "-k", "10", NOTIFY_S, *command, folder], log=log)
    except PipelineError as error:
        yield EnvironmentFault(
            f"notify: nobody was told: {error.brief}",
            details=error.details,
            hint=f"what it said is in {log}",
        )
