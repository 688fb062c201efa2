"""Lint rules about the kernel, what loads it, and its initial RAM disk.

Which Xen unpacks what comes from the tags of Xen's bzImage loader; what GRUB for Xen unpacks, from
the modules that Debian's GRUB 2.06 and 2.12 have. PVH GRUB lets the kernel unpack itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.xen.boot import Direct, Firmware, Grub
from pipeline.xen.boot_facts import BootFacts, Finding
from pipeline.xen.values import parse_version

# Compression to the first Xen whose domain builder unpacks it.
UNPACKED_SINCE = {
    "none": (3, 0),
    "gzip": (3, 0),
    "bzip2": (4, 0),
    "lzma": (4, 0),
    "lzo": (4, 1),
    "xz": (4, 2),
    "lz4": (4, 4),
    "zstd": (4, 15),
}
UNPACKED_BY_PV_GRUB = ("none", "gzip", "xz", "lzo")

_FS_OPTIONS = {"ext2": "EXT2_FS", "ext3": "EXT3_FS", "ext4": "EXT4_FS", "xfs": "XFS_FS"}
_FS_OPTIONS |= {"btrfs": "BTRFS_FS"}
_FS_MODULES = {"ext2": ("ext2", "ext4"), "ext3": ("ext3", "ext4")}
_MIB = 1024 * 1024


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


def check_compression(facts: BootFacts) -> Iterator[Finding]:
    """Whoever loads the kernel can unpack it."""
    kernel, boot = facts.kernel, facts.domain.boot
    if kernel is None or isinstance(boot, Firmware):
        return
    name = kernel.compression
    if isinstance(boot, Grub):
        if boot.domain_type == "pv" and name not in UNPACKED_BY_PV_GRUB:
            yield Finding(
                "error",
                "compression-loader",
                f"GRUB for PV domains cannot unpack a kernel compressed with {name}",
                "take a kernel compressed with xz (Debian's generic one, not cloud), pygrub or pvh",
            )
        return
    since = UNPACKED_SINCE.get(name)
    if since is None:
        yield Finding("error", "compression-unknown", f"kernel compression {name} is not known")
    elif parse_version(facts.xen) < since:
        yield Finding(
            "error",
            "compression-loader",
            f"Xen {facts.xen} cannot unpack a kernel compressed with {name}; "
            f"{since[0]}.{since[1]} and later can",
            "take a kernel with an older compression, or a newer Xen",
        )


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


RULES = (check_notes, check_compression, check_modules, check_initrd_belongs, check_memory)
