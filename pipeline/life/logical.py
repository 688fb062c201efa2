"""Disks of an installed guest that are logical volumes: NAME-disk, NAME-swap, as with xen-tools.

Each is made under a temporary name, written whole and compared, and gets its own name at the
commit. A later generation of the same disk has its number behind the name, so that old and new
stand side by side and the configuration's rename decides.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from pipeline import command
from pipeline.errors import EnvironmentFault, InUseError, PipelineError
from pipeline.host import lvm
from pipeline.host.in_use import refuse_if_used
from pipeline.life.journal import Transaction
from pipeline.life.layout import Layout
from pipeline.life.steps import Step
from pipeline.volumes.writing import write_image

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
    found = lvm.read_group(command.run, group)
    volumes = {volume.name for volume in lvm.list_volumes(command.run, group)}
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
        command.run,
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
    found = lvm.find_volume(command.run, step["group"], step["path"])
    if found is None or not any(tag.startswith(TAG) for tag in found.tags):
        return
    refuse_if_used(found.path)
    lvm.remove_volume(command.run, found)


def perform_rename(_layout: Layout, step: Step) -> None:
    """Give a volume its name, unless it has it."""
    if lvm.find_volume(command.run, step["group"], step["source"]) is not None:
        lvm.rename_volume(command.run, step["group"], step["source"], step["path"])


def find_abandoned() -> list[str]:
    """Volumes of ours that never got their name, and whose journal is gone: group/name."""
    try:
        volumes = lvm.list_volumes(command.run)
    except PipelineError:
        return []
    return [
        f"{volume.group}/{volume.name}"
        for volume in volumes
        if ".new-" in volume.name and any(tag.startswith(TAG) for tag in volume.tags)
    ]


def set_size(device: Path, size_bytes: int) -> None:
    """Make a volume larger."""
    volume = lvm.find_volume(command.run, device.parent.name, device.name)
    if volume is None:
        raise EnvironmentFault(f"{device} is no logical volume", hint="lvs lists them")
    group = lvm.read_group(command.run, volume.group)
    more = group.extents(size_bytes) - group.extents(volume.size)
    if not volume.is_thin and more > group.free_extents:
        raise EnvironmentFault(
            f"{volume.group} has {group.free >> 20} MiB free, {more * group.extent >> 20} MiB more "
            "were asked for",
            hint="ask for less, or make room: lvremove, vgextend",
        )
    if more > 0:
        lvm.extend_volume(command.run, volume, size_bytes)
