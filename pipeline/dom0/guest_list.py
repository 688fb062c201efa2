"""doit list-guests: every guest that this host knows, with what it was built from."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.console.progress import print_line, print_table
from pipeline.dom0.configuration import is_edited
from pipeline.dom0.inventory import FOUND, Installed, find_fault, survey
from pipeline.dom0.layout import Layout
from pipeline.dom0.toolstack import Running, Toolstack, find_toolstack
from pipeline.errors import PipelineError
from pipeline.proof.seals import read_verdict
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.store.store import read_buildinfo

_HEAD = ("guest", "state", "memory", "vcpus", "auto", "suite", "kernel", "golden image", "disks")
_CURES = {"image": "rebuild", "kernel": "refresh"}


@dataclass(frozen=True)
class Line:
    """A guest as it stands. `outdated` are the reasons why it is not what it would be built as.

    `proof` is the proof of the artifact that it was installed from, "" where that is not known;
    `appliance` the one that it is a member of, if any.
    """

    guest: str
    state: str
    is_ours: bool
    memory_mib: int = 0
    vcpus: int = 0
    autostart: bool = False
    suite: str = ""
    kernel: str = ""
    golden: str = ""
    disks: tuple[str, ...] = ()
    proof: str = ""
    outdated: tuple[str, ...] = ()
    undo: str = ""
    appliance: str = ""


def list_lines(recipe: Recipe, specs: Mapping[str, Spec], layout: Layout) -> list[Line]:
    """Installed guests, then configurations and domains that are not ours."""
    toolstack = find_toolstack()
    running = toolstack.domains() if toolstack else {}
    installed, _ = survey(layout)
    lines = [
        _line_of(record, running.get(name), toolstack, layout, recipe, specs.get(name))
        for name, record in installed.items()
    ]
    return [*lines, *_foreign(layout, set(installed), running)]


def _line_of(
    record: Installed,
    running: Running | None,
    toolstack: Toolstack | None,
    layout: Layout,
    recipe: Recipe,
    spec: Spec | None,
) -> Line:
    return Line(
        guest=record.name,
        state=_state(record, running, toolstack, layout),
        is_ours=True,
        memory_mib=running.memory_mib if running else 0,
        vcpus=running.vcpus if running else 0,
        autostart=record.is_autostarted,
        suite=record.suite,
        kernel=record.abi or "inside",
        golden=record.origin.get("image", "")[:12],
        disks=tuple(disk.target for disk in record.disks),
        proof=record.origin.get("proof", ""),
        outdated=tuple(_find_outdated(record, layout, recipe, spec)),
        undo=_undo_of(record, layout),
        appliance=record.membership.appliance if record.membership else "",
    )


def _undo_of(record: Installed, layout: Layout) -> str:
    if record.previous is None:
        return ""
    is_found = record.previous.word == FOUND
    which = f"cfg={layout.config(record.name)}" if is_found else f"name={record.name}"
    return f"doit {record.word} {which} undo=yes"


def _state(
    record: Installed, running: Running | None, toolstack: Toolstack | None, layout: Layout
) -> str:
    if running is not None:
        return running.state
    if layout.save_file(record.name).exists():
        return "saved"
    if layout.moved(record.name).exists():
        return "moved"
    return "shut off" if toolstack else "not asked"


def _find_outdated(
    record: Installed, layout: Layout, recipe: Recipe, spec: Spec | None
) -> Iterator[str]:
    if not layout.config(record.name).exists():
        yield f"{layout.config(record.name)} is gone"
    elif is_edited(layout, record):
        yield "its configuration was edited"
    for disk in record.disks:
        if why := find_fault(disk):
            yield why
    if record.pending:
        yield f"waits for kernel {Path(record.pending).name}: doit shutdown, then doit start"
    proof = record.origin.get("proof", "")
    if proof not in ("", "proven"):
        yield f"installed without a proof: {proof}"
    if "repository" in record.origin:
        return  # doit update knows what is newer
    yield from _newer_build(record, recipe)
    if spec is None:
        yield "no spec of that name here"
        return
    try:
        for stage, text in (("image", "golden image"), ("kernel", "kernel")):
            state = recipe.state(stage, spec)
            if not state.is_current:
                yield f"{text}: {state.reason}"
            elif record.origin.get(stage, "") != state.fingerprint:
                yield f"another {text} is built: doit {_CURES[stage]} name={record.name}"
    except PipelineError as error:
        yield error.brief


def _newer_build(record: Installed, recipe: Recipe) -> Iterator[str]:
    """Another artifact of that name in output/guests, and whether that one is proven."""
    folder = recipe.project.artifact(record.name)
    built = read_buildinfo(folder)
    if built is None or built.fingerprint == record.origin.get("config", ""):
        return
    verdict = read_verdict(folder, is_glance=True)
    state = "proven" if verdict.is_proven else f"not proven: {verdict.reason}"
    yield f"another build lies in {folder} ({state}): doit rebuild name={record.name}"


def _foreign(layout: Layout, ours: set[str], running: Mapping[str, Running]) -> Iterator[Line]:
    defined = {path.stem: path for path in sorted(layout.configs.glob("*.cfg"))}
    for name in sorted((defined.keys() | running.keys()) - ours):
        domain = running.get(name)
        yield Line(
            guest=name,
            state=domain.state if domain else "defined",
            is_ours=False,
            memory_mib=domain.memory_mib if domain else 0,
            vcpus=domain.vcpus if domain else 0,
            autostart=(layout.auto / f"{name}.cfg").exists(),
        )


def print_guests(recipe: Recipe, specs: Mapping[str, Spec], *, as_json: bool) -> None:
    """The table, then for each guest what is out of date and what can be undone."""
    layout = Layout.here()
    lines = list_lines(recipe, specs, layout)
    if as_json:
        print(json.dumps([asdict(line) for line in lines], indent=1))
        return
    problems = survey(layout)[1]
    for problem in problems:
        print_line(f"! {problem.brief}: {problem.hint}")
    if not lines and not problems:
        print_line("no guest is installed here; doit guests lists the specs")
        return
    if lines:
        print_table([_row(line) for line in lines], head=_HEAD)
    for name in sorted({line.appliance for line in lines if line.appliance}):
        members = ", ".join(line.guest for line in lines if line.appliance == name)
        print_line(f"  appliance {name}: {members}")
    for line in lines:
        for reason in line.outdated:
            print_line(f"  {line.guest}: {reason}")
        if line.undo:
            print_line(f"  {line.guest}: can be undone: {line.undo}")


def _row(line: Line) -> tuple[str, ...]:
    folders = {str(Path(disk).parent) for disk in line.disks}
    return (
        line.guest,
        line.state,
        f"{line.memory_mib} MiB" if line.memory_mib else "",
        str(line.vcpus or ""),
        "yes" if line.autostart else "",
        line.suite if line.is_ours else "not ours",
        line.kernel,
        line.golden,
        " ".join(sorted(folders)),
    )
