"""Larger or smaller disks of a guest that is shut down, with its file system, checked both times.

A file system with a journal grows mounted, where nobody else sees it: the kernel's journal makes
that safe against a kill. Everything else is done to a copy that takes the disk's place by a rename.
(resize2fs -z, its undo file, is no help: 1.47.0 damages file systems of 1 KiB blocks with it, and
what a killed one leaves is called incomplete by e2undo.)
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import process
from pipeline.artifact.sums import copy_disk
from pipeline.dom0 import configuration
from pipeline.dom0.config_file import Grammar, require_readable
from pipeline.dom0.disk_files import require_disk
from pipeline.dom0.guest_root import (
    check_file_system,
    mount_options,
    read_ext,
    root_disk,
    write_ext,
)
from pipeline.dom0.inventory import Installed, InstalledDisk, note_written
from pipeline.dom0.layout import Layout
from pipeline.dom0.toolstack import Toolstack, refuse_running
from pipeline.errors import (
    CommandFailed,
    EnvironmentFault,
    InUseError,
    UsageError,
    VerificationError,
    WrongValueError,
)
from pipeline.namespace import isolated
from pipeline.process import require_tools
from pipeline.spec.values import parse_size
from pipeline.storage import lvm, staged_volume
from pipeline.storage.block_device import copy_device
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.lvm import Group
from pipeline.storage.transaction import Step, Transaction, remove, rename, work_folder


def shrink_volume(
    change: Transaction, record: Installed, disk: InstalledDisk, size_mib: int
) -> list[Step]:
    """Prepare it, in whole extents; returns the steps of the commit, the record's among them.

    Raises EnvironmentFault where the group has no room for a copy, VerificationError where the
    configuration does not name the volume in a way that can be replaced.
    """
    group = disk.path.parent.name
    volume = lvm.find_volume(process.run, group, disk.path.name)
    if volume is None:
        raise EnvironmentFault(f"{disk.target} is no logical volume", hint="lvs lists them")
    extents = lvm.read_group(process.run, group)
    if not volume.is_thin:
        _refuse_no_room(extents, volume.size)
    generation = record.generation + 1
    target = staged_volume.volume_path(group, record.name, "disk.img", generation)
    text = moved_text(change.layout, record, disk.vdev, str(target))
    staged = f"{target.name}.new-{uuid.uuid4().hex[:8]}"
    change.will_make({"kind": "lv-remove", "group": group, "path": staged})
    copy = lvm.create_volume(
        process.run,
        group,
        staged,
        size_bytes=volume.size,
        pool=volume.pool,
        tags=[f"{staged_volume.TAG}{record.name}"],
    )
    copy_device(disk.path, copy.path, is_zeroed=volume.is_thin)
    write_ext(copy.path, "e2fsck", "-f", "-p", accept=(0, 1))
    write_ext(copy.path, "resize2fs", more=f"{size_mib}M")
    whole = extents.extents(size_mib * MIB) * extents.extent
    copy = lvm.reduce_volume(process.run, copy, whole)
    read_ext(copy.path, "e2fsck", "-f", "-n")
    rendered = _with_path(record.rendered, disk.target, str(target))
    noted = replace(record.with_config(text, rendered), generation=generation)
    moved = _with_target(noted, disk, target)
    return [
        {"kind": "lv-rename", "group": group, "source": staged, "path": target.name},
        *configuration.prepare_texts(change, moved),
        staged_volume.removal_step(disk.path),
    ]


def _refuse_no_room(group: Group, size: int) -> None:
    if group.extents(size) > group.free_extents:
        raise EnvironmentFault(
            f"{group.name} has {group.free // MIB} MiB free: a volume is made smaller in a copy, "
            f"which takes {size // MIB} MiB for as long as that lasts",
            hint="make room: lvremove, vgextend",
        )


def _with_target(record: Installed, disk: InstalledDisk, target: object) -> Installed:
    """The record with the disk at its new place, also where an undo would go back to it."""

    def moved(disks: tuple[InstalledDisk, ...]) -> tuple[InstalledDisk, ...]:
        return tuple(
            replace(one, target=str(target)) if one.target == disk.target else one for one in disks
        )

    before = record.previous
    if before is not None:
        before = replace(before, disks=moved(before.disks))
    return replace(record, disks=moved(record.disks), previous=before)


def moved_text(layout: Layout, record: Installed, vdev: str, target: str) -> str:
    """The configuration as it is, the administrator's edits included, with a disk elsewhere.

    Raises VerificationError when anything else would change by that.
    """
    path, text = layout.config(record.name), configuration.current_text(layout, record)
    old = next(disk.target for disk in record.disks if disk.vdev == vdev)
    new, grammar = _with_path(text, old, target), Grammar(record.toolstack)
    was, now = (require_readable(grammar, path, one) for one in (text, new))
    is_named = any(disk.target == old for disk in was.disks)
    if not is_named or now != configuration.moved_domain(was, {vdev: target}, None):
        raise VerificationError(
            f"{path} does not name {old} so that it can be replaced",
            hint=f"write it as target={old} in its disk= line",
        )
    return new


def _with_path(text: str, old: str, new: str) -> str:
    return re.sub(rf"{re.escape(old)}(?![\w.+-])", lambda _: new, text)


MIB = 1 << 20
_EXT = ("ext2", "ext3", "ext4")
_TOOLS = {
    "ext4": {
        "resize2fs": "e2fsprogs",
        "e2fsck": "e2fsprogs",
        "dumpe2fs": "e2fsprogs",
        "bwrap": "bubblewrap",
    },
    "xfs": {"xfs_growfs": "xfsprogs", "xfs_repair": "xfsprogs"},
    "btrfs": {"btrfs": "btrfs-progs"},
}


@dataclass(frozen=True)
class Resizing:
    """A change of a disk's size, both in MiB; `disk` is the guest's root disk."""

    record: Installed
    disk: InstalledDisk
    before_mib: int
    after_mib: int

    @property
    def grows(self) -> bool:
        return self.after_mib > self.before_mib


def plan_resize(
    layout: Layout, record: Installed, asked: str, toolstack: Toolstack | None
) -> tuple[Resizing, list[str]]:
    """What will be done, and notes; raises for running guests, wrong sizes, full host disks."""
    try:
        size_mib = parse_size(asked)
    except WrongValueError as mistake:
        raise UsageError(f"size={asked}: {mistake.message}", hint=mistake.hint) from mistake
    disk = root_disk(record)
    if disk.format != "raw":
        raise UsageError(
            f"{disk.target} is {disk.format}: only raw disks and volumes are resized",
            hint="convert it: qemu-img convert -O raw, and edit the configuration",
        )
    require_tools(_TOOLS["ext4" if record.fs in _EXT else record.fs])
    if not disk.is_owned:
        raise UsageError(f"{disk.target} was not made by doit", hint="resize it by hand")
    require_disk(disk)
    note = refuse_running(toolstack, record.name, "resizing")
    refuse_if_used(disk.path)
    if layout.save_file(record.name).exists():
        raise InUseError(
            f"{record.name} is saved: its memory knows the disk as it is",
            hint=f"doit restore name={record.name} and shut it down",
        )
    plan = Resizing(record, disk, disk_size(disk) // MIB, size_mib)
    _refuse_full(plan)
    if record.fs in _EXT and not plan.grows:
        _refuse_below_content(plan)
    return plan, [note] if note else []


def disk_size(disk: InstalledDisk) -> int:
    """Bytes that the guest sees of a raw disk."""
    with open(disk.path, "rb") as stream:
        return stream.seek(0, os.SEEK_END)


def _refuse_full(plan: Resizing) -> None:
    if plan.disk.kind != "file" or not plan.grows:
        return
    # a sparse file may promise what the disk has not; a guest that fills it would stop
    state = os.statvfs(plan.disk.path.parent)
    free_mib = state.f_bavail * state.f_frsize // MIB
    if plan.after_mib - plan.before_mib > free_mib:
        raise EnvironmentFault(
            f"{plan.disk.path.parent}: {plan.after_mib - plan.before_mib} MiB more were asked for, "
            f"{free_mib} MiB are free",
            hint="ask for less, or make room",
        )


def resize(layout: Layout, plan: Resizing) -> None:
    """Carry it out; on an error or a kill file system and disk are as they were."""
    if plan.after_mib == plan.before_mib:
        return
    record, disk = note_written(plan.record), plan.disk
    check_file_system(disk.path, record.fs)
    with Transaction(layout, record.name, "resize") as change:
        if record.fs in _EXT and disk.kind == "block" and not plan.grows:
            change.commit(shrink_volume(change, record, disk, plan.after_mib))
            return
        if record.fs in _EXT and not (plan.grows and _grew_mounted(change, plan)):
            steps = _resize_copy(change, plan)
        elif record.fs in _EXT:
            steps = []
        else:
            steps = _resize_other(change, plan)
        change.commit([*steps, *configuration.prepare_record(change, record)])


def _grew_mounted(change: Transaction, plan: Resizing) -> bool:
    """Grow a mounted ext3 or ext4; False where this kernel or this user may not."""
    if plan.record.fs == "ext2":
        return False
    change.will_make(_size_step(plan.disk, plan.before_mib))
    set_disk_size(plan.disk, plan.after_mib * MIB)
    try:
        _run_mounted(change, plan, "resize2fs", device='$(findmnt -no SOURCE "$2")')
    except CommandFailed as error:
        if "Permission denied" in error.details or "mount" in error.details:
            _set_size(plan.disk.path, plan.before_mib * MIB)
            return False
        raise
    read_ext(plan.disk.path, "e2fsck", "-f", "-n")
    return True


def _run_mounted(change: Transaction, plan: Resizing, words: str, *, device: str) -> None:
    options = mount_options(plan.record, plan.disk)
    script = f'mount -t {plan.record.fs} -o {options} "$1" "$2"\n{words} {device}\numount "$2"'
    with work_folder(change.layout, plan.record.name) as work:
        process.run(isolated(["sh", "-euc", script, "sh", plan.disk.path, work]))


def _resize_copy(change: Transaction, plan: Resizing) -> list[Step]:
    """An ext file system, resized in a copy of its file."""
    disk = plan.disk
    if disk.kind != "file":
        raise UsageError(
            f"{disk.target} is a volume, and this kernel or user may not mount it to grow",
            hint="start as root",
        )
    _refuse_no_room_aside(disk.path)
    aside = disk.path.with_name(f".{disk.path.name}.resized")
    change.will_make(remove(aside))
    copy_disk(disk.path, aside)
    write_ext(aside, "e2fsck", "-f", "-p", accept=(0, 1))
    if plan.grows:
        _set_size(aside, plan.after_mib * MIB)
    write_ext(aside, "resize2fs", more=f"{plan.after_mib}M")
    _set_size(aside, plan.after_mib * MIB)
    read_ext(aside, "e2fsck", "-f", "-n")
    return [rename(aside, disk.path)]


def _refuse_no_room_aside(path: Path) -> None:
    state = os.statvfs(path.parent)
    free, need = state.f_bavail * state.f_frsize, path.stat().st_blocks * 512
    if free < need:
        raise EnvironmentFault(
            f"{path.parent}: resizing works on a copy, {need >> 20} MiB, and {free >> 20} are free",
            hint="make room for as long as it takes",
        )


def _refuse_below_content(plan: Resizing) -> None:
    text = read_ext(plan.disk.path, "resize2fs", "-P")
    found = re.search(r"minimum size of the filesystem: (\d+)", text)
    block = re.search(
        r"^Block size:\s+(\d+)", read_ext(plan.disk.path, "dumpe2fs", "-h"), re.MULTILINE
    )
    if not found or not block:
        raise CommandFailed(["resize2fs", "-P"], status=0, output=text)
    need_mib = -(-int(found[1]) * int(block[1]) // MIB)
    if plan.after_mib < need_mib:
        raise UsageError(
            f"size={plan.after_mib}M: the guest's files need {need_mib} MiB",
            hint=f"size={need_mib}M or more; or remove files in the guest first",
        )


def _resize_other(change: Transaction, plan: Resizing) -> list[Step]:
    """xfs grows, btrfs both, mounted, by their own journals."""
    fs, disk = plan.record.fs, plan.disk
    if fs == "xfs" and not plan.grows:
        raise UsageError("an xfs file system cannot be made smaller", hint="rebuild with size=")
    if plan.grows:
        # what a kill leaves is a longer disk than its file system, which the next resize uses
        set_disk_size(disk, plan.after_mib * MIB)
    words = "xfs_growfs -d" if fs == "xfs" else f"btrfs filesystem resize {plan.after_mib}M"
    _run_mounted(change, plan, words, device='"$2"')
    return [] if plan.grows else [_size_step(disk, plan.after_mib)]


def set_disk_size(disk: InstalledDisk, size_bytes: int) -> None:
    """The file or the volume itself; of a file that is cut, the rest is lost."""
    if disk.kind == "block":
        staged_volume.set_size(disk.path, size_bytes)
    else:
        _set_size(disk.path, size_bytes)


def _size_step(disk: InstalledDisk, size_mib: int) -> Step:
    return {"kind": "set-size", "path": disk.target, "size": str(size_mib * MIB)}


def _set_size(path: Path, size_bytes: int) -> None:
    if not path.is_file():
        return
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, size_bytes)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def perform_size(_layout: Layout, step: Step) -> None:
    """A journal's step: the size that a disk is to have, never less than its ext file system's."""
    path, size = Path(step["path"]), int(step["size"])
    _set_size(path, max(size, _ext_size(path)))


def _ext_size(path: Path) -> int:
    """Bytes that an ext file system in this file says it has; 0 where there is none."""
    if not path.is_file():
        return 0
    with open(path, "rb") as stream:
        block = stream.read(2048)[1024:]
    if len(block) < 1024 or block[56:58] != b"\x53\xef":
        return 0
    return int.from_bytes(block[4:8], "little") * (1024 << int.from_bytes(block[24:28], "little"))
