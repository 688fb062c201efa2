"""Lint rules about what is inside the guest: root, console, boot menus, names of its cards."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.xen.boot import Direct, Firmware, Grub, Pygrub, split_command_line
from pipeline.xen.boot_facts import BootFacts, Finding
from pipeline.xen.grub_menu import GRUB_CFG_SINCE, Menu, find_menu, parse_grub_cfg
from pipeline.xen.values import SyntaxFault, parse_version

_LABELS = ("UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "/dev/disk/", "/dev/mapper/")
_PYGRUB_READS = ("ext2", "ext3", "ext4", "xfs", "reiserfs", "vfat", "iso9660", "ufs", "zfs")


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
        found = _find_loader_menu(facts)
    except SyntaxFault as fault:
        yield Finding(
            "error", "menu-unparsable", f"the boot loader cannot read the menu: {fault}", _MENU_HINT
        )
        return
    if found is None:
        old = isinstance(boot, Pygrub) and parse_version(facts.xen) < GRUB_CFG_SINCE
        wanted = "/boot/grub/menu.lst" if old else "/boot/grub/grub.cfg"
        yield Finding(
            "error",
            "menu-missing",
            f"the guest has no {wanted}, where the boot loader of Xen {facts.xen} looks",
            _MENU_HINT,
        )
        return
    entry = found[1].default_entry
    for path in (entry.kernel, entry.initrd):
        if path is not None and facts.files is not None and not _exists(path, facts.files):
            yield Finding(
                "error",
                "menu-kernel-missing",
                f"{found[0]} boots {path}, which the guest does not have",
                "make the menu again after every change of kernel",
            )


def check_kernel_disk_first(facts: BootFacts) -> Iterator[Finding]:
    """pygrub finds the kernel on the first disk, in a file system that it can read."""
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
    if facts.root_fs is not None and facts.root_fs not in _PYGRUB_READS:
        yield Finding(
            "error",
            "pygrub-file-system",
            f"pygrub cannot read {facts.root_fs}",
            "use ext4, or a separate /boot of ext4 as the first disk",
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


_MENU_HINT = "the grub-menu element writes a menu.lst and a grub.cfg that every pygrub reads"


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
        found = _find_loader_menu(facts)
    except SyntaxFault:
        return ""
    return "" if found is None else found[1].default_entry.args


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


RULES = (check_root, check_console, check_menu, check_kernel_disk_first, check_card_names)
