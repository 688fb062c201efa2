"""A new kernel for an installed guest: kernel, ramdisk, modules and configuration together.

The modules go into the guest's file system, so the guest must be shut down. A guest that runs gets
its new kernel noted (`pending`), and `doit start` finishes the refresh before it creates the
domain; until then every start, by whatever means, boots the old kernel with its own modules.
"""

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.artifact.folder import rendered_for
from pipeline.artifact.kernel_folder import (
    KERNEL,
    MODULES,
    RAMDISK,
    KernelFolder,
    read_kernel_folder,
)
from pipeline.dom0 import configuration, kernels, restriction
from pipeline.dom0.configuration import Grammar, require_readable
from pipeline.dom0.guest_root import change_modules, modules_step, root_disk, site_of
from pipeline.dom0.inventory import Installed, note_written, require_disk, require_installed
from pipeline.dom0.layout import Layout
from pipeline.dom0.toolstack import Toolstack
from pipeline.errors import InUseError, UsageError, VerificationError
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.refusals import require_folder_room
from pipeline.storage.steps import Step
from pipeline.storage.transaction import Transaction

WORD = "refresh"
_SPARE_BYTES = 8 << 20


@dataclass(frozen=True)
class Outcome:
    """What a refresh did: `state` is refreshed, pending, current, undone, inside or restricted."""

    guest: str
    state: str
    before: str
    after: str


def refresh(
    layout: Layout, name: str, kernel: KernelFolder, toolstack: Toolstack | None
) -> Outcome:
    """Give one guest this kernel, or note it where the guest runs."""
    record = require_installed(layout, name)
    if record.is_kernel_inside:
        return restrict_pygrub(layout, name)
    target = layout.kernels / kernel.identity
    if record.kernel == str(target):
        if record.pending:
            _note_pending(layout, record, "")
        return Outcome(name, "current", record.abi, record.abi)
    if not kernel.modules.is_file():
        raise UsageError(
            f"{kernel.folder} has no {MODULES}",
            hint="name a folder of output/store/kernel/: an artifact holds no modules",
        )
    with kernels.placing_kernels(layout):
        busy = is_busy(record, toolstack)
        placed = kernels.place_kernel(layout, kernel, with_modules=busy)
        state = "pending" if busy else "refreshed"
        if busy:
            _note_pending(layout, record, str(placed))
        else:
            _switch(layout, record, kernel, placed)
    return Outcome(name, state, record.abi, kernel.abi)


def restrict_pygrub(layout: Layout, name: str) -> Outcome:
    """A guest whose kernel is inside: its pygrub no longer runs as root, from its next start on.

    Edits of the administrator's stay; VerificationError where they name another boot loader.
    """
    record = require_installed(layout, name)
    grammar, path = Grammar(record.toolstack), layout.config(name)
    text = configuration.current_text(layout, record)
    xen = rendered_for(record.rendered)
    is_xl = record.toolstack == "xl" and bool(xen)
    now = require_readable(grammar, path, text)
    wanted = restriction.restricted(now, layout, xen=xen) if is_xl else now
    if wanted == now and not (is_xl and restriction.is_incomplete(now, layout)):
        return Outcome(name, "inside", "", "")
    own = restriction.restricted(grammar.domain(record.rendered), layout, xen=xen)
    rendered = configuration.render(own, toolstack="xl", xen=xen)
    merged = configuration.merge(
        path, grammar, last=record.rendered, now=text, new=rendered, moves={}
    )
    if require_readable(grammar, path, merged.text) != wanted:
        raise VerificationError(
            f"{path} names a boot loader or arguments of its own: pygrub stays root",
            hint=f"take bootloader= and bootloader_args= out of it, then doit refresh name={name}",
        )
    placing = restriction.placing_program(layout, wanted)
    with placing, Transaction(site_of(layout), name, WORD) as change:
        restriction.prepare(change, layout, wanted)
        noted = note_written(record).with_config(merged.text, rendered)
        change.commit(configuration.prepare_texts(change, layout, noted))
    return Outcome(name, "restricted", "", "")


def finish_pending(layout: Layout, name: str, toolstack: Toolstack | None) -> Outcome | None:
    """The refresh that was noted while the guest ran, None for none."""
    record = require_installed(layout, name)
    if not record.pending:
        return None
    return refresh(layout, name, read_kernel_folder(Path(record.pending)), toolstack)


def undo_refresh(layout: Layout, name: str, toolstack: Toolstack | None) -> Outcome:
    """Back to the kernel before; raises UsageError where there is nothing to undo."""
    record = require_installed(layout, name)
    if record.pending:
        abi = read_kernel_folder(Path(record.pending)).abi
        _note_pending(layout, record, "")
        kernels.purge_kernels(layout)
        return Outcome(name, "undone", abi, record.abi)
    previous = record.previous
    if previous is None or record.word != WORD:
        raise UsageError(
            f"{name}: its last change was no refresh that can be undone",
            hint="doit list-guests says what can be",
        )
    busy = is_busy(record, toolstack)
    is_same_abi = previous.abi == record.abi
    if busy and is_same_abi:
        raise InUseError(
            f"{name} is running, and both kernels are {record.abi}: their modules are at one place",
            hint=f"doit shutdown name={name}",
        )
    with Transaction(site_of(layout), name, WORD) as change:
        text = edited_text(layout, record, Path(previous.kernel))
        stale = () if is_same_abi else (*record.stale_modules, record.abi)
        back = replace(
            record.with_config(text, _with_kernel(record.rendered, Path(previous.kernel))),
            kernel=previous.kernel,
            abi=previous.abi,
            changed_at=int(time.time()),
            origin=previous.origin,
            stale_modules=stale,
            previous=None,
        )
        steps = _finish(change, layout, note_written(back), is_busy=busy)
        if is_same_abi:
            steps.append(modules_step(record, "back", record.abi))
        change.commit(steps)
    kernels.purge_kernels(layout)
    return Outcome(name, "undone", record.abi, previous.abi)


def forget_previous(layout: Layout, name: str, toolstack: Toolstack | None) -> Outcome:
    """Give up the undo: the kernel before and its modules go."""
    record = require_installed(layout, name)
    previous = record.previous
    if previous is None or record.word != WORD:
        return Outcome(name, "current", record.abi, record.abi)
    stale = f"{record.abi}-previous" if previous.abi == record.abi else previous.abi
    with Transaction(site_of(layout), name, WORD) as change:
        kept = replace(record, previous=None, stale_modules=(*record.stale_modules, stale))
        is_used = is_busy(record, toolstack)
        change.commit(_finish(change, layout, note_written(kept), is_busy=is_used))
    kernels.purge_kernels(layout)
    return Outcome(name, "purged", previous.abi, record.abi)


def is_busy(record: Installed, toolstack: Toolstack | None) -> bool:
    """Whether the guest's file system must not be touched now."""
    if toolstack is not None and record.name in toolstack.domains():
        return True
    try:
        refuse_if_used(root_disk(record).path)
    except InUseError:
        return True
    return False


def _switch(layout: Layout, before: Installed, kernel: KernelFolder, placed: Path) -> None:
    saved = layout.save_file(before.name)
    if saved.exists():
        raise InUseError(
            f"{before.name} is saved in {saved}: it goes on with the kernel that it had",
            hint=f"doit restore name={before.name}, shut it down, and refresh again",
        )
    _refuse_losing_a_disk(before)
    _refuse_full(before, kernel.modules)
    before = note_written(before)
    is_same_abi = before.abi == kernel.abi
    undo = modules_step(before, "back" if is_same_abi else "drop", kernel.abi)
    with Transaction(site_of(layout), before.name, WORD) as change:
        text = edited_text(layout, before, placed)
        change.will_make(undo)
        change_modules(layout, before, ["put", kernel.abi, kernel.modules])
        # what the step before last left in the guest is of no use to the undo of this one
        abis = {step.abi for step in (before, before.previous) if step} - {before.abi, kernel.abi}
        record = replace(
            before.with_config(text, _with_kernel(before.rendered, placed)),
            word=WORD,
            changed_at=int(time.time()),
            kernel=str(placed),
            abi=kernel.abi,
            origin={**before.origin, "kernel": kernel.fingerprint},
            pending="",
            stale_modules=tuple(sorted({*before.stale_modules, *abis} - {kernel.abi})),
            previous=before.without_previous(),
        )
        change.commit(_finish(change, layout, record, is_busy=False))


def _refuse_losing_a_disk(record: Installed) -> None:
    """One undo is kept: a refresh must not take the place of one that holds the old root disk."""
    kept = {disk.target for disk in record.disks}
    older = record.previous.disks if record.previous else ()
    if any(disk.target not in kept for disk in older):
        raise InUseError(
            f"{record.name}: its {record.word} can still be undone, and a refresh would end that",
            hint=f"doit {record.word} name={record.name} purge=yes (or undo=yes), then again",
        )


def _refuse_full(record: Installed, more: Path) -> None:
    """A sparse disk needs what is written into it: the host's room, not only the guest's."""
    disk = root_disk(record)
    require_disk(disk)
    if disk.kind == "file":
        require_folder_room(disk.path.parent, more.stat().st_size + _SPARE_BYTES)


def _finish(change: Transaction, layout: Layout, record: Installed, *, is_busy: bool) -> list[Step]:
    """The steps of the commit; modules that nobody needs go with it where the guest is down."""
    if is_busy or not record.stale_modules:
        return configuration.prepare_texts(change, layout, record)
    doomed = record.stale_modules
    steps = configuration.prepare_texts(change, layout, replace(record, stale_modules=()))
    return [*steps, modules_step(record, "drop", *doomed)]


def _note_pending(layout: Layout, record: Installed, kernel: str) -> None:
    with Transaction(site_of(layout), record.name, WORD) as change:
        noted = replace(note_written(record), pending=kernel)
        change.commit(configuration.prepare_record(change, layout, noted))


_LINE = r"^([ \t]*{key}[ \t]*=[ \t]*)(\"[^\"\n]*\"|'[^'\n]*')"


def edited_text(layout: Layout, record: Installed, kernel: Path) -> str:
    """The configuration as it is, edits of the administrator's included, with another kernel.

    Raises VerificationError when anything else would change by that.
    """
    return configuration.changed_text(
        layout,
        record,
        lambda text: _with_kernel(text, kernel),
        kernel=kernel,
        hint='write kernel = "PATH" and ramdisk = "PATH", each on a line of its own',
    )


def _with_kernel(text: str, kernel: Path) -> str:
    for key, name in (("kernel", KERNEL), ("ramdisk", RAMDISK)):
        text = _assign(text, key, str(kernel / name))
    return text


def _assign(text: str, key: str, value: str) -> str:
    pattern = re.compile(_LINE.format(key=key), re.MULTILINE)
    return pattern.sub(lambda found: f'{found[1]}"{value}"', text)
