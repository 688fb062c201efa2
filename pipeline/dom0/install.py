"""Installing a guest on its host: disks, kernel, configuration, link, all of them or nothing."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline import process
from pipeline.artifact.folder import Source
from pipeline.artifact.kernel_folder import KERNEL, RAMDISK, read_kernel_folder
from pipeline.artifact.sums import copy_disk, digest_as
from pipeline.console.progress import progress_bar
from pipeline.dom0 import configuration, kernels, restriction
from pipeline.dom0.configuration import Grammar, Merged, merge, require_readable
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.inventory import Installed, InstalledDisk, Membership, find_written
from pipeline.dom0.layout import Layout
from pipeline.dom0.other_host import refuse_running
from pipeline.dom0.toolstack import Toolstack
from pipeline.errors import EnvironmentFault, InUseError, UsageError, VerificationError
from pipeline.preflight import read_xen_caps, refusal_of
from pipeline.spec.domain import FIRMWARE_FILE
from pipeline.storage.block_device import write_image
from pipeline.storage.disks import volume_path
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.refusals import refuse_volumes, require_folder_room
from pipeline.storage.root_place import find_root, fit_table
from pipeline.storage.staged_volume import create_noted
from pipeline.storage.steps import (
    Step,
    remove,
    remove_empty,
    remove_tree,
    remove_volume,
    rename_volume,
)
from pipeline.storage.transaction import JointChange, Transaction
from pipeline.walls.privacy import make_private_folder
from pipeline.xen.boot import Direct, Firmware
from pipeline.xen.capabilities import find_unable
from pipeline.xen.devices import Disk
from pipeline.xen.domain import Domain

NOWHERE: Mapping[str, str] = {}  # of a guest that is from no repository


@dataclass(frozen=True)
class DiskPlan:
    """One disk of the plan: copied from `source` to `target`, or left where it is (source None)."""

    disk: InstalledDisk
    source: Path | None = None
    sum: str = ""


@dataclass(frozen=True)
class Plan:
    """What an installation makes; `before` is the guest that it replaces.

    `delivery` says which repository it is from, and what was used there. `membership` is that in an
    appliance; without one it stays what it was.
    """

    source: Source
    disks: tuple[DiskPlan, ...]
    generation: int
    is_autostarted: bool
    toolstack: str
    proof: str = ""
    before: Installed | None = None
    keeps_previous: bool = False
    delivery: Mapping[str, str] = field(default_factory=dict)
    membership: Membership | None = None

    @property
    def name(self) -> str:
        return self.source.name


def plan_install(
    source: Source,
    layout: Layout,
    *,
    before: Installed | None,
    autostart: bool | None = None,
    toolstack: str = "xl",
    proof: str = "",
    kept_vdevs: frozenset[str] = frozenset(),
    group: str = "",
    with_others: bool = False,
) -> Plan:
    """Where everything goes; pure but for looking whether a disk of the artifact is a file.

    Disks of `kept_vdevs` stay those of the guest that is replaced, and shared ones unless all who
    have them are installed `with_others`. With `group` the disks become logical volumes of it.
    """
    generation = 1 if before is None else before.generation + 1
    folder = layout.disks(source.name, generation)
    sums = source.disks
    old = {disk.vdev: disk for disk in before.disks} if before else {}
    plans = []
    for disk in source.domain.hard_disks:
        path = Path(disk.target)
        is_kept = disk.vdev in kept_vdevs or (disk.is_shared and not with_others)
        if is_kept and disk.vdev in old:
            plans.append(DiskPlan(old[disk.vdev]))
            continue
        if is_kept and disk.is_shared:
            _refuse_alone(source, disk)
        local = source.folder / path.name
        is_file = path.name in sums and local.is_file()
        target, kind = path, "file" if is_file or path.is_file() else "block"
        if is_file and group:
            _refuse_not_raw(disk)
            target, kind = volume_path(group, source.name, path.name, generation), "block"
        elif is_file:
            target = folder / path.name
        role = role_of(disk, source)
        made = InstalledDisk(disk.vdev, str(target), kind, disk.format, role, is_owned=is_file)
        plans.append(DiskPlan(made, local if is_file else None, sums.get(path.name, "")))
    wanted = bool(source.spec.get("autostart")) if autostart is None else autostart
    return Plan(source, tuple(plans), generation, wanted, toolstack, proof, before)


def _refuse_not_raw(disk: Disk) -> None:
    if disk.format != "raw":
        raise UsageError(
            f"{disk.target} is {disk.format}, a volume holds plain bytes",
            hint="build it with format=raw",
        )


def _refuse_alone(source: Source, disk: Disk) -> None:
    raise UsageError(
        f"{source.name}: other guests write to its disk {disk.vdev} too",
        hint="install all of them together: doit install appliance=NAME",
    )


def role_of(disk: Disk, source: Source) -> str:
    """root, whole, swap, boot, shared, data: by the names of the stages, disk.img or NAME-disk."""
    boot = source.domain.boot
    part = Path(disk.target).name.partition(".")[0].removeprefix(f"{source.name}-")
    if part == "disk" or (isinstance(boot, Direct) and boot.root == f"/dev/{disk.vdev}"):
        return "whole" if source.spec.get("disk") == "whole" else "root"
    if disk.is_shared:
        return "shared"
    # a disk of GRUB alone, of guests that were built before disk = "whole"
    is_loader = part.removeprefix("disk-") == "boot" and isinstance(boot, Firmware)
    return "swap" if part == "swap" else "boot" if is_loader else "data"


def install(plan: Plan, layout: Layout, *, word: str, log: Path) -> Installed:
    """Carry the plan out; an error or a kill leaves the host as it was."""
    (record,) = install_together([plan], layout, word=word, log=log)
    return record


def install_together(
    plans: Sequence[Plan], layout: Layout, *, word: str, log: Path
) -> list[Installed]:
    """Carry all plans out, or none: an error or a kill leaves the host as it was."""
    total = sum(len(plan.disks) + 2 for plan in plans)
    names = [plan.name for plan in plans]
    records = []
    finish: dict[str, list[Step]] = {}
    with ExitStack() as stack:
        stack.enter_context(kernels.placing_kernels(layout))
        for plan in plans:
            stack.enter_context(restriction.placing_program(layout, plan.source.domain))
        changes = stack.enter_context(JointChange(site_of(layout), names, word))
        doing = f"installing {', '.join(names)}"
        bar = stack.enter_context(progress_bar(doing, total=total, unit="steps"))
        for plan in plans:
            change = changes.of(plan.name)
            record, finish[plan.name] = _prepare(plan, layout, change, bar.advance, word, log)
            records.append(record)
        changes.commit(finish)
        bar.advance(len(plans))
    return records


def _prepare(
    plan: Plan,
    layout: Layout,
    change: Transaction,
    advance: Callable[[], object],
    word: str,
    log: Path,
) -> tuple[Installed, list[Step]]:
    """Everything beside its place, and the steps that put it there."""
    _make_folder(change, layout, plan)
    named: list[Step] = []
    for planned in plan.disks:
        named += _copy(change, planned, log)
        advance()
    kernel = None
    if not plan.source.is_kernel_inside:
        kernel = kernels.place_kernel(layout, read_kernel_folder(plan.source.folder))
    if plan.source.firmware is not None:
        kernels.place_firmware(layout, plan.source.firmware)
    advance()
    record = _make_record(plan, layout, kernel, word)
    restriction.prepare(change, layout, Grammar(plan.toolstack).domain(record.config_text))
    steps = configuration.prepare_texts(change, layout, record, named)
    return record, [*named, *steps, *_remove_replaced(plan, layout)]


def _make_folder(change: Transaction, layout: Layout, plan: Plan) -> None:
    if not any(planned.source and planned.disk.kind == "file" for planned in plan.disks):
        return
    folder = layout.disks(plan.name, plan.generation)
    change.will_make(remove_tree(folder))
    make_private_folder(folder.parent)
    make_private_folder(folder)


def _copy(change: Transaction, planned: DiskPlan, log: Path) -> list[Step]:
    """One disk in its place, or under the name that the returned step takes away."""
    target = planned.disk.path
    if planned.source is None:
        return []
    if planned.disk.kind == "block":
        volume = create_noted(change, target, planned.source.stat().st_size)
        write_image(planned.source, volume.path)
        if digest_as(planned.sum, planned.source) != planned.sum:
            raise VerificationError(f"{planned.source} changed while it was copied", hint="again")
        if planned.disk.is_whole:  # a volume of whole extents may be longer
            root = find_root(volume.path, is_whole=True)
            fit_table(volume.path, disk_bytes=volume.size, root_bytes=root.size)
        return [rename_volume(volume.group, volume.name, target.name)]
    copy_disk(planned.source, target, recorded=planned.sum, log=log)
    return []


def render_config(plan: Plan, layout: Layout) -> tuple[Merged, str]:
    """The configuration to write, and as it is without the administrator's edits.

    Edits of the guest that an undo could go back to are taken over. Raises VerificationError where
    that cannot be done.
    """
    source = plan.source
    kernel = None
    if not source.is_kernel_inside:
        kernel = layout.kernels / read_kernel_folder(source.folder).identity
    firmware = _firmware_folder(plan, layout)
    targets = {planned.disk.vdev: planned.disk.target for planned in plan.disks}
    domain = configuration.moved_domain(source.domain, targets, kernel, firmware)
    if plan.toolstack == "xl":
        domain = restriction.restricted(domain, layout, xen=source.xen)
    rendered = configuration.render(domain, toolstack=plan.toolstack, xen=source.xen)
    before = plan.before
    if before is None or not plan.keeps_previous:
        return Merged(rendered, ()), rendered
    moves = {disk.target: targets[disk.vdev] for disk in before.disks if disk.vdev in targets}
    if kernel is not None and before.kernel:
        names = (KERNEL, RAMDISK)
        moves |= {f"{before.kernel}/{name}": f"{kernel}/{name}" for name in names}
    if firmware is not None and (old := before.origin.get(kernels.FIRMWARE)):
        moves |= {f"{old}/{FIRMWARE_FILE}": f"{firmware}/{FIRMWARE_FILE}"}
    path, grammar = layout.config(plan.name), Grammar(plan.toolstack)
    texts = {"last": before.rendered, "now": before.config_text, "new": rendered}
    merged = merge(path, grammar, **texts, moves=moves)
    found = {disk.vdev: disk.target for disk in require_readable(grammar, path, merged.text).disks}
    for vdev, target in targets.items():
        if found.get(vdev, target) != target:
            raise VerificationError(
                f"{path} has {found[vdev]} as {vdev}, where {target} is to be",
                hint="give your disk another name in the guest; or move the file away",
            )
    return merged, rendered


def _firmware_folder(plan: Plan, layout: Layout) -> Path | None:
    firmware = plan.source.firmware
    return kernels.firmware_folder(layout, firmware) if firmware is not None else None


def _make_record(plan: Plan, layout: Layout, kernel: Path | None, word: str) -> Installed:
    source = plan.source
    merged, rendered = render_config(plan, layout)
    before = plan.before.without_previous() if plan.before and plan.keeps_previous else None
    firmware = _firmware_folder(plan, layout)
    started_by = {kernels.FIRMWARE: str(firmware)} if firmware is not None else {}
    return Installed(
        name=plan.name,
        word=word,
        generation=plan.generation,
        changed_at=int(time.time()),
        config_text=merged.text,
        rendered_text=rendered if rendered != merged.text else "",
        is_autostarted=plan.is_autostarted,
        disks=tuple(planned.disk for planned in plan.disks),
        kernel=str(kernel or ""),
        abi=source.abi,
        fs=str(source.spec["fs"]),
        suite=str(source.spec["suite"]),
        toolstack=plan.toolstack,
        origin={**source.origin(), **plan.delivery, "proof": plan.proof, **started_by},
        previous=before,
        membership=plan.membership or (plan.before.membership if plan.before else None),
    )


def _remove_replaced(plan: Plan, layout: Layout) -> list[Step]:
    """The disks that nothing can go back to: of the guest that is replaced, or of the one before.

    One undo is kept, so a second rebuild gives up the first one's.
    """
    before, kept = plan.before, {planned.disk.target for planned in plan.disks}
    if before is not None and plan.keeps_previous:
        kept |= {disk.target for disk in before.disks}
        before = before.previous
    return removal_of(before, layout, kept=frozenset(kept)) if before else []


def removal_of(
    record: Installed, layout: Layout, *, kept: frozenset[str] = frozenset()
) -> list[Step]:
    """The steps that remove the disks that we made for a guest and for what it was before."""
    steps: list[Step] = []
    folders: set[Path] = set()
    at: Installed | None = record
    while at is not None:
        for disk in at.disks:
            if not disk.is_owned or disk.target in kept:
                continue
            if disk.kind == "block":
                steps.append(remove_volume(disk.path))
                continue
            if layout.images not in disk.path.parents:
                raise UsageError(
                    f"{disk.target} is not below {layout.images}", hint="look at the record"
                )
            steps.append(remove(disk.path))
            folders.add(disk.path.parent)
        at = at.previous
    unique = [step for number, step in enumerate(steps) if step not in steps[:number]]
    return [*unique, *(remove_empty(folder) for folder in sorted(folders))]


def with_previous(plan: Plan) -> Plan:
    """The same plan, keeping what it replaces for an undo."""
    return replace(plan, keeps_previous=True)


def refuse_impossible(plan: Plan, layout: Layout, toolstack: Toolstack | None) -> list[str]:
    """Everything that forbids the installation, before anything is made; returns notes.

    Raises InUseError for foreign files, running guests and open disks, EnvironmentFault where the
    host has no room or rights.
    """
    domain = Grammar(plan.toolstack).domain(render_config(plan, layout)[0].text)
    refuse_unable(layout, domain)
    notes = [refuse_running(layout, toolstack, plan.name, "installing"), _note_type(plan, domain)]
    configuration.refuse_foreign(layout, plan.name)
    if layout.save_file(plan.name).exists():
        raise InUseError(
            f"{plan.name} is saved in {layout.save_file(plan.name)}: its memory and its disks "
            "belong together",
            hint=f"doit restore name={plan.name}, or remove the file",
        )
    for planned in plan.disks:
        if planned.source is not None:
            refuse_if_used(planned.source)
    if plan.before is not None:
        kept = {planned.disk.target for planned in plan.disks if planned.source is None}
        for disk in plan.before.disks:
            if disk.role != "shared" or disk.target not in kept:
                refuse_if_used(disk.path)
    folder = layout.disks(plan.name, plan.generation)
    if os.path.lexists(folder):
        raise InUseError(f"{folder} is there and was not installed by doit", hint="move it away")
    refuse_full([plan], layout)
    return [note for note in notes if note]


def refuse_unable(layout: Layout, domain: Domain) -> None:
    """Raises EnvironmentFault for a type of guest that this host's Xen cannot start."""
    fault = refusal_of(find_unable(domain.type, "amd64", read_xen_caps(layout.root)))
    if fault:
        fault.guest = domain.name
        raise fault


def _note_type(plan: Plan, domain: Domain) -> str:
    """What is said where the guest becomes one of another type."""
    if plan.before is None:
        return ""
    try:
        old = Grammar(plan.before.toolstack).domain(plan.before.config_text).type
    except ValueError:
        return ""
    if old == domain.type:
        return ""
    return f"its type changes: {old} -> {domain.type}; type={old} in its spec keeps it"


def refuse_replacing(name: str, before: Installed | None, *, may_replace: bool) -> None:
    """Raises InUseError when the guest is installed already and that was not asked for."""
    if before is None or may_replace:
        return
    written = find_written(before)
    lost = ", and its guest has written to " + ", ".join(disk.target for disk in written)
    raise InUseError(
        f"{name} is installed already{lost if written else ''}",
        hint=f"doit rebuild name={name} replaces its root disk and can be undone; "
        "replace=yes puts the artifact in its place and loses what was there",
    )


def refuse_full(plans: Sequence[Plan], layout: Layout) -> None:
    """Raises EnvironmentFault where there is no room for all of them, or no right to write."""
    groups: dict[str, list[tuple[Path, int]]] = {}
    disks = [planned for plan in plans for planned in plan.disks]
    for planned in disks:
        if planned.source is not None and planned.disk.kind == "block":
            wanted = groups.setdefault(planned.disk.path.parent.name, [])
            wanted.append((planned.disk.path, planned.source.stat().st_size))
    for group, devices in groups.items():
        refuse_volumes(process.run, group, devices)
    files = [planned.source for planned in disks if planned.source and planned.disk.kind == "file"]
    need = sum(path.stat().st_blocks * 512 for path in files)
    at = layout.images
    while not at.exists():
        at = at.parent
    if not os.access(at, os.W_OK):
        raise EnvironmentFault(f"{at} cannot be written", hint="run doit install as root")
    require_folder_room(at, need)
