"""Keys that do not go together: each check looks at one subject of a spec whose values are good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.spec.check_disks import find_disk_clashes
from pipeline.spec.check_network import find_card_clashes
from pipeline.spec.clashes import Clash
from pipeline.xen.boot import HVM_DIRECT_SINCE, grub_domain_type
from pipeline.xen.devices import MTU_SINCE

if TYPE_CHECKING:
    from pipeline.spec.model import Spec

__all__ = ["Clash", "ClashError", "find_clashes"]

_BOOTS = {
    "pv": ("direct", "pygrub", "grub"),
    "pvh": ("direct", "pygrub", "grub"),
    "hvm": ("direct", "firmware"),
}


@dataclass
class ClashError(ValueError):
    """Every clash of a spec, as pydantic wants it: one ValueError."""

    found: list[Clash]

    def __str__(self) -> str:
        return "; ".join(f"{clash.key}: {clash.message}" for clash in self.found)


def find_clashes(spec: Spec) -> Iterator[Clash]:
    """All clashes of a spec."""
    for check in CHECKS:
        yield from check(spec)


def check_names(spec: Spec) -> Iterator[Clash]:
    """The host name against the domain."""
    _, _, rest = spec.hostname.partition(".")
    if rest and spec.domain and rest != spec.domain:
        yield Clash(
            "domain",
            f"'{spec.domain}' is not the domain of hostname '{spec.hostname}'",
            f"leave domain out, or write hostname = '{spec.short_hostname}'",
            ("hostname",),
        )


def check_release(spec: Spec) -> Iterator[Clash]:
    """Init, architecture and file system against what the suite has."""
    suite = spec.suite_facts
    if spec.init not in suite.inits:
        inits = " or ".join(suite.inits)
        yield Clash("init", f"{spec.suite} has no {spec.init}", f"write {inits}", ("suite",))
    if not spec.kernel:
        yield Clash(
            "arch",
            f"{spec.suite} has no kernel for {spec.arch}",
            f"write {', '.join(suite.kernels)}",
            ("suite",),
        )
    if spec.fs not in suite.filesystems:
        known = ", ".join(suite.filesystems)
        yield Clash("fs", f"{spec.suite} cannot mount {spec.fs}", f"write {known}", ("suite",))


def check_kernel_files(spec: Spec) -> Iterator[Clash]:
    """initrd and modules belong to a kernel given as a path."""
    for key in ("initrd", "modules"):
        if getattr(spec, key) and spec.kernel_source != "files":
            yield Clash(
                key,
                f"a path of its own needs a kernel that is a path, not '{spec.kernel}'",
                f"write kernel = the path of its vmlinuz, or leave {key} out",
                ("kernel",),
            )


def check_boot(spec: Spec) -> Iterator[Clash]:
    """The way to boot against the kind of guest and where the kernel is."""
    if spec.boot not in _BOOTS[spec.type]:
        known = ", ".join(_BOOTS[spec.type])
        yield Clash(
            "boot", f"a {spec.type} guest cannot boot by {spec.boot}", f"write {known}", ("type",)
        )
    if spec.boot == "firmware" and spec.suite_facts.has_old_tools:
        yield Clash(
            "boot",
            f"{spec.suite} has no GRUB 2 that a PC's firmware could start",
            "write boot = 'direct', or a suite from squeeze on",
            ("suite",),
        )
    if spec.boot != "direct" and spec.kernel_source != "package":
        yield Clash(
            "kernel",
            f"boot = '{spec.boot}' takes the kernel inside the guest, not '{spec.kernel}'",
            "name a kernel package, or write boot = 'direct'",
            ("boot",),
        )
    if spec.boot == "pygrub" and spec.fs in ("xfs", "btrfs"):
        yield Clash(
            "fs", f"pygrub cannot read {spec.fs}", "write ext4, or boot = 'grub'", ("boot",)
        )
    if spec.boot == "grub" and spec.type == "pv" and "-cloud-" in spec.kernel:
        yield Clash(
            "kernel",
            f"PV GRUB cannot unpack the LZ4 of {spec.kernel}",
            f"write kernel = '{spec.suite_facts.generic_kernel(spec.arch)}'",
            ("boot", "type"),
        )
    if spec.bootloader and spec.boot == "grub" and grub_domain_type(spec.bootloader) != spec.type:
        yield Clash(
            "bootloader",
            f"{spec.bootloader} is not the name of a GRUB for {spec.type} guests",
            "write it as /usr/lib/grub-xen/grub-x86_64-xen.bin, or leave it out",
            ("boot", "type"),
        )
    if spec.bootloader and spec.boot not in ("pygrub", "grub"):
        yield Clash(
            "bootloader", f"unused with boot = '{spec.boot}'", "write boot = 'pygrub'", ("boot",)
        )


def check_xen(spec: Spec) -> Iterator[Clash]:
    """What the target Xen does not know."""
    version = tuple(int(part) for part in spec.xen.split("."))
    if spec.type == "pvh" and version < (4, 10):
        yield Clash(
            "type", f"Xen {spec.xen} has no PVH guests", "write pv, or xen = '4.10'", ("xen",)
        )
    if (spec.type, spec.boot) == ("hvm", "direct") and version < HVM_DIRECT_SINCE:
        hint = "write boot = 'firmware', or xen = '4.5'"
        yield Clash("boot", f"Xen {spec.xen} has no direct boot of a PC", hint, ("xen", "type"))
    for index, card in enumerate(spec.cards):
        if card.mtu is not None and version < MTU_SINCE:
            key = f"interfaces[{index - 1}].mtu" if index else "mtu"
            yield Clash(
                key, f"Xen {spec.xen} does not know it, 4.16 does", "leave it out", ("xen",)
            )
    if version < (4, 0):
        if spec.on_crash.startswith("coredump-"):
            yield Clash("on_crash", f"xend of Xen {spec.xen} has no {spec.on_crash}", "", ("xen",))
        if spec.boot == "grub":
            yield Clash(
                "boot",
                f"GRUB 2 for Xen does not run under Xen {spec.xen}",
                "write pygrub or direct",
                ("xen",),
            )


def check_resources(spec: Spec) -> Iterator[Clash]:
    """Memory and processors."""
    if spec.maxmem_mib < spec.memory_mib:
        yield Clash("maxmem", f"{spec.maxmem} is less than memory = {spec.memory}", "", ("memory",))
    if spec.maxvcpus is not None and spec.maxvcpus < spec.vcpus:
        yield Clash(
            "maxvcpus", f"{spec.maxvcpus} is less than vcpus = {spec.vcpus}", "", ("vcpus",)
        )


def check_screen(spec: Spec) -> Iterator[Clash]:
    """VNC's keys among themselves."""
    if not spec.vnc:
        for key in ("vncdisplay", "vncunused", "vnclisten", "keymap"):
            if getattr(spec, key) not in (None, ""):
                yield Clash(key, "unused without vnc", "write vnc = true too", ("vnc",))
    elif spec.vncdisplay is not None and spec.vncunused:
        yield Clash(
            "vncunused",
            f"asks for any free display although vncdisplay = {spec.vncdisplay}",
            "keep one of the two",
            ("vncdisplay",),
        )


def check_password(spec: Spec) -> Iterator[Clash]:
    """The root password's two forms, and what the suite's crypt() understands."""
    if not spec.root_password_hash:
        return
    if spec.root_password_file:
        yield Clash(
            "root_password_hash",
            "the password is given as a file too",
            "keep one of root_password_file and root_password_hash",
            ("root_password_file",),
        )
    suite = spec.suite_facts
    if not spec.root_password_hash.startswith(suite.hash_prefixes):
        prefix = "$" + spec.root_password_hash.split("$")[1] + "$"
        yield Clash(
            "root_password_hash",
            f"{spec.suite} does not understand a hash that begins with {prefix}",
            f"make it with one of {' '.join(suite.hash_prefixes)}: mkpasswd -m METHOD",
            ("suite",),
        )


CHECKS: tuple[Callable[[Spec], Iterator[Clash]], ...] = (
    *(check_names, check_release, check_kernel_files, check_boot, check_xen),
    *(check_resources, find_disk_clashes, find_card_clashes, check_screen, check_password),
)
