"""A new root disk for an installed guest, from today's golden image; its data disks stay.

The old root disk is kept until `purge=yes` or the next rebuild, for `undo=yes`.
"""

import time
from dataclasses import replace
from pathlib import Path

from pipeline.artifact.folder import Source
from pipeline.dom0 import configuration, install, kernels
from pipeline.dom0.guest_root import root_disk, site_of
from pipeline.dom0.inventory import FOUND, Installed, find_fault, note_written, require_installed
from pipeline.dom0.layout import Layout
from pipeline.dom0.other_host import refuse_running
from pipeline.dom0.resize import plan_resize, resize, root_bytes
from pipeline.dom0.toolstack import Toolstack
from pipeline.errors import UsageError
from pipeline.storage.disks import MIB
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.root_place import find_root
from pipeline.storage.steps import remove
from pipeline.storage.transaction import Transaction

WORD = "rebuild"
_DATA = ("data", "shared")


def plan_rebuild(source: Source, layout: Layout, record: Installed, *, proof: str) -> install.Plan:
    """The installation of a new artifact over the old guest, keeping every disk with data."""
    _refuse_losing_partitions(source, record)
    kept = frozenset(disk.vdev for disk in record.disks if disk.role in _DATA)
    plan = install.plan_install(
        source,
        layout,
        before=_as_it_stands(layout, record),
        autostart=record.is_autostarted,
        toolstack=record.toolstack,
        proof=proof,
        kept_vdevs=kept,
        group=_group_of(record),
    )
    missing = kept - {planned.disk.vdev for planned in plan.disks}
    if missing:
        raise UsageError(
            f"{record.name}: its spec has no disk {', '.join(sorted(missing))} any more, which "
            "holds data",
            hint="add it to the spec again",
        )
    return install.with_previous(plan)


def _refuse_losing_partitions(source: Source, record: Installed) -> None:
    """What lies on a whole disk cannot stay when that is exchanged."""
    points = [part.get("mountpoint", "") for part in source.spec.get("partitions") or []]
    lost = [str(point) for point in points if point not in ("", "/")]
    if lost and root_disk(record).is_whole:
        raise UsageError(
            f"{record.name}: {', '.join(lost)} lies on the whole disk, which a rebuild exchanges",
            hint="save what is in it, then doit install replace=yes",
        )


def _as_it_stands(layout: Layout, record: Installed) -> Installed:
    """What an undo goes back to: with the edits of its configuration, its disks marked."""
    text = configuration.current_text(layout, record)
    return note_written(record).with_config(text, record.rendered)


def _group_of(record: Installed) -> str:
    """The volume group that its root disk is in, "" for a file."""
    disk = root_disk(record)
    return disk.path.parent.name if disk.kind == "block" and disk.is_owned else ""


def rebuild(plan: install.Plan, layout: Layout, *, log: Path) -> Installed:
    """Carry it out; what an earlier rebuild kept for its undo goes."""
    return install.install(plan, layout, word=WORD, log=log)


def size_to_keep(record: Installed) -> int:
    """MiB of the root file system's disk or partition now; 0 where the disk is not a raw one."""
    disk = root_disk(record)
    if disk.format != "raw" or find_fault(disk):
        return 0
    return root_bytes(find_root(disk.path, is_whole=disk.is_whole)) // MIB


def grow_to(layout: Layout, record: Installed, size_mib: int, toolstack: Toolstack | None) -> bool:
    """Give a new root disk the size that the old one was given by resize; whether it had to be."""
    if root_disk(record).format != "raw" or size_to_keep(record) >= size_mib:
        return False
    plan, _ = plan_resize(layout, record, f"{size_mib}M", toolstack)
    resize(layout, plan)
    return True


def undo_rebuild(
    layout: Layout, name: str, toolstack: Toolstack | None, *, word: str = WORD
) -> Installed:
    """The guest as it was before the change `word`; what it wrote to its new disks since is lost.

    One that was not installed by doit before is not installed any more, and as it was found.
    """
    record = require_installed(layout, name)
    previous = record.previous
    if previous is None or record.word != word:
        raise UsageError(
            f"{name}: its last change was no {word} that can be undone",
            hint="doit list-guests says what can be",
        )
    refuse_running(layout, toolstack, name, f"undoing its {word}")
    for disk in record.disks:
        if disk.role != "shared":
            refuse_if_used(disk.path)
    with Transaction(site_of(layout), name, word) as change:
        # the generation goes on counting: a folder's name never means two things
        back = replace(
            previous, generation=record.generation, changed_at=int(time.time()), previous=None
        )
        kept = frozenset(disk.target for disk in back.disks)
        doomed = install.removal_of(record.without_previous(), layout, kept=kept)
        if previous.word == FOUND:
            steps = [
                *configuration.prepare_config(change, layout, back),
                remove(layout.record(name)),
            ]
        else:
            steps = configuration.prepare_texts(change, layout, back)
        change.commit([*steps, *doomed])
    kernels.purge_kernels(layout)
    return previous


def forget_previous(layout: Layout, name: str) -> list[str]:
    """Give up the undo: the old disks that are ours go; returns what went."""
    record = require_installed(layout, name)
    if record.previous is None:
        return []
    kept = frozenset(disk.target for disk in record.disks)
    doomed = install.removal_of(record.previous, layout, kept=kept)
    with Transaction(site_of(layout), name, WORD) as change:
        kept_record = note_written(record.without_previous())
        steps = configuration.prepare_record(change, layout, kept_record)
        change.commit([*steps, *doomed])
    kernels.purge_kernels(layout)
    return [step["path"] for step in doomed if step["kind"] in ("remove", "lv-remove")]
