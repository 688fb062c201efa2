"""What a build would take, before anything is touched: volumes, files, bytes, extents, seconds.

Nothing here writes. Times are those of earlier runs, from the buildinfo of what they made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentFault, Finding, PipelineError
from pipeline.guest.login import find_login
from pipeline.preflight import look_ahead, refusal_of
from pipeline.recipe import KNOWN_HOSTS, Recipe
from pipeline.spec import Spec
from pipeline.storage import lvm
from pipeline.storage.disks import MIB, Target, targets_of
from pipeline.storage.images import golden_name, refuse_too_small
from pipeline.storage.lvm import Group
from pipeline.storage.refusals import refuse_targets
from pipeline.storage.written import read_record
from pipeline.store.store import BuildInfo, read_buildinfo

_SPARE = 64 * MIB  # kernel, initrd, records, what is in work


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


def plan_build(recipe: Recipe, spec: Spec, run: lvm.Run) -> Plan:
    """What `doit build` of this guest would do and take now."""
    known_hosts = recipe.project.artifact(spec.name) / KNOWN_HOSTS
    plan = Plan(spec.name, findings=[find_login(spec, known_hosts).finding])
    for name in recipe.stages:
        state = recipe.state(name, spec)
        plan.stages.append(PlannedStage(name, state.reason, _expected_seconds(recipe, name, spec)))
    if not any(stage.reason for stage in plan.stages):
        return plan
    plan.findings += look_ahead(spec, recipe.project)
    fault = refusal_of(plan.findings)
    plan.refusals += [fault] if fault else []
    targets = targets_of(spec, recipe.project)
    last = recipe.project.volume(spec.name)
    golden = recipe.state("image", spec).folder
    try:
        for part in spec.parts:
            if part.has_files and (golden / golden_name(part.mountpoint)).is_file():
                refuse_too_small(part, golden / golden_name(part.mountpoint))
        refuse_targets(run, targets, last, read_record(last), may_replace=recipe.options.replace)
    except PipelineError as error:
        plan.refuse("disks", error)
    plan.disks = [_plan_disk(run, target, golden, spec) for target in targets]
    plan.spaces = [*_plan_groups(run, targets, plan), *_plan_files(recipe, targets, plan)]
    for space in plan.spaces:
        if space.takes > space.free and not plan.refusals:
            plan.refuse("room", _too_little(space))
    return plan


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
