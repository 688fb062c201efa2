"""A finished image onto a volume with a temporary name, which is verified before it is renamed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import process
from pipeline.dom0.layout import Layout
from pipeline.errors import EnvironmentFault, InUseError, PipelineError
from pipeline.files import write_durably
from pipeline.storage import lvm
from pipeline.storage.block_device import Written, write_image
from pipeline.storage.disks import MIB, LogicalTarget
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.lvm import Volume
from pipeline.storage.transaction import Step, Transaction

TAG = "domu:installed="


def volume_path(group: str, name: str, file: str, generation: int) -> Path:
    """The device of a disk: /dev/VG0/web1-disk; disk-home.img becomes web1-home."""
    part = file.partition(".")[0].removeprefix("disk-")
    tail = f".{generation}" if generation > 1 else ""
    return Path("/dev", group, f"{name}-{part}{tail}")


def refuse_volumes(group: str, wanted: Iterable[tuple[Path, int]]) -> None:
    """Raises before anything is made: no root, no such group, no room, a volume of that name.

    `wanted` are the devices and their sizes in bytes.
    """
    lvm.require_lvm()
    found = lvm.read_group(process.run, group)
    volumes = {volume.name for volume in lvm.list_volumes(process.run, group)}
    need = 0
    for device, size in wanted:
        if device.name in volumes:
            raise InUseError(
                f"{device} is there and was not installed by doit for this",
                hint=f"rename it (lvrename {group} {device.name} OTHER), or remove it yourself",
            )
        need += found.extents(size)
    if need > found.free_extents:
        raise EnvironmentFault(
            f"{group} has {found.free >> 20} MiB free, the guest needs "
            f"{need * found.extent >> 20} MiB",
            hint="a smaller guest, lvremove, or vgextend",
        )


def write_volume(change: Transaction, source: Path, device: Path) -> Step:
    """Make a volume with the bytes of `source`; returns the step that gives it its name."""
    group, staged = device.parent.name, f"{device.name}.new-{uuid.uuid4().hex[:8]}"
    change.will_make({"kind": "lv-remove", "group": group, "path": staged})
    volume = lvm.create_volume(
        process.run,
        group,
        staged,
        size_bytes=source.stat().st_size,
        tags=[f"{TAG}{change.name}"],
    )
    write_image(source, volume.path)
    return {"kind": "lv-rename", "group": group, "source": staged, "path": device.name}


def removal_step(device: Path) -> Step:
    """The step that removes a volume that we made."""
    return {"kind": "lv-remove", "group": device.parent.name, "path": device.name}


def perform_removal(_layout: Layout, step: Step) -> None:
    """Remove a volume with our tag; one that is in use by now stays, and is told."""
    found = lvm.find_volume(process.run, step["group"], step["path"])
    if found is None or not any(tag.startswith(TAG) for tag in found.tags):
        return
    refuse_if_used(found.path)
    lvm.remove_volume(process.run, found)


def perform_rename(_layout: Layout, step: Step) -> None:
    """Give a volume its name, unless it has it."""
    if lvm.find_volume(process.run, step["group"], step["source"]) is not None:
        lvm.rename_volume(process.run, step["group"], step["source"], step["path"])


def find_abandoned() -> list[str]:
    """Volumes of ours that never got their name, and whose journal is gone: group/name."""
    try:
        volumes = lvm.list_volumes(process.run)
    except PipelineError:
        return []
    return [
        f"{volume.group}/{volume.name}"
        for volume in volumes
        if ".new-" in volume.name and any(tag.startswith(TAG) for tag in volume.tags)
    ]


def set_size(device: Path, size_bytes: int) -> None:
    """Make a volume larger."""
    volume = lvm.find_volume(process.run, device.parent.name, device.name)
    if volume is None:
        raise EnvironmentFault(f"{device} is no logical volume", hint="lvs lists them")
    group = lvm.read_group(process.run, volume.group)
    more = group.extents(size_bytes) - group.extents(volume.size)
    if not volume.is_thin and more > group.free_extents:
        raise EnvironmentFault(
            f"{volume.group} has {group.free >> 20} MiB free, {more * group.extent >> 20} MiB more "
            "were asked for",
            hint="ask for less, or make room: lvremove, vgextend",
        )
    if more > 0:
        lvm.extend_volume(process.run, volume, size_bytes)


RECORD = "volumes.json"
NEW, OLD = ".new-", ".old-"
_SPARE_PERCENT = 95  # of a thin pool: what is left is for its other users


@dataclass(frozen=True)
class Staged:
    """A volume under its temporary name, and the name that it gets when the guest is whole."""

    part: str
    group: str
    uuid: str
    staged: str
    final: str
    written: Written | None

    def as_json(self) -> dict[str, Any]:
        """For the record beside the guest's disks."""
        written = self.written.as_json() if self.written else None
        return {**self.__dict__, "written": written}


@dataclass(frozen=True)
class Device:
    """A given device and what was written to it."""

    part: str
    path: str
    written: Written

    def as_json(self) -> dict[str, Any]:
        """For the record beside the guest's disks."""
        return {**self.__dict__, "written": self.written.as_json()}


@dataclass(frozen=True)
class Record:
    """What of a guest is not a file in its folder."""

    volumes: tuple[Staged, ...] = ()
    devices: tuple[Device, ...] = ()

    def write(self, folder: Path) -> None:
        """volumes.json; nothing where there is nothing to say."""
        if self.volumes or self.devices:
            lists = {name: [one.as_json() for one in getattr(self, name)] for name in _LISTS}
            write_durably(folder / RECORD, f"{json.dumps(lists)}\n".encode(), mode=0o600)


_LISTS = ("volumes", "devices")


def read_record(folder: Path) -> Record:
    """The record of a folder; an empty one where there is none."""
    path = folder / RECORD
    if not path.is_file():
        return Record()
    try:
        lists = json.loads(path.read_bytes())
        return Record(
            tuple(Staged(**{**one, "written": _written(one)}) for one in lists["volumes"]),
            tuple(Device(**{**one, "written": _surely_written(one)}) for one in lists["devices"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PipelineError(
            f"{path} is damaged: what was written to the guest's volumes is not known",
            hint="remove that file; then replace=yes builds over what is on them",
        ) from error


def _written(record: dict[str, Any]) -> Written | None:
    return Written.from_json(record["written"]) if record["written"] else None


def _surely_written(record: dict[str, Any]) -> Written:
    return Written.from_json(record["written"])


@contextmanager
def removed_on_failure(run: lvm.Run) -> Iterator[list[Staged]]:
    """Volumes that are put into the list are removed again when the block fails."""
    made: list[Staged] = []
    try:
        yield made
    except BaseException:
        for staged in reversed(made):
            remove_staged(run, staged)
        raise


def remove_staged(run: lvm.Run, staged: Staged) -> None:
    """Remove a volume that never got its name; nothing when it is gone or is in its place."""
    with lvm.lvm_lock():
        found = lvm.find_volume(run, staged.group, staged.staged)
        if found is not None and found.uuid == staged.uuid:
            lvm.remove_volume(run, found)


def new_name(target: LogicalTarget) -> str:
    """A temporary name beside the final one."""
    return f"{target.name}{NEW}{uuid.uuid4().hex[:8]}"


def stage_image(run: lvm.Run, target: LogicalTarget, image: Path, made: list[Staged]) -> Staged:
    """Make a volume, write the image onto it whole, compare; it is put into `made` at once.

    Raises EnvironmentFault when there is no room, VerificationError when other bytes come back.
    """
    size = target.part.size_mib * MIB
    if target.pool:
        require_pool_room(run, target.group, target.pool, image.stat().st_blocks * 512)
    name = new_name(target)
    volume = lvm.create_volume(
        run, target.group, name, size_bytes=size, pool=target.pool, tags=target.tags
    )
    made.append(make_staged(target, volume))
    written = write_image(image, volume.path, is_zeroed=bool(target.pool))
    made[-1] = make_staged(target, volume, written)
    return made[-1]


def make_staged(target: LogicalTarget, volume: Volume, written: Written | None = None) -> Staged:
    """The record of a volume that waits for its name."""
    return Staged(target.part.name, target.group, volume.uuid, volume.name, target.name, written)


def require_pool_room(run: lvm.Run, group: str, name: str, need: int) -> Volume:
    """The thin pool; raises EnvironmentFault when it is none, does not zero, or is too full."""
    pool = lvm.find_volume(run, group, name)
    if pool is None or not pool.is_pool:
        pools = [found.name for found in lvm.list_volumes(run, group) if found.is_pool]
        raise EnvironmentFault(
            f"{group}/{name} is no thin pool (there: {', '.join(pools) or 'none'})",
            hint=f"make one: lvcreate --type thin-pool -L 100G -n {name} {group}",
        )
    if not pool.zeroes:
        raise EnvironmentFault(
            f"{group}/{name} hands out blocks that still hold what was deleted before",
            hint=f"lvchange --zero y {group}/{name}",
        )
    free = int(pool.size * (_SPARE_PERCENT - pool.filled) / 100)
    if need > free or pool.metadata_filled > _SPARE_PERCENT:
        raise EnvironmentFault(
            f"{group}/{name} has {max(free, 0) >> 20} MiB left ({pool.filled:.0f} % full, its "
            f"metadata {pool.metadata_filled:.0f} %), the guest needs {need >> 20} MiB",
            hint=f"lvextend -L +10G {group}/{name}, or remove what nobody needs",
        )
    return pool


def list_staged(folders: Sequence[Path]) -> dict[str, Staged]:
    """The volumes that these folders of disks speak of, by uuid."""
    return {one.uuid: one for folder in folders for one in read_record(folder).volumes}
