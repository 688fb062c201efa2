"""What a build would take, before anything is touched: volumes, files, bytes, extents, seconds.

Nothing here writes. Times are those of earlier runs, from the buildinfo of what they made.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.console.findings import render_table
from pipeline.console.progress import print_line
from pipeline.errors import EnvironmentFault, Finding, PipelineError, UsageError
from pipeline.guest.login import find_login
from pipeline.guest.passwords import read_root_hash
from pipeline.mirror.snapshot import Snapshot, read_snapshot
from pipeline.namespace import require_namespace
from pipeline.preflight import find_unknown_names, look_ahead
from pipeline.process import require_tools
from pipeline.recipe import KNOWN_HOSTS, Recipe
from pipeline.spec import Spec
from pipeline.spec.model import describe_type
from pipeline.stage import Stage
from pipeline.storage import lvm
from pipeline.storage.disks import MIB, Target, targets_of
from pipeline.storage.filesystems import TOOLS, require_mounting
from pipeline.storage.images import golden_name, refuse_too_small
from pipeline.storage.lvm import Group
from pipeline.storage.refusals import refuse_targets
from pipeline.storage.written import read_record
from pipeline.store.store import BuildInfo, read_buildinfo

_SPARE = 64 * MIB  # kernel, initrd, records, what is in work
_OF_THE_TREE = {"mirror", "base", "kernel", "rootfs"}  # those that ask for a machine that runs it


@dataclass(frozen=True)
class PlannedStage:
    """A stage: why it would run ("" for not at all) and how long it took before, if ever."""

    name: str
    reason: str
    seconds: float | None


@dataclass(frozen=True)
class PlannedDisk:
    """A disk: its size as the guest sees it, and what is written of it, in bytes."""

    part: str
    kind: str
    path: str
    size: int
    writes: int | None
    extents: int | None = None
    replaces: bool = False


@dataclass(frozen=True)
class PlannedSpace:
    """A volume group, a thin pool or a file system: what it has and what would go, in bytes."""

    name: str
    free: int
    takes: int
    extent: int | None = None


@dataclass
class Plan:
    """What a build would do and take, what is to be said of it, and with what it would end.

    `refusals` are those of `findings` that stop the build, as the errors that it would end with.
    """

    guest: str
    stages: list[PlannedStage] = field(default_factory=list)
    disks: list[PlannedDisk] = field(default_factory=list)
    spaces: list[PlannedSpace] = field(default_factory=list)
    refusals: list[PipelineError] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def refuse(self, subject: str, error: PipelineError) -> None:
        """Note what would stop the build."""
        self.refusals.append(error)
        self.findings.append(Finding("error", subject, error.brief, error.hint))

    def require(self, subject: str, check: Callable[[], object]) -> None:
        """Note what a check raises."""
        try:
            check()
        except PipelineError as error:
            self.refuse(subject, error)

    @property
    def refused(self) -> list[Finding]:
        """The findings that stop the build."""
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def fault(self) -> PipelineError | None:
        """One error for all that would stop the build, with the exit code of the first."""
        if len(self.refusals) < 2:
            for refusal in self.refusals:
                refusal.guest = self.guest
            return self.refusals[0] if self.refusals else None
        return Unbuildable(self)

    @property
    def seconds(self) -> float | None:
        """The stages that would run, one after the other; None when one has never run."""
        times = [stage.seconds for stage in self.stages if stage.reason]
        return None if None in times else round(sum(time or 0 for time in times), 1)

    def as_json(self) -> dict[str, Any]:
        """For programs, beside the findings."""
        return {
            "stages": [asdict(stage) for stage in self.stages],
            "disks": [asdict(disk) for disk in self.disks],
            "spaces": [asdict(space) for space in self.spaces],
            "seconds": self.seconds,
            "refusals": [
                {"reason": error.brief, "next": error.hint, "exit_code": error.exit_code}
                for error in self.refusals
            ],
        }


class Unbuildable(PipelineError):
    """All that stops the build of a guest, as one error with the exit code of the first."""

    def __init__(self, plan: Plan) -> None:
        self._findings = [finding for finding in plan.findings if finding.level != "ok"]
        super().__init__(
            f"{len(plan.refusals)} reasons why it cannot be built; nothing was begun",
            details="\n".join(render_table(self._findings)),
            hint="mend them all, and ask again",
        )
        self.exit_code, self.guest = plan.refusals[0].exit_code, plan.guest

    @property
    def findings(self) -> list[Finding]:
        """Each of them."""
        return self._findings


def plan_build(recipe: Recipe, spec: Spec, run: lvm.Run, *, fetches: bool = False) -> Plan:
    """What `doit build` of this guest would do and take now.

    With `fetches` the mirror's state is fetched where that is due, to ask it for packages.
    """
    known_hosts = recipe.project.artifact(spec.name) / KNOWN_HOSTS
    chosen = Finding("ok", "type", describe_type(spec))
    plan = Plan(spec.name, findings=[find_login(spec, known_hosts).finding, chosen])
    golden = Path(os.devnull)
    try:
        for name in recipe.stages:
            reason = recipe.state(name, spec).reason
            seconds = _expected_seconds(recipe, name, spec)
            plan.stages.append(PlannedStage(name, reason, seconds))
        golden = recipe.state("image", spec).folder
    except PipelineError as error:  # of a stage's inputs, such as an element that is not there
        plan.refuse("elements" if name == "rootfs" else name, error)
    current = {stage.name for stage in plan.stages if not stage.reason}
    waiting = [stage for stage in recipe.stages.values() if stage.name not in current]
    if not waiting:
        return plan
    _foresee(recipe, spec, run, plan, waiting, fetches=fetches)
    targets = tuple(target for target in targets_of(spec, recipe.project) if target.is_own)
    if "volume" not in current:
        plan.require("disks", lambda: _refuse_disks(recipe, spec, run, targets, golden))
    plan.disks = [_plan_disk(run, target, golden, spec) for target in targets]
    plan.spaces = [*_plan_groups(run, targets, plan), *_plan_files(recipe, targets, plan)]
    spare = _SPARE if fetches else 0  # a build is refused for what is sure to be needed
    for space in plan.spaces:
        if space.takes - spare > space.free and not any(
            told.subject == "disks" for told in plan.refused
        ):
            plan.refuse("room", _too_little(space))
    return plan


def require_buildable(recipe: Recipe, spec: Spec, run: lvm.Run) -> None:
    """Raises one error with all that would stop a build; what only warns of packages is printed."""
    plan = plan_build(recipe, spec, run, fetches=True)
    if plan.fault:
        raise plan.fault
    for finding in plan.findings:
        if finding.level == "warning" and finding.subject == "packages":
            print_line(f"     {spec.name}: {finding.text}; {finding.hint}")


def _foresee(
    recipe: Recipe, spec: Spec, run: lvm.Run, plan: Plan, waiting: Sequence[Stage], *, fetches: bool
) -> None:
    """All that can be known of the stages that would run, at once."""
    project, names = recipe.project, {stage.name for stage in waiting}
    lacks = list(look_ahead(spec, project, runs_guest=bool(names & _OF_THE_TREE)))
    unknown = list(find_unknown_names(spec)) if "rootfs" in names else []
    if any(stage.is_shared for stage in waiting):
        snapshot = _find_snapshot(recipe, spec, plan, fetches=fetches)
        for stage in (recipe.stage(stage.name, spec) for stage in waiting):
            for foresee in stage.foresees:
                unknown += foresee(spec, project, snapshot)
        plan.require("namespaces", lambda: require_namespace(run))
    kinds = {part.fs for part in spec.parts if part.has_files}
    needed = [recipe.stage(stage.name, spec).tools for stage in waiting]
    tools = {name: package for tools in needed for name, package in tools.items()}
    for kind in kinds & TOOLS.keys():
        tools |= TOOLS[kind]
    for findings, fault in ((lacks, EnvironmentFault), (unknown, UsageError)):
        plan.findings += findings
        errors = [finding for finding in findings if finding.level == "error"]
        plan.refusals += [fault(f"{each.subject}: {each.text}", hint=each.hint) for each in errors]
    plan.require("programs", lambda: require_tools(tools))
    if "image" in names or "volume" in names:
        plan.require("fs", lambda: require_mounting(kinds))
    if "volume" in names and spec.root_password_file not in ("", "-"):
        plan.require("root_password_file", lambda: read_root_hash(spec, project.guests))


def _find_snapshot(recipe: Recipe, spec: Spec, plan: Plan, *, fetches: bool) -> Snapshot | None:
    """The archive's state that would be used, to ask it; without one the plan says so."""
    why = "the mirror's index is not here; a build fetches it first"
    if recipe.stage("mirror", spec) is not recipe.stages["mirror"]:
        return None
    try:
        state = recipe.state("mirror", spec)
        if fetches:
            state = recipe.build_early("mirror", spec)
        if state.buildinfo is not None:
            return read_snapshot(state.folder)
    except PipelineError as error:
        why = error.brief
    plan.findings.append(Finding("skipped", "packages", f"not asked: {why}"))
    return None


def _refuse_disks(
    recipe: Recipe, spec: Spec, run: lvm.Run, targets: Sequence[Target], golden: Path
) -> None:
    """Raises for the first disk that must not be written or is too small."""
    last = recipe.project.volume(spec.name)
    for part in spec.parts:
        if part.has_files and (golden / golden_name(part.mountpoint)).is_file():
            refuse_too_small(part, golden / golden_name(part.mountpoint))
    refuse_targets(run, targets, last, read_record(last), may_replace=recipe.options.replace)


def _too_little(space: PlannedSpace) -> EnvironmentFault:
    return EnvironmentFault(
        f"{space.name} has {space.free // MIB} MiB free, the build needs {space.takes // MIB} MiB",
        hint="make room (doit gc keep=5G), build elsewhere (DOMU_OUTPUT=/another/folder), or ask "
        "for less: size=",
    )


def _expected_seconds(recipe: Recipe, name: str, spec: Spec) -> float | None:
    """How long this stage took for this guest, or else for the last guest of all."""
    own = recipe.last_built(recipe.stages[name], spec)
    if own is not None:
        return own.seconds
    newest = max(_earlier(recipe, name), key=lambda found: found.built_at, default=None)
    return newest.seconds if newest else None


def _earlier(recipe: Recipe, name: str) -> Iterator[BuildInfo]:
    project = recipe.project
    rooms = {"volume": project.volumes, "config": project.artifacts}
    for folder in rooms.get(name, project.store / name).glob("*"):
        if found := read_buildinfo(folder):
            yield found


def _plan_disk(run: lvm.Run, target: Target, golden: Path, spec: Spec) -> PlannedDisk:
    size = target.part.size_mib * MIB
    writes = size if target.kind in ("volume", "device") else _data_of(target, golden, spec)
    extents = None
    is_there = target.path.exists()
    if target.is_volume:
        groups = {group.name: group for group in _groups(run)}
        if target.group in groups:
            extents = groups[target.group].extents(size)
            size = extents * groups[target.group].extent
    if target.kind == "file" and target.is_full:
        writes = size
    return PlannedDisk(
        target.part.name, target.kind, str(target.path), size, writes, extents, is_there
    )


def _data_of(target: Target, golden: Path, spec: Spec) -> int | None:
    """What a sparse copy takes: the golden image's blocks, else those of the largest so far."""
    if not target.part.has_files or (spec.clone == "cow" and target.format != "raw"):
        return 64 << 10
    image = golden / golden_name(target.part.mountpoint)
    if spec.clone == "cow":
        return 0
    if image.is_file():
        return image.stat().st_blocks * 512
    return _golden_bytes(image.parents[2]) or None


def _groups(run: lvm.Run) -> list[Group]:
    return lvm.list_groups(run) if os.geteuid() == 0 and not lvm.missing_tools() else []


def _plan_groups(run: lvm.Run, targets: tuple[Target, ...], plan: Plan) -> Iterator[PlannedSpace]:
    ours = [target for target in targets if target.is_volume]
    sizes = {disk.part: disk for disk in plan.disks}
    groups = {group.name: group for group in _groups(run)}
    for name in dict.fromkeys(target.group for target in ours):
        thick = [sizes[one.part.name].size for one in ours if one.group == name and not one.pool]
        if thick and name in groups:
            yield PlannedSpace(name, groups[name].free, sum(thick), groups[name].extent)
    for group, pool in dict.fromkeys((one.group, one.pool) for one in ours if one.pool):
        found = lvm.find_volume(run, group, pool) if group in groups else None
        if found is not None:
            takes = sum(sizes[one.part.name].writes or 0 for one in ours if one.pool == pool)
            free = int(found.size * (100 - found.filled) / 100)
            yield PlannedSpace(f"{group}/{pool}", free, takes, found.chunk)


def _plan_files(recipe: Recipe, targets: tuple[Target, ...], plan: Plan) -> Iterator[PlannedSpace]:
    """output/: image files stay there, what goes onto a volume passes through it."""
    project, rooms = (
        recipe.project,
        {stage.name: stage.room_mib * MIB for stage in recipe.stages.values()},
    )
    place = project.output
    while not place.exists():
        place = place.parent
    state = os.statvfs(place)
    sizes = {disk.part: disk for disk in plan.disks}
    kept = [
        (rooms["image"] if writes is None else writes) * (2 if one.format != "raw" else 1)
        for one, writes in ((target, sizes[target.part.name].writes) for target in targets)
        if one.kind == "file"
    ]
    passing = [
        _golden_bytes(project.store) or rooms["image"] for one in targets if one.kind != "file"
    ]
    making = sum(rooms[stage.name] for stage in plan.stages if stage.reason)
    takes = making + sum(kept) + sum(passing[:1]) + _SPARE
    yield PlannedSpace(str(place), state.f_bavail * state.f_frsize, takes)


def _golden_bytes(store: Path) -> int:
    """The largest golden image that was made so far."""
    images = store.glob("image/*/golden*.img")
    return max((image.stat().st_blocks * 512 for image in images), default=0)
