"""A finished image onto a volume with a temporary name, which is verified before it is renamed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.canonical import write_durably
from pipeline.errors import EnvironmentFault, PipelineError
from pipeline.host import lvm
from pipeline.host.lvm_report import Volume
from pipeline.volumes.target import MIB, LogicalTarget
from pipeline.volumes.writing import Written, write_image

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
