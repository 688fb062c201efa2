"""What speaks against writing a guest's disks: somebody uses them, it is not ours, it cannot fit.

Everything here looks and changes nothing.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.errors import EnvironmentFault, InUseError
from pipeline.spec.devices import Part
from pipeline.storage import lvm
from pipeline.storage.disks import MIB, Target
from pipeline.storage.in_use import refuse_if_defined, refuse_if_used
from pipeline.storage.lvm import Group, Volume
from pipeline.storage.replicated import require_primary
from pipeline.storage.written import BuiltDisk, read_head, read_times
from pipeline.walls.cage import caged_reader
from pipeline.xen.devices import resource_of

_REPLACE = "replace=yes builds it anew and loses what is on it"
_SPARE_PERCENT = 95  # of a thin pool: what is left is for its other users


def refuse_targets(
    run: lvm.Run,
    targets: Sequence[Target],
    folder: Path,
    before: Sequence[BuiltDisk],
    *,
    may_replace: bool,
) -> None:
    """Raises InUseError or EnvironmentFault for the first target that must not be written.

    `folder` has the guest's disks that are files as they were last built, `before` are the others.
    """
    _refuse_files(folder, targets, may_replace=may_replace)
    volumes = [target for target in targets if target.is_volume]
    if volumes:
        lvm.require_lvm()
        _refuse_unfit(run, volumes)
    for target in volumes:
        _refuse_volume(run, target, before, may_replace=may_replace)
    for target in targets:
        if target.kind == "device":
            _refuse_device(run, target, before, may_replace=may_replace)


def _refuse_unfit(run: lvm.Run, targets: Iterable[Target]) -> None:
    """Raises EnvironmentFault when the volumes do not fit beside those that they replace."""
    sizes: dict[str, list[int]] = {}
    for target in targets:
        if target.pool:
            require_pool_room(run, target.group, target.pool, 0)
        else:
            sizes.setdefault(target.group, []).append(target.part.size_mib * MIB)
    for group, needed in sizes.items():
        require_group_room(run, group, needed, what="the guest's new volumes need")


def require_group_room(
    run: lvm.Run, name: str, sizes: Iterable[int], *, what: str = "the guest needs"
) -> Group:
    """The group; raises EnvironmentFault where volumes of these sizes (bytes) do not fit in it."""
    group = lvm.read_group(run, name)
    extents = sum(map(group.extents, sizes))
    if extents > group.free_extents:
        raise EnvironmentFault(
            f"{name} has {group.free >> 20} MiB free, {what} {extents * group.extent >> 20} MiB "
            f"({extents} extents, {group.free_extents} are free)",
            hint="ask for less (size=), make room (lvremove) or add a disk (vgextend); old volumes "
            "are removed only when the new ones are whole",
        )
    return group


def refuse_volumes(run: lvm.Run, group: str, wanted: Iterable[tuple[Path, int]]) -> None:
    """Raises for new volumes of an installation: no root, no such group, no room, a name taken.

    `wanted` are the devices and their sizes in bytes.
    """
    lvm.require_lvm()
    sizes = dict(wanted)
    require_group_room(run, group, sizes.values())
    for volume in lvm.list_volumes(run, group):
        if volume.path in sizes:
            raise InUseError(
                f"{volume.path} is there and was not made for this guest",
                hint=f"rename it (lvrename {group} {volume.name} OTHER), or remove it yourself",
            )


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


def require_folder_room(folder: Path, need: int, *, what: str = "") -> None:
    """Raises EnvironmentFault where a file system has not that many bytes left for files.

    A sparse file may promise what the host has not; a guest that fills it would lose what it
    writes.
    """
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    if need > free:
        raise EnvironmentFault(
            f"{folder}: {need >> 20} MiB are needed{what}, {free >> 20} MiB are free",
            hint="make room on this host, or ask for less",
        )


def _refuse_volume(
    run: lvm.Run, target: Target, before: Iterable[BuiltDisk], *, may_replace: bool
) -> None:
    volume = lvm.find_volume(run, target.group, target.path.name)
    if volume is None:
        return
    if target.tags[0] not in volume.tags:
        guest = target.tags[0].partition("=")[2]
        raise InUseError(
            f"{volume.path} exists and was not made for {guest}",
            hint=f"rename it (lvrename {target.group} {volume.name} OTHER) or give the guest "
            "another name; it is never overwritten",
        )
    refuse_if_used(volume.path)
    if may_replace:
        return
    refuse_if_defined(volume.path)
    if target.part.holds_data and not _is_as_built(volume, before):
        raise InUseError(
            f"{volume.path}: the guest has written to it since it was built", hint=_REPLACE
        )


def _is_as_built(volume: Volume, before: Iterable[BuiltDisk]) -> bool:
    written = {disk.uuid: disk.written for disk in before}.get(volume.uuid)
    return bool(written and volume.device and written.is_still_on(volume.path))


def _refuse_device(
    run: lvm.Run, target: Target, before: Iterable[BuiltDisk], *, may_replace: bool
) -> None:
    path, need = target.path, target.part.size_mib * MIB
    if resource := resource_of(str(path)):
        require_primary(run, resource)
    try:
        is_block = stat.S_ISBLK(path.stat().st_mode)
    except OSError as error:
        raise EnvironmentFault(
            f"{path}: {error.strerror}", hint="name a block device of this machine: lsblk"
        ) from error
    if not is_block:
        raise EnvironmentFault(f"{path} is no block device", hint="see lsblk")
    refuse_if_used(path)
    room = size_of(path)
    if room < need:
        raise EnvironmentFault(
            f"{path} has {room >> 20} MiB, the guest asks for {need >> 20} MiB",
            hint=f"write size={_root_mib(target.part, room)}M, or name a larger device",
        )
    if not may_replace:
        refuse_if_defined(path)
        _refuse_contents(run, path, before)


def _root_mib(part: Part, room: int) -> int:
    """What `size` may be at most in that many bytes."""
    held = part.size_mib - part.inside[-1].size_mib if part.inside else 0
    return max((room >> 20) - held, 0)


def _refuse_contents(run: lvm.Run, device: Path, before: Iterable[BuiltDisk]) -> None:
    """A device that holds anything but what we wrote is given up by its owner only."""
    for disk in before:
        if disk.path == device and disk.written and disk.written.is_still_on(device):
            return
    probe = ["blkid", "-p", "-o", "value", "-s", "TYPE", device]
    said = run(caged_reader(probe, readable=[device]), accept=(0, 2)).split()
    if said or read_head(device).strip(b"\0"):
        what = f"a {said[-1]} file system or signature" if said else "data"
        raise InUseError(f"{device} holds {what}", hint=_REPLACE)


def size_of(device: Path) -> int:
    """Bytes of a device; raises EnvironmentFault where it cannot be opened."""
    try:
        with open(device, "rb", buffering=0) as stream:
            return stream.seek(0, os.SEEK_END)
    except OSError as error:
        raise EnvironmentFault(f"{device}: {error.strerror}", hint="start as root") from error


def _refuse_files(folder: Path, targets: Iterable[Target], *, may_replace: bool) -> None:
    """Never over an image that is in use or that a guest has written to since it was built."""
    for name, mtime_ns in read_times(folder).items():
        path = folder / name
        refuse_if_used(path)
        if path.is_file() and path.stat().st_mtime_ns != mtime_ns and not may_replace:
            raise InUseError(
                f"{path}: the guest has written to it since it was built",
                hint="replace=yes builds it anew and loses what the guest wrote",
            )
    if not may_replace:
        for target in targets:
            if target.kind == "file":
                refuse_if_defined(target.path)
