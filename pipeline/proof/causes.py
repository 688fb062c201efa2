"""Likely causes of a guest that does not do what it must, from what it and Xen's tools printed."""

from __future__ import annotations

import re

_CONSOLE: tuple[tuple[str, str], ...] = (
    (
        r"initrd: root device .* did not appear|ALERT!.*does not exist",
        "the initrd found no such disk: either root= does not name the disk's vdev, or the initrd"
        " holds no xen-blkfront",
    ),
    (
        r"VFS: Unable to mount root fs|VFS: Cannot open root device",
        "the kernel got no initrd, or root= names nothing that it can mount itself",
    ),
    (r"cannot be mounted as root file system", "root= names a disk that holds no such file system"),
    (
        r"initrd: module \S+ does not load",
        "the initrd's modules are of another kernel than vmlinuz",
    ),
    (r"No working init found|initrd: no \S+ on the root", "the root file system has no init"),
    (r"emergency mode|Give root password for maintenance", "a mount of /etc/fstab failed"),
    (r"Out of memory|Kernel panic - not syncing: System is deadlocked", "memory= is too small"),
    (r"error: .*(?:lz4|LZ4)|premature end of compressed", "GRUB cannot unpack this kernel"),
)
_CREATE: tuple[tuple[str, str], ...] = (
    (
        r"xc_dom_find_loader: no loader found|Invalid kernel|xc_dom_parse_image returned -\d+",
        "Xen finds no loader for this kernel: it has no PV or PVH note of Xen, or it is compressed"
        " in a form that the toolstack does not know",
    ),
    (
        r"[Pp]ygrub.*(?:[Uu]nable to find|No such)|Boot loader didn't return|bootloader failed",
        "pygrub found no menu or no kernel in the guest's first disk",
    ),
    (r"not enough free memory|failed to free memory", "the host has not that much memory free"),
    (r"[Bb]ridge .* does not exist|vif-bridge .*exited", "bridge= names no bridge of the host"),
    (r"Disk .*does not exist|failed to stat", "disk= names a file or device that does not exist"),
    (r"unrecogni[sz]ed|config parsing error", "xl does not understand the configuration"),
)

_IS_UP = re.compile(r"Reached target multi-user|Started serial-getty|INIT: Entering runlevel")


def likely_causes(*, console: str, create: str, has_lease: bool, has_login: bool) -> list[str]:
    """The known causes that fit, most telling first; may be empty."""
    found = [cause for pattern, cause in _CREATE if re.search(pattern, create)]
    found += [cause for pattern, cause in _CONSOLE if re.search(pattern, console)]
    if not found and not create and not console.strip():
        found.append(
            "nothing on the console: the kernel has no console=hvc0, or it cannot start as this"
            " type of guest"
        )
    if has_login and not has_lease:
        renamed = re.search(r"(enX\d): renamed from (eth\d)", console)
        if renamed:
            found.append(
                f"the card was renamed: udev calls it {renamed[1]}, the guest's network files may"
                f" still say {renamed[2]}"
            )
        else:
            found.append("no network file of the guest names its card, or none asks for DHCP")
    if not has_login and not found and _IS_UP.search(console):
        has_getty = re.search(r"Started serial-getty@hvc0|Started getty on hvc0", console)
        found.append(
            "the guest was still starting when the time was over: a busy machine, or a slow unit"
            if has_getty
            else "the guest started, but no getty runs on hvc0"
        )
    return found
