"""What speaks against writing a guest's disks: somebody uses them, it is not ours, it cannot fit.

Everything here looks and changes nothing.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import EnvironmentFault, InUseError, PipelineError
from pipeline.storage import lvm
from pipeline.storage.block_device import HEAD, Written, is_unchanged
from pipeline.storage.disks import (
    GUEST_TAG,
    MIB,
    AnyTarget,
    DeviceTarget,
    FileTarget,
    LogicalTarget,
)
from pipeline.storage.in_use import refuse_if_defined, refuse_if_used
from pipeline.storage.lvm import Volume
from pipeline.storage.staged_volume import Record, require_pool_room
from pipeline.walls.cage import caged_reader
from pipeline.walls.privacy import make_private

WRITTEN = "written.json"
_REPLACE = "replace=yes builds it anew and loses what is on it"


def refuse_targets(
    run: lvm.Run, targets: Iterable[AnyTarget], folder: Path, before: Record, *, may_replace: bool
) -> None:
    """Raises InUseError or EnvironmentFault for the first target that must not be written.

    `folder` and `before` are the guest's disks and volumes as they were last built.
    """
    found = list(targets)
    _refuse_files(folder, found, may_replace=may_replace)
    if any(isinstance(target, LogicalTarget) for target in found):
        lvm.require_lvm()
        refuse_unfit(run, [target for target in found if isinstance(target, LogicalTarget)])
    for target in found:
        if isinstance(target, LogicalTarget):
            _refuse_volume(run, target, before, may_replace=may_replace)
        elif isinstance(target, DeviceTarget):
            _refuse_device(run, target, before, may_replace=may_replace)


def refuse_unfit(run: lvm.Run, targets: Iterable[LogicalTarget]) -> None:
    """Raises EnvironmentFault when the volumes do not fit beside those that they replace."""
    needs: dict[str, int] = {}
    for target in targets:
        if target.pool:
            require_pool_room(run, target.group, target.pool, 0)
        else:
            size = target.part.size_mib * MIB
            needs[target.group] = needs.get(target.group, 0) + size
    for name, need in needs.items():
        group = lvm.read_group(run, name)
        extents = group.extents(need)
        if extents > group.free_extents:
            raise EnvironmentFault(
                f"{name} has {group.free >> 20} MiB free, the guest's new volumes need "
                f"{need >> 20} MiB ({extents} extents, {group.free_extents} are free)",
                hint="ask for less (size=), make room (lvremove) or add a disk (vgextend); the "
                "old volumes are removed only when the new ones are whole",
            )


def _refuse_volume(
    run: lvm.Run, target: LogicalTarget, before: Record, *, may_replace: bool
) -> None:
    volume = target.find(run)
    if volume is None:
        return
    if f"{GUEST_TAG}{target.guest}" not in volume.tags:
        raise InUseError(
            f"{volume.path} exists and was not made for {target.guest}",
            hint=f"rename it (lvrename {target.group} {target.name} OTHER) or give the guest "
            "another name; it is never overwritten",
        )
    refuse_if_used(volume.path)
    if may_replace:
        return
    refuse_if_defined(volume.path)
    if target.part.has_files and not _is_as_written(volume, before):
        raise InUseError(
            f"{volume.path}: the guest has written to it since it was built", hint=_REPLACE
        )


def _is_as_written(volume: Volume, before: Record) -> bool:
    for one in before.volumes:
        if one.uuid == volume.uuid and one.written is not None and volume.device is not None:
            return is_unchanged(volume.path, one.written)
    return False


def _refuse_device(
    run: lvm.Run, target: DeviceTarget, before: Record, *, may_replace: bool
) -> None:
    path, need = target.path, target.part.size_mib * MIB
    try:
        is_block = stat.S_ISBLK(path.stat().st_mode)
    except OSError as error:
        raise EnvironmentFault(
            f"{path}: {error.strerror}", hint="name a block device of this machine: lsblk"
        ) from error
    if not is_block:
        raise EnvironmentFault(f"{path} is no block device", hint="see lsblk")
    refuse_if_used(path)
    room = _size_of(path)
    if room < need:
        raise EnvironmentFault(
            f"{path} has {room >> 20} MiB, the guest asks for {need >> 20} MiB",
            hint=f"write size={room >> 20}M, or name a larger device",
        )
    if not may_replace:
        refuse_if_defined(path)
        _refuse_contents(run, target, before)


def _refuse_contents(run: lvm.Run, target: DeviceTarget, before: Record) -> None:
    """A device that holds anything but what we wrote is given up by its owner only."""
    for one in before.devices:
        if one.path == str(target.path) and is_unchanged(target.path, one.written):
            return
    probe = ["blkid", "-p", "-o", "value", "-s", "TYPE", target.path]
    said = run(caged_reader(probe, readable=[target.path]), accept=(0, 2)).split()
    if said or _head_of(target.path).strip(b"\0"):
        what = f"a {said[-1]} file system or signature" if said else "data"
        raise InUseError(f"{target.path} holds {what}", hint=_REPLACE)


def _size_of(device: Path) -> int:
    try:
        handle = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise EnvironmentFault(f"{device}: {error.strerror}", hint="start as root") from error
    try:
        return os.lseek(handle, 0, os.SEEK_END)
    finally:
        os.close(handle)


def _head_of(device: Path) -> bytes:
    with open(device, "rb", buffering=0) as stream:
        return stream.read(HEAD)


def _refuse_files(folder: Path, targets: list[AnyTarget], *, may_replace: bool) -> None:
    """Never over an image that is in use or that a guest has written to since it was built."""
    for name, mtime_ns in read_written(folder).items():
        path = folder / name
        refuse_if_used(path)
        if path.is_file() and path.stat().st_mtime_ns != mtime_ns and not may_replace:
            raise InUseError(
                f"{path}: the guest has written to it since it was built",
                hint="replace=yes builds it anew and loses what the guest wrote",
            )
    if not may_replace:
        for target in targets:
            if isinstance(target, FileTarget):
                refuse_if_defined(target.path)


def read_written(folder: Path) -> dict[str, int]:
    """Image file to the time that it had when it was made; empty where none was noted."""
    path = folder / WRITTEN
    if not path.is_file():
        return {}
    try:
        times = json.loads(path.read_bytes())
        found = {str(name): int(mtime_ns) for name, mtime_ns in times.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PipelineError(
            f"{path} is damaged: whether the guest has written to its disks is not known",
            hint="look at the disks; when they may be built anew, remove that file",
        ) from error
    return found


def note_written(folder: Path) -> None:
    """Remember the times of image files: a disk with another one has been written to."""
    disks = [path for suffix in ("img", "qcow2", "vhd") for path in folder.glob(f"*.{suffix}")]
    times = {path.name: path.stat().st_mtime_ns for path in disks}
    make_private(folder / WRITTEN).write_text(json.dumps(times))


__all__ = ["WRITTEN", "Written", "note_written", "read_written", "refuse_targets", "refuse_unfit"]
