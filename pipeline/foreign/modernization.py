"""A PV guest that was not built here becomes a PVH guest: on copies, which are proven.

Its old disks and its old configuration are not changed: the new ones stand beside them, and one
rename of the configuration exchanges the guests. So an undo brings back what was, byte for byte.
Disks that need no change (swap, /home, /srv...) are not copied: both guests have them.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline import process
from pipeline.dom0 import configuration
from pipeline.dom0.guest_root import check_file_system, site_of
from pipeline.dom0.inventory import FOUND, Installed, InstalledDisk, read_installed
from pipeline.dom0.layout import Layout
from pipeline.dom0.other_host import refuse_running
from pipeline.dom0.toolstack import Toolstack
from pipeline.errors import EnvironmentFault, Finding, InUseError, UsageError, VerificationError
from pipeline.foreign import modern_configuration, old_disks
from pipeline.foreign.mend import Change, Wanted, find_trouble, plan_changes
from pipeline.foreign.modern_configuration import GRUB
from pipeline.foreign.mounted_root import change_disks, survey_disks
from pipeline.foreign.old_disks import FILE_SYSTEMS, GENERATION, OldDisk
from pipeline.foreign.old_guest import (
    OldGuest,
    find_configuration_trouble,
    find_kernel_trouble,
    modern_disks,
)
from pipeline.foreign.root_tree import RootTree
from pipeline.storage.filesystems import FileSystemAt
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.root_place import Place
from pipeline.storage.steps import Step
from pipeline.storage.transaction import Transaction, work_folder
from pipeline.xen.boot import Direct, Grub
from pipeline.xen.domain import Domain

WORD = "modernize"
# mount points whose file systems the survey sees and a change may touch, beside the root's
SEEN = ("/boot", "/usr", "/var")


_NO_MODULES = Finding(
    "error",
    "initrd",
    "it lacks xen-blkfront, and the modules to make another one are on the file system of /usr",
    "in the guest: echo xen-blkfront >>/etc/initramfs-tools/modules; update-initramfs -u",
)


@dataclass(frozen=True, kw_only=True)
class Modernization:
    """What is wrong with a guest and what will be done about it.

    `targets` are its disks from now on, in the order of `disks`; `mounts` say where the guest has
    the file systems that are changed, the root first. `domain` and `text` are the new
    configuration. A finding of the level error forbids it.
    """

    old: OldGuest
    layout: Layout
    tree: RootTree
    disks: tuple[OldDisk, ...]
    mounts: dict[str, OldDisk]
    findings: tuple[Finding, ...]
    changes: tuple[Change, ...]
    targets: tuple[InstalledDisk, ...]
    domain: Domain
    text: str

    @property
    def name(self) -> str:
        return self.old.name

    @property
    def pairs(self) -> list[tuple[OldDisk, InstalledDisk]]:
        """The disks that are copied, with what their copies become."""
        both = zip(self.disks, self.targets, strict=True)
        return [(old, new) for old, new in both if new.is_owned]

    @property
    def makes_initrd(self) -> bool:
        """Whether an initrd of ours is among the changes, which takes a static busybox."""
        return any(change.how == "initrd" for change in self.changes)

    @property
    def errors(self) -> list[Finding]:
        """What forbids it."""
        return [finding for finding in self.findings if finding.level == "error"]


def plan_modernization(
    layout: Layout, old: OldGuest, *, boot: str | None, xen: str, work: Path
) -> Modernization:
    """Look at everything and change nothing.

    Raises UsageError for a guest that needs or takes none of this, EnvironmentFault for a disk that
    is not there, InUseError for one that is in use: a file system that is written to meanwhile
    cannot be read.
    """
    boot = boot or ("direct" if isinstance(old.domain.boot, Direct) else "grub")
    findings = find_configuration_trouble(old, xen)
    domain = modern_configuration.modern_domain(old, boot=boot, xen=xen)
    disks, mounts, tree = survey_guest(old, work)
    root = mounts["/"]
    wanted = _wanted(domain, boot, root, tree, disks)
    changes = tuple(plan_changes(tree, wanted))
    changed = {
        disk.vdev: "root" if at == "/" else "boot"
        for at, disk in mounts.items()
        if at == "/" or any(change.path.startswith(f"{at}/") for change in changes)
    }
    copied = [disk for disk in disks if disk.vdev in changed]
    findings += [*old_disks.find_disk_trouble(copied), *find_trouble(tree, wanted)]
    findings += _find_boot_trouble(domain, changes, mounts)
    targets = old_disks.plan_copies(layout, old.name, disks, changed=changed)
    places = {disk.vdev: disk.target for disk in targets}
    domain = configuration.moved_domain(domain, places, None)
    return Modernization(
        old=old,
        layout=layout,
        tree=tree,
        disks=disks,
        mounts=mounts,
        findings=tuple(sorted(findings, key=lambda finding: finding.level != "error")),
        changes=changes,
        targets=targets,
        domain=domain,
        text=modern_configuration.render_text(old, domain),
    )


def survey_guest(
    old: OldGuest, work: Path
) -> tuple[tuple[OldDisk, ...], dict[str, OldDisk], RootTree]:
    """Its disks, where it mounts those that matter, the root first, and what is in them.

    Raises what plan_modernization does, but for the configuration.
    """
    disks = tuple(old_disks.look_at_disks(modern_disks(old.domain)))
    for disk in disks:
        refuse_if_used(disk.path)
    root, tree = _find_root(old, disks, work)
    mounts = _find_mounts(root, tree, disks)
    return disks, mounts, tree if len(mounts) == 1 else _survey(mounts, work)


def _find_boot_trouble(
    domain: Domain, changes: Sequence[Change], mounts: Mapping[str, OldDisk]
) -> Iterator[Finding]:
    if isinstance(domain.boot, Direct):
        yield from find_kernel_trouble(domain.boot)
    if "/usr" in mounts and any(change.how == "initrd" for change in changes):
        yield _NO_MODULES


def _find_root(old: OldGuest, disks: Sequence[OldDisk], work: Path) -> tuple[OldDisk, RootTree]:
    """The disk with the root file system: the one that root= names, else the first that has one."""
    able = [disk for disk in disks if disk.fs in FILE_SYSTEMS]
    for disk in sorted(able, key=lambda disk: not disk.is_meant(old.root_node)):
        tree = _survey({"/": disk}, work)
        if tree.fstab or tree.os_id:
            return disk, tree
    seen = ", ".join(f"{disk.vdev}: {disk.fs or disk.table or 'nothing known'}" for disk in disks)
    raise UsageError(
        f"{old.name}: no disk of it has a root file system ({seen})",
        hint="ext, xfs and btrfs are read, as whole disks",
    )


def _survey(mounts: Mapping[str, OldDisk], work: Path) -> RootTree:
    return survey_disks(_file_systems(mounts), work=work, run=process.run)


def _file_systems(mounts: Mapping[str, OldDisk]) -> list[FileSystemAt]:
    return [
        FileSystemAt(place=Place(disk=disk.path), fs=disk.fs, mountpoint=at)
        for at, disk in mounts.items()
    ]


def _find_mounts(root: OldDisk, tree: RootTree, disks: Sequence[OldDisk]) -> dict[str, OldDisk]:
    """Where the guest mounts what the survey has to see or a change may touch, the root first."""
    mounts = {"/": root}
    for line in sorted(tree.fstab, key=lambda line: line.mountpoint):
        meant = next((disk for disk in disks if disk.is_meant(line.node)), None)
        if line.mountpoint in SEEN and meant is not None and meant.fs in FILE_SYSTEMS:
            mounts.setdefault(line.mountpoint, meant)
    return mounts


def _wanted(
    domain: Domain, boot: str, root: OldDisk, tree: RootTree, disks: Sequence[OldDisk]
) -> Wanted:
    """How the guest is to start: everything keeps its place, with the names of today."""
    nodes = {"/": root.node}
    for line in tree.fstab:
        meant = next((disk for disk in disks if disk.is_meant(line.node)), None)
        if meant is not None:
            nodes.setdefault("swap" if line.fs == "swap" else line.mountpoint, meant.node)
    return Wanted(
        boot="grub" if boot == "grub" else "direct",
        kernel="own" if boot == "grub" else "ours",
        root_node=root.node,
        root_fs=root.fs,
        nodes=nodes,
        cards=len(domain.cards),
    )


def refuse_unmendable(plan: Modernization) -> None:
    """Raises VerificationError for what no change here can mend."""
    if plan.errors:
        first = plan.errors[0]
        raise VerificationError(
            f"{plan.name}: {first.text}",
            details="\n".join(map(str, plan.errors[1:])),
            hint=first.hint or "see docs/how-to/modernize.md",
        )


def refuse_impossible(plan: Modernization, toolstack: Toolstack | None) -> list[str]:
    """Everything that forbids it, before anything is made; returns notes."""
    layout, name, path = plan.layout, plan.name, plan.old.path
    if path != layout.config(name):
        raise UsageError(
            f"{path} is of the guest {name}: it is looked for in {layout.config(name)}",
            hint=f"mv {path} {layout.config(name)}   or dry=yes, which only looks",
        )
    before = read_installed(layout, name)
    if before is not None:
        hint = f"doit modernize cfg={path} undo=yes" if before.word == WORD else "doit list-guests"
        raise InUseError(f"{name} is installed already", hint=hint)
    link = layout.auto_link(name)
    if os.path.lexists(link) and not configuration.is_our_link(layout, name):
        raise InUseError(
            f"{link} is no link to {path}: at the host's start the old guest would start",
            hint=f"ln -sfn ../{path.name} {link}",
        )
    if layout.save_file(name).exists():
        raise InUseError(
            f"{name} is saved in {layout.save_file(name)}: memory and disks belong together",
            hint=f"xl restore {layout.save_file(name)}, and shut it down",
        )
    refuse_unmendable(plan)
    if isinstance(plan.domain.boot, Grub) and toolstack and not Path(GRUB).is_file():
        raise EnvironmentFault(f"{GRUB} is not on this host", hint="apt-get install grub-xen-host")
    folder = layout.disks(name, GENERATION)
    if os.path.lexists(folder):
        raise InUseError(f"{folder} is there and was not made by doit", hint="move it away")
    old_disks.refuse_full(layout, plan.pairs)
    return [note for note in [_refuse_in_use(plan, toolstack)] if note]


def _refuse_in_use(plan: Modernization, toolstack: Toolstack | None) -> str:
    what = "making it a PVH guest"
    note = refuse_running(plan.layout, toolstack, plan.name, what, is_foreign=True)
    for disk in plan.disks:
        refuse_if_used(disk.path)
    return note


def modernize(
    plan: Modernization,
    toolstack: Toolstack | None,
    *,
    prove: Callable[[Path], str],
    log: Path,
    busybox: Path | None = None,
) -> Installed:
    """Copies, changed; proven by `prove`, which gets a configuration and returns the verdict;
    exchanged. `busybox` is a static one where the plan `makes_initrd`.

    An error or a kill leaves the host as it was.
    """
    layout, name = plan.layout, plan.name
    with Transaction(site_of(layout), name, WORD) as change:
        copies = {
            new.vdev: old_disks.copy_old_disk(change, old, new, log) for old, new in plan.pairs
        }
        paths = {vdev: copy.path for vdev, copy in copies.items()}
        _change_copies(plan, paths, busybox=busybox, log=log)
        verdict = _prove_copies(plan, paths, prove)
        _refuse_changed(plan, toolstack)
        named: list[Step] = [step for copy in copies.values() for step in copy.steps]
        record = _make_record(plan, verdict)
        change.commit([*named, *configuration.prepare_texts(change, layout, record, named)])
    return record


def _change_copies(
    plan: Modernization, copies: Mapping[str, Path], *, busybox: Path | None, log: Path
) -> None:
    """The planned changes in the copies, and nothing else; a journal of the guest's is replayed."""
    mounts = {
        at: replace(disk, path=copies[disk.vdev])
        for at, disk in plan.mounts.items()
        if disk.vdev in copies
    }
    with work_folder(site_of(plan.layout).work_of(plan.name)) as work:
        run = partial(process.run, log=log)
        change_disks(_file_systems(mounts), plan.changes, work=work, run=run, busybox=busybox)
    for disk in mounts.values():
        check_file_system(Place(disk=disk.path), disk.fs)


def _prove_copies(
    plan: Modernization, copies: Mapping[str, Path], prove: Callable[[Path], str]
) -> str:
    with work_folder(site_of(plan.layout).work_of(plan.name)) as work:
        trial = work / plan.old.path.name
        places = {vdev: str(path) for vdev, path in copies.items()}
        domain = configuration.moved_domain(plan.domain, places, None)
        trial.write_bytes(configuration.encode(modern_configuration.render_text(plan.old, domain)))
        return prove(trial)


def _refuse_changed(plan: Modernization, toolstack: Toolstack | None) -> None:
    """Raises InUseError where the old guest is not what was looked at any more."""
    _refuse_in_use(plan, toolstack)
    old_disks.refuse_written(plan.disks)
    if configuration.read_config(plan.layout, plan.name) != plan.old.text:
        raise InUseError(f"{plan.old.path} was edited meanwhile", hint="again: its edits count")


def _make_record(plan: Modernization, verdict: str) -> Installed:
    old, tree = plan.old, plan.tree
    roles = {disk.vdev: disk.role for disk in plan.targets}
    state = old.path.stat()
    is_inside = isinstance(plan.domain.boot, Grub) and bool(tree.kernels)
    record = Installed(
        name=plan.name,
        word=WORD,
        generation=GENERATION,
        changed_at=int(time.time()),
        config_text=plan.text,
        is_autostarted=configuration.is_our_link(plan.layout, plan.name),
        disks=plan.targets,
        abi=tree.kernels[0].abi if is_inside else "",
        fs=plan.mounts["/"].fs,
        suite=f"{tree.os_id} {tree.os_version}".strip(),
        origin={"proof": verdict},
    )
    was = replace(
        record,
        word=FOUND,
        generation=GENERATION - 1,
        config_text=old.text,
        disks=tuple(disk.as_before(roles[disk.vdev]) for disk in plan.disks),
        origin={"access": f"{state.st_uid}:{state.st_gid} {state.st_mode & 0o777:03o}"},
    )
    return replace(record, previous=was)
