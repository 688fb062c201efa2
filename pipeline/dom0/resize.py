"""Larger or smaller disks of a guest that is shut down, with its file system, checked both times.

A file system with a journal grows mounted, where nobody else sees it: the kernel's journal makes
that safe against a kill. Everything else is done to a copy that takes the disk's place by a rename.
(resize2fs -z, its undo file, is no help: 1.47.0 damages file systems of 1 KiB blocks with it, and
what a killed one leaves is called incomplete by e2undo.)
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import process
from pipeline.artifact.sums import copy_disk
from pipeline.dom0 import configuration
from pipeline.dom0.guest_root import (
    check_file_system,
    mount_options,
    read_ext,
    root_disk,
    site_of,
    write_ext,
)
from pipeline.dom0.inventory import Installed, InstalledDisk, note_written, require_disk
from pipeline.dom0.layout import Layout
from pipeline.dom0.other_host import refuse_running
from pipeline.dom0.toolstack import Toolstack
from pipeline.errors import CommandFailed, InUseError, UsageError, WrongValueError
from pipeline.namespace import isolated
from pipeline.process import require_tools
from pipeline.spec.values import parse_size
from pipeline.storage import lvm
from pipeline.storage.block_device import copy_device
from pipeline.storage.disks import MIB, volume_path
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.refusals import require_folder_room, require_group_room
from pipeline.storage.root_place import TAIL, Place, copy_extents, find_root, fit_table
from pipeline.storage.staged_volume import create_noted
from pipeline.storage.steps import (
    Step,
    perform,
    remove,
    remove_volume,
    rename,
    rename_volume,
    set_file_size,
    set_size,
    set_whole_size,
)
from pipeline.storage.transaction import Transaction, work_folder
from pipeline.walls.privacy import make_private

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
    """A change of the size of a guest's root file system, both in MiB; `disk` is what it is on,
    `place` where on it."""

    record: Installed
    disk: InstalledDisk
    place: Place
    before_mib: int
    after_mib: int

    @property
    def grows(self) -> bool:
        return self.after_mib > self.before_mib

    @property
    def new_place(self) -> Place:
        """Where the file system is when the disk has its new size."""
        return replace(self.place, size=self.after_mib * MIB) if self.place.offset else self.place

    @property
    def disk_bytes(self) -> int:
        """What the disk has to have then."""
        return self.place.offset + self.after_mib * MIB + (TAIL if self.place.offset else 0)

    def size_step(self, size_mib: int) -> Step:
        """The journal's step for a size of the file system."""
        if not self.place.offset:
            return set_size(self.disk.path, size_mib * MIB)
        size_bytes = self.place.offset + size_mib * MIB + TAIL
        return set_whole_size(self.disk.path, size_bytes=size_bytes, root_bytes=size_mib * MIB)


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
    note = refuse_running(layout, toolstack, record.name, "resizing")
    refuse_if_used(disk.path)
    if layout.save_file(record.name).exists():
        raise InUseError(
            f"{record.name} is saved: its memory knows the disk as it is",
            hint=f"doit restore name={record.name} and shut it down",
        )
    place = find_root(disk.path, is_whole=disk.is_whole)
    plan = Resizing(record, disk, place, root_bytes(place) // MIB, size_mib)
    _refuse_full(plan)
    if record.fs in _EXT and not plan.grows:
        _refuse_below_content(plan)
    return plan, [note] if note else []


def root_bytes(place: Place) -> int:
    """Bytes that the root file system of a raw disk has room in."""
    with open(place.disk, "rb") as stream:
        return place.size or stream.seek(0, os.SEEK_END)


def _refuse_full(plan: Resizing) -> None:
    if plan.disk.kind == "file" and plan.grows:
        more = (plan.after_mib - plan.before_mib) * MIB
        require_folder_room(plan.disk.path.parent, more, what=" for what it grows by")


def resize(layout: Layout, plan: Resizing) -> None:
    """Carry it out; on an error or a kill file system and disk are as they were."""
    if plan.after_mib == plan.before_mib:
        return
    record, disk = note_written(plan.record), plan.disk
    check_file_system(plan.place, record.fs)
    with Transaction(site_of(layout), record.name, "resize") as change:
        if record.fs in _EXT and disk.kind == "block" and not plan.grows:
            change.commit(_shrink_volume(change, layout, record, plan))
            return
        if record.fs in _EXT and not (plan.grows and _grew_mounted(change, layout, plan)):
            steps = _resize_copy(change, plan)
        elif record.fs in _EXT:
            steps = []
        else:
            steps = _resize_other(layout, plan)
        change.commit([*steps, *configuration.prepare_record(change, layout, record, steps)])


def _grew_mounted(change: Transaction, layout: Layout, plan: Resizing) -> bool:
    """Grow a mounted ext3 or ext4; False where this kernel or this user may not."""
    if plan.record.fs == "ext2":
        return False
    undo = plan.size_step(plan.before_mib)
    change.will_make(undo)
    _grow_disk(plan)
    try:
        _run_mounted(layout, plan, "resize2fs", device='$(findmnt -no SOURCE "$2")')
    except CommandFailed as error:
        if "Permission denied" in error.details or "mount" in error.details:
            perform(site_of(layout), plan.record.name, [undo])
            return False
        raise
    read_ext(plan.new_place, "e2fsck", "-f", "-n")
    return True


def _grow_disk(plan: Resizing) -> None:
    """The disk, and on a whole one the partition; a kill leaves more room than the file system
    takes, which the next resize uses."""
    _set_disk_size(plan.disk, plan.disk_bytes)
    if plan.place.offset:
        _fit(plan, plan.disk.path)


def _fit(plan: Resizing, disk: Path) -> None:
    with open(disk, "rb") as stream:
        size = stream.seek(0, os.SEEK_END)
    fit_table(disk, disk_bytes=size, root_bytes=plan.after_mib * MIB)


def _run_mounted(layout: Layout, plan: Resizing, words: str, *, device: str) -> None:
    options = mount_options(plan.record, plan.new_place if plan.grows else plan.place)
    script = f'mount -t {plan.record.fs} -o {options} "$1" "$2"\n{words} {device}\numount "$2"'
    with work_folder(site_of(layout).work_of(plan.record.name)) as work:
        process.run(isolated(["sh", "-euc", script, "sh", plan.disk.path, work]))


def _resize_copy(change: Transaction, plan: Resizing) -> list[Step]:
    """An ext file system, resized in a copy of its file."""
    disk = plan.disk
    if disk.kind != "file":
        raise UsageError(
            f"{disk.target} is a volume, and this kernel or user may not mount it to grow",
            hint="start as root",
        )
    copy_bytes = disk.path.stat().st_blocks * 512
    require_folder_room(disk.path.parent, copy_bytes, what=" for a copy, which is resized")
    aside = disk.path.with_name(f".{disk.path.name}.resized")
    change.will_make(remove(aside))
    if not plan.place.offset:
        copy_disk(disk.path, aside)
        _resize_file(plan, aside)
        return [rename(aside, disk.path)]
    # resize2fs cuts a file to the file system's size, whatever lies before it: it gets its own
    part = aside.with_name(f"{aside.name}.root")
    change.will_make(remove(part))
    copy_extents(disk.path, make_private(part), start=plan.place.offset, size=plan.place.size)
    _resize_file(plan, part)
    copy_extents(disk.path, make_private(aside), start=0, size=plan.place.offset)
    size = plan.after_mib * MIB
    copy_extents(part, aside, start=0, size=size, at=plan.place.offset)
    set_file_size(aside, plan.disk_bytes)
    _fit(plan, aside)
    part.unlink()
    return [rename(aside, disk.path)]


def _resize_file(plan: Resizing, file: Path) -> None:
    """A file that is an ext file system."""
    place = Place(disk=file)
    write_ext(place, "e2fsck", "-f", "-p", accept=(0, 1))
    if plan.grows:
        set_file_size(file, plan.after_mib * MIB)
    write_ext(place, "resize2fs", more=f"{plan.after_mib}M")
    set_file_size(file, plan.after_mib * MIB)
    read_ext(place, "e2fsck", "-f", "-n")


def _refuse_below_content(plan: Resizing) -> None:
    text = read_ext(plan.place, "resize2fs", "-P")
    found = re.search(r"minimum size of the filesystem: (\d+)", text)
    block = re.search(r"^Block size:\s+(\d+)", read_ext(plan.place, "dumpe2fs", "-h"), re.MULTILINE)
    if not found or not block:
        raise CommandFailed(["resize2fs", "-P"], status=0, output=text)
    need_mib = -(-int(found[1]) * int(block[1]) // MIB)
    if plan.after_mib < need_mib:
        raise UsageError(
            f"size={plan.after_mib}M: the guest's files need {need_mib} MiB",
            hint=f"size={need_mib}M or more; or remove files in the guest first",
        )


def _resize_other(layout: Layout, plan: Resizing) -> list[Step]:
    """xfs grows, btrfs both, mounted, by their own journals."""
    fs = plan.record.fs
    if fs == "xfs" and not plan.grows:
        raise UsageError("an xfs file system cannot be made smaller", hint="rebuild with size=")
    if plan.grows:
        _grow_disk(plan)
    words = "xfs_growfs -d" if fs == "xfs" else f"btrfs filesystem resize {plan.after_mib}M"
    _run_mounted(layout, plan, words, device='"$2"')
    return [] if plan.grows else [plan.size_step(plan.after_mib)]


def _set_disk_size(disk: InstalledDisk, size_bytes: int) -> None:
    """The file or the volume itself; of a file that is cut, the rest is lost."""
    if disk.kind != "block":
        set_file_size(disk.path, size_bytes)
        return
    volume = lvm.require_volume(process.run, disk.path)
    group = lvm.read_group(process.run, volume.group)
    more = group.extents(size_bytes) - group.extents(volume.size)
    if not volume.is_thin:
        require_group_room(process.run, group.name, [more * group.extent], what="it grows by")
    if more > 0:
        lvm.extend_volume(process.run, volume, size_bytes)


def _shrink_volume(
    change: Transaction, layout: Layout, record: Installed, plan: Resizing
) -> list[Step]:
    """Prepare it, in whole extents; returns the steps of the commit, the record's among them.

    Raises EnvironmentFault where the group has no room for a copy, VerificationError where the
    configuration does not name the volume in a way that can be replaced.
    """
    disk = plan.disk
    volume = lvm.require_volume(process.run, disk.path)
    group = lvm.read_group(process.run, volume.group)
    if not volume.is_thin:
        need = "it is made smaller in a copy, which takes"
        require_group_room(process.run, group.name, [volume.size], what=need)
    generation = record.generation + 1
    target = volume_path(group.name, record.name, "disk.img", generation)

    def moved(text: str) -> str:
        return re.sub(rf"{re.escape(disk.target)}(?![\w.+-])", lambda _: str(target), text)

    text = configuration.changed_text(
        layout,
        record,
        moved,
        targets={disk.vdev: str(target)},
        hint=f"write it as target={disk.target} in its disk= line",
    )
    copy = create_noted(change, target, volume.size, pool=volume.pool)
    copy_device(disk.path, copy.path, is_zeroed=volume.is_thin)
    place = replace(plan.place, disk=copy.path)
    write_ext(place, "e2fsck", "-f", "-p", accept=(0, 1))
    write_ext(place, "resize2fs", more=f"{plan.after_mib}M")
    size = group.extents(plan.disk_bytes) * group.extent
    if place.offset:
        fit_table(copy.path, disk_bytes=size, root_bytes=plan.after_mib * MIB)
    lvm.reduce_volume(process.run, copy, size)
    read_ext(place, "e2fsck", "-f", "-n")
    noted = replace(record.with_config(text, moved(record.rendered)), generation=generation)
    named = [rename_volume(group.name, copy.name, target.name)]
    moved_record = _with_target(noted, disk, target)
    steps = configuration.prepare_texts(change, layout, moved_record, named)
    return [*named, *steps, remove_volume(disk.path)]


def _with_target(record: Installed, disk: InstalledDisk, target: object) -> Installed:
    """The record with the disk at its new place, also where an undo would go back to it."""

    def moved(disks: tuple[InstalledDisk, ...]) -> tuple[InstalledDisk, ...]:
        return tuple(
            replace(old, target=str(target)) if old.target == disk.target else old for old in disks
        )

    before = record.previous
    if before is not None:
        before = replace(before, disks=moved(before.disks))
    return replace(record, disks=moved(record.disks), previous=before)
