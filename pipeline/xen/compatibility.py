"""Which guest runs with which kernel under which Xen: the old administrators' matrix, kept up.

Each rule is a row of docs/reference/compatibility.md, which is made from them. Sources: changelogs
of Linux 2.6.32 (devtmpfs), 4.11 (PVH) and 5.9 (no 32-bit PV); NEWS of glibc 2.20 and 2.26 and of
systemd 258 and 259; xen-command-line (pv=, cet=); Xen 3.3's release notes (bzImage); the tags of
Xen's bzImage loader; the modules of Debian's GRUB 2.06 and 2.12; Debian's kernel changelog
(LEGACY_VSYSCALL_NONE in 4.8); for etch and lenny on each other's hosts, administrators' notes.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import Finding
from pipeline.suites import Suite
from pipeline.xen.domain import Direct, Domain, Firmware, Grub, Pygrub
from pipeline.xen.values import Unsupported, Version, parse_version

# the first Xen that has it; a key of a configuration ends with =
SINCE: dict[str, Version] = {
    "xl": (4, 2),
    "pvh": (4, 10),
    "type=": (4, 10),
    "firmware=": (4, 10),
    "hvm direct": (4, 5),
    "hdtype=": (4, 7),
    "bios_path_override=": (4, 9),
    "mtu=": (4, 16),
    "vlan=": (4, 19),
    "restricted pygrub": (4, 17),  # of older ones some have it, if their updates are in
    "bootloader_user=": (4, 18),
    "pv grub": (3, 3),
    "grub 2": (4, 0),
    "coredump": (3, 3),
}
# compression of a kernel to the first Xen whose domain builder unpacks it
UNPACKED_SINCE: dict[str, Version] = {
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
# libfsimage's; its xfs is that of before 2015, without checksums
PYGRUB_READS = ("ext2", "ext3", "ext4", "reiserfs", "vfat", "iso9660", "ufs", "zfs")

# `refused`: no such domain can be, whoever builds it; `stops`: no build for now; `warns`: a line
Level = Literal["refused", "stops", "warns"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A guest as far as it is known: of what is empty here, no rule says anything.

    `boot` is direct, pygrub, grub or firmware, `loader` the path of a GRUB, `linux` the version of
    the kernel and `kernel` its name, `compression` that of its payload; `xl_keys` are keys of cards
    and disks that not every xl knows; `has_our_initrd`: the initial ramdisk is one of ours.
    """

    type: str
    boot: str
    xen: Version
    loader: str = ""
    arch: str = ""
    suite: Suite | None = None
    init: str = ""
    fs: str = ""
    kernel: str = ""
    linux: tuple[int, ...] = ()
    compression: str = ""
    cmdline: str = ""
    on_crash: str = ""
    xl_keys: frozenset[str] = frozenset()
    has_our_initrd: bool = False

    @property
    def is_32_bit_pv(self) -> bool:
        """PV on i386."""
        return self.arch == "i386" and self.type == "pv"

    @property
    def lacks_pae(self) -> bool:
        """A kernel package for PCs without PAE, by its name."""
        return bool(re.search(r"-(486|586|686)$", self.kernel)) and "xen" not in self.kernel

    @property
    def oldest_linux(self) -> tuple[int, ...]:
        """What its glibc asks for: 3.2 from 2.26 on (buster), 2.6.32 from 2.20 on (stretch)."""
        own = self.suite.kernel_version if self.suite else ()
        if own >= (4, 19):
            return (3, 2)
        return (2, 6, 32) if own >= (4, 9) else (2, 6)


@dataclass(frozen=True)
class Rule:
    """A combination that does not work, or not by itself: guest, kernel and Xen as a person says.

    `text` and `hint` may name what find_broken knows of the case that it `fits`, as {linux}; `key`
    is a key of the spec, `code` what the lint calls it.
    """

    guest: str
    kernel: str
    xen: str
    fits: Callable[[Case], bool]
    level: Level
    key: str
    text: str
    hint: str
    code: str = ""


def before(feature: str, xen: Version) -> bool:
    """Whether this Xen is older than the first that has the feature of SINCE."""
    return xen < SINCE[feature]


RULES: tuple[Rule, ...] = (
    Rule(
        *("PVH", "any", "before 4.10"),
        fits=lambda case: case.type == "pvh" and before("pvh", case.xen),
        level="refused",
        key="type",
        text="Xen {xen} has no PVH guests",
        hint="write pv, or xen = '4.10'",
    ),
    Rule(
        *("HVM, kernel given directly", "any", "before 4.5"),
        fits=lambda case: (
            (case.type, case.boot) == ("hvm", "direct") and before("hvm direct", case.xen)
        ),
        level="refused",
        key="boot",
        text="Xen {xen} has no direct boot of a PC",
        hint="write boot = 'firmware', or xen = '4.5'",
    ),
    *(
        Rule(
            *(f"any, with {key}=", "any", f"before {SINCE[f'{key}='][0]}.{SINCE[f'{key}='][1]}"),
            fits=lambda case, key=key: key in case.xl_keys and before(f"{key}=", case.xen),  # type: ignore[misc]
            level="refused",
            key=key,
            text=f"Xen {{xen}} does not know {key}=,"
            f" {SINCE[f'{key}='][0]}.{SINCE[f'{key}='][1]} does",
            hint="leave it out",
        )
        for key in ("mtu", "vlan", "hdtype", "bios_path_override")
    ),
    Rule(
        *("any, on_crash = coredump-...", "any", "before 3.3"),
        fits=lambda case: case.on_crash.startswith("coredump-") and before("coredump", case.xen),
        level="refused",
        key="on_crash",
        text="on_crash {on_crash}: xm of Xen {xen} does not know it",
        hint="write destroy, restart or preserve",
    ),
    Rule(
        *("PV, booted by PV GRUB", "inside the guest", "before 3.3"),
        fits=lambda case: case.boot == "grub" and before("pv grub", case.xen),
        level="refused",
        key="boot",
        text="PV GRUB: it came with Xen 3.3, this is {xen}",
        hint="write pygrub or direct",
    ),
    Rule(
        *("any, booted by GRUB 2 for Xen", "inside the guest", "before 4.0"),
        fits=lambda case: (
            case.boot == "grub"
            and "pv-grub" not in case.loader
            and not before("pv grub", case.xen)
            and before("grub 2", case.xen)
        ),
        level="refused",
        key="boot",
        text="GRUB 2 for Xen does not run under Xen {xen}",
        hint="write pygrub or direct",
    ),
    Rule(
        *(
            "PV, booted by GRUB",
            "LZ4 (bookworm's cloud kernel), zstd (trixie, noble), bzip2",
            "any",
        ),
        fits=lambda case: (
            (case.type, case.boot) == ("pv", "grub")
            and case.compression not in ("", "unknown", *UNPACKED_BY_PV_GRUB)
        ),
        level="refused",
        key="kernel",
        text="PV GRUB cannot unpack a kernel compressed with {compression}",
        hint="{or_generic}leave type out (PVH, whose GRUB starts every kernel), or boot=direct",
        code="compression-loader",
    ),
    Rule(
        *("xfs, btrfs, booted by pygrub", "inside the guest", "any"),
        fits=lambda case: case.boot == "pygrub" and case.fs not in ("", *PYGRUB_READS),
        level="refused",
        key="fs",
        text="pygrub cannot read {fs}",
        hint="write ext4, or boot = 'grub'",
        code="pygrub-file-system",
    ),
    Rule(
        *("any, booted by pygrub", "inside the guest", "before 4.17"),
        fits=lambda case: case.boot == "pygrub" and before("restricted pygrub", case.xen),
        level="warns",
        key="boot",
        text="pygrub of Xen {xen} runs as root: a guest can take over its host (XSA-508)",
        hint="take xen = '4.17', where it is restricted, boot = 'direct', or type = 'pvh' with "
        "boot = 'grub'",
    ),
    Rule(
        *("i386, PV", "Linux 5.9 and later", "any"),
        fits=lambda case: case.is_32_bit_pv and case.linux >= (5, 9),
        level="stops",
        key="type",
        text="Linux {linux} has no 32-bit PV guests any more (5.9 removed them)",
        hint="use type=pvh or hvm, or arch=amd64",
    ),
    Rule(
        *("i386, PV", "486, 586, 686 without -pae, -bigmem, -xen", "any"),
        fits=lambda case: case.is_32_bit_pv and case.lacks_pae,
        level="stops",
        key="kernel",
        text="{kernel} has no PAE, which a 32-bit PV guest needs",
        hint="name its -pae, -bigmem or -xen package",
    ),
    Rule(
        *("i386, PV", "any", "4.14 and later"),
        fits=lambda case: case.is_32_bit_pv and case.xen >= (4, 14),
        level="warns",
        key="type",
        text="Xen {xen} refuses 32-bit PV guests where it uses the processor's shadow stacks",
        hint="boot Xen with cet=no-shstk there, or use type=pvh or hvm if the kernel can",
    ),
    Rule(
        *("PVH", "before Linux 4.11", "any"),
        fits=lambda case: case.type == "pvh" and () < case.linux < (4, 11),
        level="stops",
        key="type",
        text="Linux {linux} cannot start as PVH (4.11 can)",
        hint="use type=pv",
    ),
    Rule(
        *("stretch and later (glibc 2.20)", "before 2.6.32; buster and later: before 3.2", "any"),
        fits=lambda case: () < case.linux < case.oldest_linux,
        level="stops",
        key="kernel",
        text='the C library of {suite} stops on Linux {linux} ("FATAL: kernel too old")',
        hint="name a newer kernel",
    ),
    Rule(
        *("forky, sid with systemd (258 and later)", "before Linux 5.10", "any"),
        fits=lambda case: (
            case.suite is not None
            and case.suite.name in ("forky", "sid")
            and case.init == "systemd"
            and () < case.linux < (5, 10)
        ),
        level="warns",
        key="kernel",
        text="systemd of {suite} no longer supports Linux {linux}",
        hint="name a newer kernel",
    ),
    Rule(
        *("wheezy and older, amd64", "Debian's 4.8 and later", "any"),
        fits=lambda case: (
            case.suite is not None
            and case.suite.needs_vsyscall
            and case.arch == "amd64"
            and case.linux >= (4, 8)
            and "vsyscall=" not in case.cmdline
        ),
        level="warns",
        key="cmdline",
        text="the C library of {suite} makes vsyscalls, which Debian's Linux {linux} answers with "
        "a crash",
        hint='write cmdline = "vsyscall=emulate"',
    ),
    Rule(
        *("lenny", "lenny's 2.6.26", "3.0 (etch's dom0)"),
        fits=lambda case: case.xen < (3, 1) and (2, 6, 26) <= case.linux < (2, 6, 32),
        level="warns",
        key="xen",
        text="a guest with lenny's kernel is not known to start under etch's Xen 3.0",
        hint="keep etch's kernel 2.6.18 and its modules in the guest, or upgrade dom0 first",
    ),
    Rule(
        *("any, PV", "squeeze's 2.6.32 and later", "before 3.3"),
        fits=lambda case: case.type == "pv" and case.xen < (3, 3) and case.linux >= (2, 6, 32),
        level="stops",
        key="xen",
        text="Xen {xen} loads no bzImage, which every kernel from squeeze on is (3.3 does)",
        hint="upgrade dom0, or take lenny's kernel",
    ),
    Rule(
        *(
            "PV or PVH, direct or by pygrub",
            "bzip2, lzma, lzo, xz, lz4, zstd",
            "before 4.0, 4.0, 4.1, 4.2, 4.4, 4.15",
        ),
        fits=lambda case: (
            case.boot in ("direct", "pygrub")
            and case.xen < UNPACKED_SINCE.get(case.compression, (0, 0))
        ),
        level="stops",
        key="xen",
        text="Xen {xen} cannot unpack a kernel compressed with {compression}; {unpacked} and later"
        " can",
        hint="take a kernel with an older compression, a newer Xen, or boot=grub with type=pvh",
        code="compression-loader",
    ),
    Rule(
        *("ext4, booted by pygrub", "inside the guest", "before 4.0"),
        fits=lambda case: case.boot == "pygrub" and case.fs == "ext4" and case.xen < (4, 0),
        level="stops",
        key="fs",
        text="pygrub of Xen {xen} reads no ext4",
        hint="write fs=ext3",
    ),
    Rule(
        *("any", "before 2.6.32, with the initrd that is made here", "any"),
        fits=lambda case: (
            case.boot == "direct" and case.has_our_initrd and () < case.linux < (2, 6, 32)
        ),
        level="stops",
        key="kernel",
        text="Linux {linux} has no devtmpfs, on which the initrd that is made here relies",
        hint="give dom0's files: kernel=/boot/vmlinuz-ABI initrd=/boot/initrd.img-ABI",
    ),
)
# what works, for the page: the notes say so, or the rules' tests
WORKS = (
    ("etch", "etch's 2.6.18, lenny's 2.6.26", "3.2 (lenny's dom0): keep the kernel in dom0"),
    ("lenny", "etch's 2.6.18", "3.0, 3.2: keep linux-modules-2.6.18-*-xen in the guest"),
    ("etch, lenny, squeeze; i386, PV", "their own", "3.2 to 4.x without shadow stacks"),
    ("bullseye and later; amd64", "their own", "4.14 and later: PV, PVH, HVM"),
)


def case_of(domain: Domain, xen: str) -> Case:
    """What a domain's own configuration tells."""
    boot = domain.boot
    kinds = {Direct: "direct", Pygrub: "pygrub", Grub: "grub", Firmware: "firmware"}
    keys = {key for card in domain.cards for key in ("mtu", "vlan") if getattr(card, key)}
    keys |= {"hdtype"} if isinstance(boot, Firmware) and boot.hdtype != "ide" else set()
    is_given = domain.type == "hvm" and isinstance(boot, Firmware) and boot.path
    keys |= {"bios_path_override"} if is_given else set()
    return Case(
        type=domain.type,
        boot=kinds[type(boot)],
        xen=parse_version(xen),
        loader=boot.kernel if isinstance(boot, Grub) else "",
        on_crash=domain.on_crash,
        xl_keys=frozenset(keys),
    )


def find_broken(case: Case, *levels: Level) -> Iterator[Finding]:
    """Every rule of these levels that a case breaks."""
    unpacked = UNPACKED_SINCE.get(case.compression, ())
    words = {
        "linux": ".".join(map(str, case.linux)),
        "suite": case.suite.name if case.suite else "",
        "kernel": case.kernel,
        "or_generic": _offer_generic(case.suite, case.arch),
        "compression": case.compression,
        "unpacked": ".".join(map(str, unpacked)),
        "fs": case.fs,
        "on_crash": case.on_crash,
        "xen": ".".join(map(str, case.xen)),
    }
    for rule in RULES:
        if rule.level in levels and rule.fits(case):
            level: Literal["warning", "error"] = "warning" if rule.level == "warns" else "error"
            yield Finding(
                level,
                rule.key,
                rule.text.format(**words),
                rule.hint.format(**words),
                code=rule.code,
            )


def _offer_generic(suite: Suite | None, arch: str) -> str:
    """The suite's generic kernel, where PV GRUB unpacks that one."""
    generic = suite.generic_kernel(arch) if suite else ""
    can = suite and suite.compression_of(generic, arch) in UNPACKED_BY_PV_GRUB
    return f"take {generic}, or " if can else ""


def refuse(case: Case) -> None:
    """Unsupported for the first rule that this case breaks whoever builds it."""
    for finding in find_broken(case, "refused"):
        raise Unsupported(finding.message, finding.hint, key=finding.subject)
