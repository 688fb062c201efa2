"""Building guests, and asking about them."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline import ROOT, process
from pipeline.appliance.members import read_appliances
from pipeline.artifact.record import describe_package_changes
from pipeline.artifact.sums import DISK_SUMS, SUMS, read_sum_file
from pipeline.caller import shorten_path
from pipeline.commands.options import Build, BuildGuests, Options, Why
from pipeline.commands.summary import show_size
from pipeline.console.answer import ANSWER
from pipeline.console.findings import print_findings
from pipeline.console.progress import print_line, print_table
from pipeline.console.terminal import Part, Span
from pipeline.errors import CommandFailed, Finding, UsageError
from pipeline.guest.login import find_login, warn_of_closed
from pipeline.guest.portable_machine import xva_name
from pipeline.lockfile import compare_with_lock, read_lock
from pipeline.mirror.snapshot import read_snapshot
from pipeline.plan import Plan, plan_build
from pipeline.project import Project
from pipeline.recipe import KNOWN_HOSTS, Recipe
from pipeline.spec import Spec, Specs
from pipeline.spec.domain import is_restricted

_NEXT = (
    ("doit build name=NAME", "build a guest"),
    ("doit why name=NAME", "what would run, and why"),
    ("doit check name=NAME", "look into the image"),
    ("doit create name=NEW suite=... size=...", "write a spec and build it"),
    ("doit help [COMMAND]", "every command, or what one takes"),
)


def say_planned(recipe: Recipe, spec: Spec, options: Build) -> None:
    """Stages, disks, room and time; raises what the build would raise, with its exit code."""
    plan = plan_build(recipe, spec, process.run)
    if options.json_form:
        ANSWER.add_findings(spec.name, plan.findings, **plan.as_json())
    else:
        _show(plan)
    if plan.refusals:
        raise plan.refusals[0]


def _show(plan: Plan) -> None:
    print_line(f"{plan.guest}: what a build would do; nothing is touched")
    times = [f"{stage.seconds:6.1f} s last time" if stage.seconds else "" for stage in plan.stages]
    print_table(
        [
            (stage.name, _why(stage.reason), time if stage.reason else "")
            for stage, time in zip(plan.stages, times, strict=True)
        ],
        indent=2,
    )
    for disk in plan.disks:
        extents = f", {disk.extents} extents" if disk.extents else ""
        writes = (
            "as much as the golden image has" if disk.writes is None else show_size(disk.writes)
        )
        old = "; the one that is there goes when it is whole" if disk.replaces else ""
        print_line(
            f"  {disk.part:<6}  ",
            Span(disk.path, "dim"),
            f" ({disk.kind}), {show_size(disk.size)}{extents}, {writes} written{old}",
        )
    for space in plan.spaces:
        left = max(space.free - space.takes, 0)
        units = (
            f" ({left // space.extent} of {show_size(space.extent)} each)" if space.extent else ""
        )
        print_line(
            "  ",
            Span(space.name, "dim"),
            f": {show_size(space.free)} free, {show_size(space.takes)} taken, "
            f"{show_size(left)} left{units}",
        )
    if any(stage.reason for stage in plan.stages):
        expected = (
            "not known: a stage has never run" if plan.seconds is None else f"{plan.seconds} s"
        )
        print_line(f"  expected time: {expected} (stages one after the other)")
    else:
        print_line("  everything is current: nothing would run")
    print_findings(plan.findings)


def _why(reason: str, current: str = "current") -> Span:
    return Span(reason) if reason else Span(current, "dim")


def _tell_apart(recipe: Recipe, spec: Spec, name: str) -> str:
    """What is said of a stage that is current, although the mirror has another state."""
    stage = recipe.stages["mirror"]
    if spec.adopted:
        return "current"
    last, now = recipe.last_built(stage, spec), recipe.state("mirror", spec)
    has_moved = last is not None and last.identity != now.identity
    is_apart = has_moved and "mirror" in recipe.stages[name].takes
    return "current: its packages are the same" if is_apart else "current"


def say_built(recipe: Recipe, spec: Spec, options: BuildGuests) -> None:
    """Where the artifact is, what it is and how it is entered: the summary and json=yes say it."""
    folder = recipe.require_artifact(spec)
    if options.locked:
        compare_with_lock(read_lock(recipe.project, spec.name), folder / "manifest")
    shown = shorten_path(folder)
    files = [path for path in folder.iterdir() if path.is_file()]
    sums = [folder / name for name in (SUMS, DISK_SUMS) if (folder / name).is_file()]
    ANSWER.add(
        spec.name,
        folder=str(folder if options.json_form else shown),
        bytes=sum(path.lstat().st_blocks * 512 for path in files),
        digests={name: text for path in sums for name, text in read_sum_file(path).items()},
        start=shlex.join(_start_words(spec, shown)),
        give=_show_import(spec, shown) if spec.format == "xva" else "",
        login=asdict(find_login(spec, shown / KNOWN_HOSTS)),
    )


def _show_import(spec: Spec, folder: Path) -> str:
    """How XCP-ng and XenServer take it, from here or on the host."""
    path = shlex.quote(str(folder / xva_name(spec.name)))
    return f"doit push name={spec.name} host=XCP1, or there: xe vm-import filename={path}"


def _start_words(spec: Spec, folder: Path) -> list[str]:
    """What starts it; pygrub's user is made by the installation."""
    if is_restricted(spec):
        return ["doit", "install", f"name={spec.name}"]
    return ["xl", "create", str(folder / f"{spec.name}.cfg")]


def explain(recipe: Recipe, spec: Spec, options: Why) -> None:
    """Why each stage would or would not run now."""
    states = {name: recipe.state(name, spec) for name in recipe.stages}
    changes = _find_package_changes(recipe, spec)
    if options.json_form:
        stages = [
            {"stage": name, "fingerprint": state.fingerprint, "reason": state.reason}
            for name, state in states.items()
        ]
        ANSWER.add(spec.name, stages=stages, packages=changes)
        return
    print_line(f"{spec.name}:")
    print_table(
        [
            (name, state.fingerprint[:12], _why(state.reason, _tell_apart(recipe, spec, name)))
            for name, state in states.items()
        ],
        indent=2,
    )
    if changes:
        print_line(f"  the mirror has {len(changes)} of its packages in another version:")
    for change in changes:
        print_line(f"    {change}")


def _find_package_changes(recipe: Recipe, spec: Spec) -> list[str]:
    """What another state of the mirror means for the packages of the guest that was built."""
    last, now = recipe.last_built(recipe.stages["mirror"], spec), recipe.state("mirror", spec)
    manifest = recipe.project.artifact(spec.name) / "manifest"
    if spec.adopted or last is None or now.buildinfo is None or not manifest.is_file():
        return []
    if last.identity == now.identity:
        return []
    return describe_package_changes(manifest.read_text(), read_snapshot(now.folder))


def list_guests(recipe: Recipe, specs: Specs, _options: Options) -> None:
    """The guests, whether each is built, and what to type next."""
    print_line("guests:")
    rows: list[tuple[Part, ...]] = []
    built = []
    for name, spec in sorted(specs.items()):
        state = Span("")
        if recipe.state("config", spec).is_current:
            state = Span("built", "ok")
            built.append(spec)
        kind = f"{spec.suite} {spec.type} {spec.boot} {spec.size}"
        rows.append((name, state, kind, spec.description))
    print_table(rows, indent=2)
    if not specs.names:
        print_line(f"  none yet; examples are in {ROOT / 'guests'}")
    for name, problems in sorted(specs.problems.items()):
        print_line(f"  {name}  ", Span("BROKEN", "error"), f": {_describe_problems(problems)}")
    _list_appliances(recipe.project)
    for name in sorted(recipe.project.built - specs.names):
        print_line(f"  {name}  built, and has no spec any more: doit delete name={name}")
    if warning := warn_of_closed(built):
        print_line("\n", Span(warning, "warning"))
    print_line("\nnext:")
    print_table(_NEXT, indent=2)


def _list_appliances(project: Project) -> None:
    """Which of the guests belong together, and the files that cannot be read."""
    known = read_appliances(project)
    if known.files or known.problems:
        print_line("appliances:")
    print_table([(name, ", ".join(known.guests_of(name))) for name in known.files], indent=2)
    for name, problems in known.problems.items():
        print_line(f"  {name}  ", Span("BROKEN", "error"), f": {_describe_problems(problems)}")


def _describe_problems(problems: Sequence[Finding]) -> str:
    """The first in a line, and how many there are besides."""
    first = problems[0]
    more = f"; {len(problems) - 1} more" if len(problems) > 1 else ""
    hint = f" ({first.hint.rstrip('?')})" if first.hint.startswith("did you mean") else ""
    return ": ".join(filter(None, (first.subject, first.text))) + hint + more


def run_tests(recipe: Recipe, _specs: object, _options: Options) -> None:
    """pytest over the whole tree, its output as it comes: boots alone, the rest on all cores."""
    root = recipe.project.root
    program = Path(sys.executable).with_name("pytest")
    if not program.is_file():
        raise UsageError(
            "pytest is not installed in this environment", hint="./doit test installs it"
        )
    # a file stays with one worker, so that what its tests share is made once; the emulated machines
    # come first and alone: beside other work on two cores a boot took nine times as long; what they
    # say is shown as it comes
    boots = ["tests/boot", "-v", "--capture=tee-sys"]
    workers = ["-n", str(min(os.cpu_count() or 1, _MOST_WORKERS)), "--dist", "loadfile"]
    others = ["tests", "--ignore=tests/boot", *workers, "--no-loadscope-reorder"]
    failures = [
        error for error in (_run(program, root, words) for words in (boots, others)) if error
    ]
    if failures:
        raise failures[-1]


def _run(program: Path, root: Path, words: list[str]) -> CommandFailed | None:
    try:
        process.run(
            [program, "--durations=10", *words],
            cwd=root,
            env={
                name: text for name, text in os.environ.items() if name.startswith(_READ_BY_TESTS)
            },
            on_line=lambda line: print(line, end="", flush=True),
        )
    except CommandFailed as error:
        return error
    return None


# how names begin that tests are asked by: no other of the caller's reaches them
_READ_BY_TESTS = ("CI", "DOMU_FLEET_KILLS", "DOMU_PROOF_", "DOMU_SPEC_", "DOMU_T", "KILL_STRIDE")
# each boots emulated machines of 6 GiB
_MOST_WORKERS = 4
