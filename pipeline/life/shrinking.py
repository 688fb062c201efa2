"""A volume made smaller: its file system is, in a copy under another name, and then takes over.

An ext file system that shrinks moves its blocks about, and no undo file survives every kill; so the
guest's own volume is never touched. The configuration names the copy from one rename on, and the
volume of before goes last.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import replace

from pipeline import command
from pipeline.errors import EnvironmentFault, VerificationError
from pipeline.host import lvm
from pipeline.host.lvm_report import Group
from pipeline.life import logical, placing
from pipeline.life.config_file import Grammar, require_readable
from pipeline.life.guest_root import read_ext, write_ext
from pipeline.life.journal import Transaction
from pipeline.life.layout import Layout
from pipeline.life.records import Installed, InstalledDisk
from pipeline.life.steps import Step
from pipeline.volumes.writing import copy_device

MIB = 1 << 20


def shrink_volume(
    change: Transaction, record: Installed, disk: InstalledDisk, size_mib: int
) -> list[Step]:
    """Prepare it, in whole extents; returns the steps of the commit, the record's among them.

    Raises EnvironmentFault where the group has no room for a copy, VerificationError where the
    configuration does not name the volume in a way that can be replaced.
    """
    group = disk.path.parent.name
    volume = lvm.find_volume(command.run, group, disk.path.name)
    if volume is None:
        raise EnvironmentFault(f"{disk.target} is no logical volume", hint="lvs lists them")
    extents = lvm.read_group(command.run, group)
    if not volume.is_thin:
        _refuse_no_room(extents, volume.size)
    generation = record.generation + 1
    target = logical.volume_path(group, record.name, "disk.img", generation)
    text = moved_text(change.layout, record, disk.vdev, str(target))
    staged = f"{target.name}.new-{uuid.uuid4().hex[:8]}"
    change.will_make({"kind": "lv-remove", "group": group, "path": staged})
    copy = lvm.create_volume(
        command.run,
        group,
        staged,
        size_bytes=volume.size,
        pool=volume.pool,
        tags=[f"{logical.TAG}{record.name}"],
    )
    copy_device(disk.path, copy.path, is_zeroed=volume.is_thin)
    write_ext(copy.path, "e2fsck", "-f", "-p", accept=(0, 1))
    write_ext(copy.path, "resize2fs", more=f"{size_mib}M")
    whole = extents.extents(size_mib * MIB) * extents.extent
    copy = lvm.reduce_volume(command.run, copy, whole)
    read_ext(copy.path, "e2fsck", "-f", "-n")
    rendered = _with_path(record.rendered, disk.target, str(target))
    noted = replace(record.with_config(text, rendered), generation=generation)
    moved = _with_target(noted, disk, target)
    return [
        {"kind": "lv-rename", "group": group, "source": staged, "path": target.name},
        *placing.prepare_texts(change, moved),
        logical.removal_step(disk.path),
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
    path, text = layout.config(record.name), placing.current_text(layout, record)
    old = next(disk.target for disk in record.disks if disk.vdev == vdev)
    new, grammar = _with_path(text, old, target), Grammar(record.toolstack)
    was, now = (require_readable(grammar, path, one) for one in (text, new))
    is_named = any(disk.target == old for disk in was.disks)
    if not is_named or now != placing.moved_domain(was, {vdev: target}, None):
        raise VerificationError(
            f"{path} does not name {old} so that it can be replaced",
            hint=f"write it as target={old} in its disk= line",
        )
    return new


def _with_path(text: str, old: str, new: str) -> str:
    return re.sub(rf"{re.escape(old)}(?![\w.+-])", lambda _: new, text)
