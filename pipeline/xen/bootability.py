"""The bootability lint: would this guest boot under Xen? Judged from facts, before any boot.

The caller reads kernel, initrd and file system into BootFacts. A fact that is None was not read:
the rules that need it say nothing. What depends on Xen's version is in compatibility.py.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from pipeline.errors import Finding
from pipeline.kernel.facts import KernelFacts
from pipeline.xen.boot import Direct, Firmware, Grub, Pygrub, split_command_line
from pipeline.xen.compatibility import UNPACKED_SINCE, case_of, find_broken
from pipeline.xen.domain import Domain
from pipeline.xen.grub_menu import GRUB_CFG_SINCE, Menu, find_menu, parse_grub_cfg
from pipeline.xen.values import SyntaxFault, parse_version

_LABELS = ("UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "/dev/disk/", "/dev/mapper/")
_FS_OPTIONS = {"ext2": "EXT2_FS", "ext3": "EXT3_FS", "ext4": "EXT4_FS", "xfs": "XFS_FS"}
_FS_OPTIONS |= {"btrfs": "BTRFS_FS"}
_FS_MODULES = {"ext2": ("ext2", "ext4"), "ext3": ("ext3", "ext4")}
_MIB = 1024 * 1024
_MENU_HINT = "the grub-menu element writes a menu.lst and a grub.cfg that every pygrub reads"


@dataclass(frozen=True, kw_only=True)
class BootFacts:
    """What was read of a guest; None means not read.

    `kernel` is the kernel that boots, from dom0 or, with pygrub and GRUB, from the guest.
    `initrd_modules` are names with underscores; `initrd_size` is in bytes. `kernel_config` is the
    text of /boot/config-*. `gettys` are inittab lines or names of enabled systemd units. `menus`
    and `files` are of the guest: path to text, and the paths that exist. `root_fs` is the type of
    the root file system. `network_names` are the cards that the guest's network set-up covers, and
    `card_names` those that the guest's release will give them (eth0, enX0).
    """

    domain: Domain
    xen: str = "4.17"
    kernel: KernelFacts | None = None
    initrd_modules: frozenset[str] | None = None
    initrd_size: int | None = None
    kernel_config: str | None = None
    fstab: str | None = None
    gettys: tuple[str, ...] | None = None
    menus: Mapping[str, str] | None = None
    files: frozenset[str] | None = None
    root_fs: str | None = None
    network_names: frozenset[str] | None = None
    card_names: frozenset[str] = field(default_factory=frozenset)


def lint(facts: BootFacts) -> list[Finding]:
    """Every finding, errors first; an empty list is a guest that should boot."""
    findings = [finding for rule in RULES for finding in rule(facts)]
    return sorted(findings, key=lambda finding: finding.level != "error")


def check_notes(facts: BootFacts) -> Iterator[Finding]:
    """The kernel carries the ELF notes that its domain type needs."""
    kernel, kind = facts.kernel, facts.domain.type
    if kernel is None or isinstance(facts.domain.boot, Firmware):
        return
    if kernel.elf_notes is None:
        yield Finding(
            "warning",
            "notes-unread",
            f"the kernel's ELF notes could not be read: {kernel.unread or 'payload not unpacked'}",
            "install the tool that unpacks it, to have the kernel checked",
        )
    elif kind == "pvh" and "PHYS32_ENTRY" not in kernel.elf_notes:
        yield Finding(
            "error",
            "no-pvh-note",
            "the kernel has no PHYS32_ENTRY note: a PVH domain cannot enter it",
            "take a kernel built with CONFIG_PVH (Debian's since buster), or type = pv",
        )
    elif kind == "pv" and (
        "ENTRY" not in kernel.elf_notes or kernel.elf_notes.get("LOADER") != "generic"
    ):
        yield Finding(
            "error",
            "no-pv-notes",
            "the kernel has no ENTRY and LOADER=generic notes: a PV domain cannot enter it",
            "take a kernel built with CONFIG_XEN_PV, or type = pvh",
        )


def check_versions(facts: BootFacts) -> Iterator[Finding]:
    """Whoever loads the kernel finds it, can unpack and start it (compatibility.py)."""
    compression = facts.kernel.compression if facts.kernel else ""
    case = replace(
        case_of(facts.domain, facts.xen), compression=compression, fs=facts.root_fs or ""
    )
    if compression and case.boot != "firmware" and compression not in UNPACKED_SINCE:
        message = f"kernel compression {compression} is not known"
        yield Finding("error", "compression-unknown", message)
    for finding in find_broken(case, "refused", "stops"):
        if finding.code:
            yield replace(finding, subject=finding.code)


def check_modules(facts: BootFacts) -> Iterator[Finding]:
    """xen-blkfront and the root file system are in the kernel or in the initrd."""
    modules = facts.initrd_modules
    if modules is None or isinstance(facts.domain.boot, Firmware):
        return
    built_in = _built_in(facts.kernel_config)
    if not modules & {"xen_blkfront", "xenblk"} and "XEN_BLKDEV_FRONTEND" not in built_in:
        yield Finding(
            "error",
            "no-blkfront",
            "xen-blkfront is neither in the initrd nor in the kernel: the root disk never appears",
            "add xen-blkfront to /etc/initramfs-tools/modules and make the initrd again",
        )
    root_fs = facts.root_fs
    if root_fs is None or _FS_OPTIONS.get(root_fs, "") in built_in:
        return
    if not modules & set(_FS_MODULES.get(root_fs, (root_fs,))):
        yield Finding(
            "error",
            "no-root-fs-module",
            f"{root_fs} is neither in the initrd nor in the kernel: the root cannot be mounted",
            f"add {root_fs} to /etc/initramfs-tools/modules and make the initrd again",
        )


def check_initrd_belongs(facts: BootFacts) -> Iterator[Finding]:
    """A modular kernel that is given directly has a RAM disk to find its root with."""
    boot = facts.domain.boot
    if not isinstance(boot, Direct) or boot.ramdisk is not None or facts.kernel_config is None:
        return
    if "XEN_BLKDEV_FRONTEND" not in _built_in(facts.kernel_config):
        yield Finding(
            "error",
            "no-initrd",
            "the kernel has xen-blkfront as a module and no initrd is given",
            "give the kernel's initrd as ramdisk",
        )


def check_memory(facts: BootFacts) -> Iterator[Finding]:
    """The domain has room for kernel and initrd, packed and unpacked."""
    kernel = facts.kernel
    if kernel is None or facts.initrd_size is None:
        return
    # The unpacked kernel lies beside the initrd and what the initrd unpacks to, about three times.
    needed = (max(kernel.unpacked_size, kernel.size) + 4 * facts.initrd_size) // _MIB + 32
    if facts.domain.memory_mib < needed:
        yield Finding(
            "error",
            "memory-too-small",
            f"{facts.domain.memory_mib} MiB do not hold kernel and initrd, "
            f"which need about {needed} MiB",
            f"give the guest {max(128, needed * 2)} MiB",
        )


def _built_in(config: str | None) -> frozenset[str]:
    return frozenset(re.findall(r"^CONFIG_(\w+)=y$", config or "", re.MULTILINE))


def check_root(facts: BootFacts) -> Iterator[Finding]:
    """root= names a disk of the domain, and fstab the same one."""
    root, _ = split_command_line(_command_line(facts))
    fstab_root = _fstab_root(facts.fstab)
    names = {f"/dev/{disk.vdev}" for disk in facts.domain.disks}
    shown = ", ".join(sorted(names)) or "none"
    if root is not None and root.startswith("/dev/") and not root.startswith(_LABELS):
        if not _names_disk(root, names):
            yield Finding(
                "error",
                "root-not-a-disk",
                f"root={root} is no disk of the domain ({shown})",
                "make root= and the vdev of the root disk agree",
            )
        elif _is_device(fstab_root) and fstab_root != root:
            yield Finding(
                "error",
                "root-differs-from-fstab",
                f"root={root}, but the guest's fstab mounts / from {fstab_root}",
                "make both name the same device",
            )
    elif _is_device(fstab_root) and not _names_disk(fstab_root, names):
        yield Finding(
            "error",
            "fstab-not-a-disk",
            f"the guest's fstab mounts / from {fstab_root}, no disk of the domain ({shown})",
            "make fstab and the vdev of the root disk agree",
        )
    elif root is None and isinstance(facts.domain.boot, Direct):
        yield Finding("error", "no-root", "the kernel's command line has no root=")


def check_console(facts: BootFacts) -> Iterator[Finding]:
    """The Xen console shows the boot and has a login."""
    if isinstance(facts.domain.boot, Firmware):
        return
    line = _command_line(facts)
    device = "tty1" if "console=tty1" in line.split() else "hvc0"  # 2.6.18-xen's console is tty1
    if facts.gettys is not None and not any(device in line for line in facts.gettys):
        yield Finding(
            "error",
            f"no-{device}-getty",
            f"no getty on {device}: `xl console` shows no login prompt",
            f"1:2345:respawn:/sbin/getty 38400 {device} in inittab, or serial-getty@hvc0.service",
        )
    if device == "hvc0" and line and "console=hvc0" not in re.split(r"[\s,]", line):
        yield Finding(
            "warning",
            "no-console-hvc0",
            "console=hvc0 is not on the kernel's command line: the boot may stay invisible",
            "add console=hvc0",
        )


def check_menu(facts: BootFacts) -> Iterator[Finding]:
    """The guest has a menu that its boot loader can read, and what the menu names exists."""
    boot = facts.domain.boot
    if facts.menus is None or not isinstance(boot, Pygrub | Grub):
        return
    try:
        menu = _find_loader_menu(facts)
    except SyntaxFault as fault:
        yield Finding(
            "error", "menu-unparsable", f"the boot loader cannot read the menu: {fault}", _MENU_HINT
        )
        return
    if menu is None:
        old = isinstance(boot, Pygrub) and parse_version(facts.xen) < GRUB_CFG_SINCE
        wanted = "/boot/grub/menu.lst" if old else "/boot/grub/grub.cfg"
        yield Finding(
            "error",
            "menu-missing",
            f"the guest has no {wanted}, where the boot loader of Xen {facts.xen} looks",
            _MENU_HINT,
        )
        return
    entry = menu[1].default_entry
    for path in (entry.kernel, entry.initrd):
        if path is not None and facts.files is not None and not _exists(path, facts.files):
            yield Finding(
                "error",
                "menu-kernel-missing",
                f"{menu[0]} boots {path}, which the guest does not have",
                "make the menu again after every change of kernel",
            )


def check_loader(facts: BootFacts) -> Iterator[Finding]:
    """pygrub, which reads what the guest's root wrote, does not run as root of the host."""
    boot = facts.domain.boot
    if isinstance(boot, Pygrub) and not boot.user:
        yield Finding(
            "error",
            "pygrub-unrestricted",
            "pygrub runs as root: whoever is root in the guest can take over the host (XSA-508)",
            "type = pvh with boot = grub; or pygrub as a user of its own, which xen = 4.17 can",
        )


def check_kernel_disk_first(facts: BootFacts) -> Iterator[Finding]:
    """pygrub finds the kernel on the first disk."""
    if not isinstance(facts.domain.boot, Pygrub):
        return
    first = facts.domain.disks[0]
    root, _ = split_command_line(_command_line(facts))
    root = root if _is_device(root) else _fstab_root(facts.fstab)
    if (
        first.devtype == "disk"
        and _is_device(root)
        and not _names_disk(root, {f"/dev/{first.vdev}"})
    ):
        yield Finding(
            "warning",
            "kernel-disk-not-first",
            f"pygrub looks on the first disk, {first.vdev}, but the root is {root}",
            "put the disk that holds /boot first in disk=",
        )


def check_card_names(facts: BootFacts) -> Iterator[Finding]:
    """The guest's network set-up covers the names that its cards will get."""
    if facts.network_names is None or not facts.domain.cards:
        return
    uncovered = sorted(facts.card_names - facts.network_names)
    if uncovered and "*" not in facts.network_names:
        yield Finding(
            "error",
            "card-name",
            f"the card will be called {', '.join(uncovered)}, the guest configures "
            f"{', '.join(sorted(facts.network_names)) or 'none'}",
            "match the card by its MAC address instead of a name",
        )


def _find_loader_menu(facts: BootFacts) -> tuple[str, Menu] | None:
    menus = facts.menus or {}
    if isinstance(facts.domain.boot, Pygrub):
        return find_menu(menus, parse_version(facts.xen))
    path = "/boot/grub/grub.cfg"
    return (path, parse_grub_cfg(menus[path])) if path in menus else None


def _command_line(facts: BootFacts) -> str:
    """What the kernel will be told: by the configuration, or by the menu's default entry."""
    boot = facts.domain.boot
    if isinstance(boot, Direct):
        return boot.command_line
    if facts.menus is None or isinstance(boot, Firmware):
        return ""
    try:
        menu = _find_loader_menu(facts)
    except SyntaxFault:
        return ""
    return "" if menu is None else menu[1].default_entry.args


def _fstab_root(fstab: str | None) -> str | None:
    for line in (fstab or "").splitlines():
        fields = line.split()
        if len(fields) > 1 and fields[1] == "/" and not fields[0].startswith("#"):
            return fields[0]
    return None


def _is_device(name: str | None) -> bool:
    return name is not None and name.startswith("/dev/") and not name.startswith(_LABELS)


def _names_disk(name: str | None, disks: set[str]) -> bool:
    """Whether the device is one of the disks, or a partition of a whole one."""
    return name is not None and (name in disks or name.rstrip("0123456789") in disks)


def _exists(path: str, files: frozenset[str]) -> bool:
    """Menus of a separate /boot name paths without /boot."""
    return path in files or f"/boot{path}" in files


RULES = (
    *(check_notes, check_versions, check_modules, check_initrd_belongs, check_memory),
    *(
        check_root,
        check_console,
        check_menu,
        check_loader,
        check_kernel_disk_first,
        check_card_names,
    ),
)
