"""Taking a guest off its host: everything that was installed for it, and nothing else."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.dom0 import configuration, kernels
from pipeline.dom0.configuration import is_edited
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.install import removal_of
from pipeline.dom0.inventory import FOUND, Installed, find_written
from pipeline.dom0.layout import Layout
from pipeline.dom0.other_host import refuse_running
from pipeline.dom0.restriction import drop_user
from pipeline.dom0.toolstack import Toolstack
from pipeline.errors import InUseError
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.steps import Step, remove, rename
from pipeline.storage.transaction import JointChange


def find_losses(record: Installed, layout: Layout) -> list[str]:
    """What would be lost for good: disks that the guest has written to, edits, a saved memory."""
    losses = [f"{disk.target}: its guest has written to it" for disk in find_written(record)]
    if record.previous is not None:
        older = {disk.target for disk in record.previous.disks if disk.is_owned}
        older -= {disk.target for disk in record.disks}
        losses += [f"{target}: kept for an undo" for target in sorted(older)]
        if record.previous.word == FOUND:
            losses.append("the configuration that it had before: kept for an undo")
    if layout.config(record.name).exists() and is_edited(layout, record):
        losses.append(f"{layout.config(record.name)}: it was edited")
    if layout.save_file(record.name).exists():
        losses.append(f"{layout.save_file(record.name)}: its saved memory is of no use then")
    return losses


def refuse_removal(
    record: Installed, layout: Layout, toolstack: Toolstack | None, *, may_lose: bool
) -> list[str]:
    """Raises InUseError for a running guest, open disks, and losses that were not agreed to."""
    notes = [refuse_running(layout, toolstack, record.name, "removing")]
    for disk in record.disks:
        refuse_if_used(disk.path)
    losses = find_losses(record, layout)
    if losses and not may_lose:
        raise InUseError(
            f"removing {record.name} would lose what cannot be made again",
            details="\n".join(losses),
            hint=f"the same line with yes=yes: doit remove name={record.name} yes=yes",
        )
    return [note for note in notes if note]


def remove_guests(records: Sequence[Installed], layout: Layout) -> list[str]:
    """Remove what the records name, of all of these guests or of none; returns the paths.

    Kernels that nobody boots any more are among them. The configurations go first: from then on no
    guest of that name is defined.
    """
    gone: list[str] = []
    names = [record.name for record in records]
    with JointChange(site_of(layout), names, "remove") as changes:
        finish = {record.name: _plan_removal(record, layout, gone) for record in records}
        changes.commit(finish)
    gone += [f"kernel {kernel}" for kernel in kernels.purge_kernels(layout)]
    return gone


def _plan_removal(record: Installed, layout: Layout, gone: list[str]) -> list[Step]:
    name = record.name
    config, link = layout.config(name), layout.auto_link(name)
    gone.append(str(config))
    grave = config.with_name(f".{config.name}.domu-gone")
    steps = [rename(config, grave), remove(grave)]
    if configuration.is_our_link(layout, name):
        steps.append(remove(link))
        gone.append(str(link))
    gone += [disk.target for disk in record.disks if disk.is_owned]
    steps += removal_of(record, layout)
    return [*steps, remove(layout.save_file(name)), drop_user(name), remove(layout.record(name))]


def left_disks(record: Installed) -> list[Path]:
    """Disks of the configuration that were not ours and stay."""
    before = record.previous.disks if record.previous is not None else ()
    paths = [disk.path for disk in (*record.disks, *before) if not disk.is_owned]
    return [path for path in dict.fromkeys(paths) if path.exists()]
