"""A guest that was not built here, from its xl configuration: read, and what is wrong with it.

The configuration is parsed, never executed. A warning is what `doit modernize` mends, an error what
it cannot.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.check.boot_files import MOST_BOOT_FILE, judge_files
from pipeline.dom0.configuration import Grammar, read_text
from pipeline.errors import Finding, UsageError
from pipeline.xen.boot import Direct, Grub, Pygrub
from pipeline.xen.cfg_syntax import Value
from pipeline.xen.devices import Disk
from pipeline.xen.domain import Domain
from pipeline.xen.keys import check_keys
from pipeline.xen.values import SyntaxFault
from pipeline.xen.xl import string_list

GRAMMAR = Grammar("xl")
_PREFIX = re.compile(r"([a-z0-9]+:)")
_OLD_NAME = re.compile(r"^(?:/dev/)?(?:[hs]d|xvd)(?=[a-z])")


@dataclass(frozen=True)
class OldGuest:
    """Its configuration: the text as it stands (other bytes than UTF-8's as surrogates), read."""

    path: Path
    text: str
    values: dict[str, Value]
    domain: Domain

    @property
    def name(self) -> str:
        return self.domain.name

    @property
    def root_node(self) -> str:
        """What root= in the configuration names, as Xen's own drivers call it; "" for nothing.

        xen-create-image writes root= for pygrub guests too, where nobody reads it.
        """
        boot = self.domain.boot
        words = str(self.values.get("root") or "").split()
        named = boot.root or "" if isinstance(boot, Direct) else (words or [""])[0]
        return node_of(named) if named.startswith("/dev/") else named


def node_of(name: str) -> str:
    """A disk's node in a guest with Xen's drivers: sda1, /dev/hda1, xvda1 are /dev/xvda1."""
    return _OLD_NAME.sub("/dev/xvd", name)


def read_old_guest(path: Path) -> OldGuest:
    """Raises UsageError for what is no configuration that xl reads."""
    hint = "give the path of a guest's xl configuration"
    try:
        text = read_text(path)
        return OldGuest(path.absolute(), text, GRAMMAR.values(text), GRAMMAR.domain(text))
    except OSError as error:
        raise UsageError(f"cfg={path}: {error.strerror}", hint=hint) from error
    except SyntaxFault as error:
        raise UsageError(f"cfg={path}: {error}", hint=f"{hint}, which is no Python") from error
    except ValueError as error:
        raise UsageError(f"cfg={path}: {error}", hint=hint) from error


def find_configuration_trouble(old: OldGuest, xen: str) -> list[Finding]:
    """What is wrong in the configuration itself; pure."""
    return [*_find_boot_trouble(old.domain), *_find_disk_trouble(old), *_find_keys(old, xen)]


def _find_boot_trouble(domain: Domain) -> Iterator[Finding]:
    boot = domain.boot
    if domain.type == "hvm":
        yield Finding(
            "error",
            "type",
            "a full PC: its own firmware and boot loader start it",
            "it needs none of this",
        )
    elif domain.type == "pvh":
        yield Finding("error", "type", "it is a PVH guest already", "there is nothing to do")
    else:
        yield Finding("warning", "type", "PV: slower than PVH, and left by everybody", "PVH")
    if isinstance(boot, Pygrub):
        yield Finding(
            "warning",
            "bootloader",
            "pygrub reads the guest's disk as dom0's root: whoever is root in the guest can become "
            "root of this host (XSA-508)",
            "GRUB in the guest's own memory",
            code="pygrub",
        )
    elif isinstance(boot, Grub):
        yield Finding(
            "warning", "kernel", "GRUB for PV guests unpacks no zstd kernel", "GRUB for PVH guests"
        )
    if not domain.disks:
        yield Finding("error", "disk", "it has no disk", "name its disks")


def _find_disk_trouble(old: OldGuest) -> Iterator[Finding]:
    forms: dict[str, list[str]] = {}
    for entry, disk in zip(string_list(old.values, "disk"), old.domain.disks, strict=True):
        if prefix := _PREFIX.match(entry):
            forms.setdefault(prefix[1], []).append(disk.vdev)
        if node_of(disk.vdev) != f"/dev/{disk.vdev}":
            name = node_of(disk.vdev).removeprefix("/dev/")
            what = "no disk of a PVH guest is called so"
            yield Finding("warning", disk.vdev, what, f"{name}, in fstab too")
    for prefix_text, vdevs in forms.items():
        what = f"{prefix_text} before the path of {', '.join(vdevs)} is xm's form"
        yield Finding("warning", "disk", what, "format=raw, vdev=, target=")


def _find_keys(old: OldGuest, xen: str) -> Iterator[Finding]:
    for line in check_keys(old.values, target="xl", xen=xen):
        key, _, why = line.partition(": ")
        yield Finding("warning", key, why, "it stays as it is")


def modern_disks(domain: Domain) -> tuple[Disk, ...]:
    """The disks with the names that a PVH guest has for them. Raises UsageError for a clash."""
    named = [(node_of(disk.vdev).removeprefix("/dev/"), disk) for disk in domain.disks]
    taken = [vdev for vdev, _ in named]
    for vdev, disk in named:
        if taken.count(vdev) > 1:
            raise UsageError(
                f"{domain.name}: {disk.vdev} and another disk would both be {vdev}",
                hint="give one of them another name in the configuration",
            )
    return tuple(replace(disk, vdev=vdev) for vdev, disk in named)


def find_kernel_trouble(boot: Direct) -> Iterator[Finding]:
    """Whether a PVH domain can enter the kernel of this host that it boots, and finds its disk."""
    named = [Path(boot.kernel), *([Path(boot.ramdisk)] if boot.ramdisk else [])]
    for path in named:
        if not path.is_file() or path.stat().st_size > MOST_BOOT_FILE:
            why = "too long for one" if path.is_file() else "gone"
            yield Finding("error", "kernel", f"{path} is {why}", "put it back")
            return
    contents = [path.read_bytes() for path in named]
    files = judge_files(contents[0], contents[1] if contents[1:] else b"")
    hint = "name a newer kernel with its initrd, as kernel= and ramdisk="
    for fault in files.faults:
        yield Finding("warning", "kernel", f"{boot.kernel}: {fault}", "its proof will tell")
    notes = files.kernel.elf_notes if files.kernel else None
    if notes is not None and "PHYS32_ENTRY" not in notes:
        what = "has no PHYS32_ENTRY note: a PVH domain cannot enter it"
        yield Finding("error", "kernel", f"{boot.kernel} {what}", hint, code="no-pvh-note")
    modules = files.initrd_modules
    if modules is not None and not modules & {"xen_blkfront", "xenblk"}:
        what = "has no xen-blkfront; where the kernel has it not built in, no disk appears"
        yield Finding("warning", "ramdisk", f"{boot.ramdisk} {what}", hint, code="no-blkfront")
