"""Which guest runs with which kernel under which Xen: the old administrators' matrix, kept up.

Each rule is a row of docs/compatibility.md, which is made from them. Sources: changelogs of Linux
2.6.32 (devtmpfs), 4.11 (PVH) and 5.9 (no 32-bit PV); NEWS of glibc 2.20 and 2.26 and of systemd 258
and 259; xen-command-line (pv=, cet=); Xen 3.3's release notes (bzImage); Debian's kernel changelog
(LEGACY_VSYSCALL_NONE in 4.8); for etch and lenny on each other's hosts, administrators' notes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline import ROOT
from pipeline.spec import Spec

_INTRODUCTION = """\
What does not go together, or not by itself: a build that would end in such a guest is refused
before it begins (*stops*), or says so (*warns*). Made by `python -m pipeline.compatibility
--write`; the rules and their sources are in pipeline/compatibility.py. The kernel's version is
read from its name. A build also tries whether this machine answers vsyscalls (releases up to
wheezy, amd64) and starts i386 programs, by starting some; it names the package of a keyring that
is missing, and what a release's age means today (`doit suites`)."""
PAGE = ROOT / "docs/compatibility.md"
Level = Literal["stops", "warns"]
_SHIPPED = {"etch": 18, "lenny": 26, "squeeze": 32}  # Linux 2.6.N


@dataclass(frozen=True)
class Finding:
    """One thing found: `stops` the build, or is only worth a line; `key` is the spec's."""

    level: Level
    key: str
    text: str
    hint: str = ""


@dataclass(frozen=True)
class Case:
    """A spec with the versions of its kernel and of its Xen."""

    spec: Spec
    linux: tuple[int, ...]
    xen: tuple[int, ...]

    @property
    def is_32_bit_pv(self) -> bool:
        """PV on i386."""
        return self.spec.arch == "i386" and self.spec.type == "pv"

    @property
    def lacks_pae(self) -> bool:
        """A kernel package for PCs without PAE, by its name."""
        name = self.spec.kernel
        return bool(re.search(r"-(486|586|686)$", name)) and "xen" not in name

    @property
    def oldest_linux(self) -> tuple[int, ...]:
        """What its glibc asks for: 3.2 from 2.26 on (buster), 2.6.32 from 2.20 on (stretch)."""
        own = self.spec.suite_facts.kernel_version
        if own >= (4, 19):
            return (3, 2)
        return (2, 6, 32) if own >= (4, 9) else (2, 6)


@dataclass(frozen=True)
class Rule:
    """A combination that does not work, or not by itself: guest, kernel and Xen as a person says.

    `text` may name {linux}, {suite}, {kernel} and {xen} of the spec that it `fits`.
    """

    guest: str
    kernel: str
    xen: str
    fits: Callable[[Case], bool]
    level: Level
    key: str
    text: str
    hint: str


RULES: tuple[Rule, ...] = (
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
        fits=lambda case: case.spec.type == "pvh" and case.linux < (4, 11),
        level="stops",
        key="type",
        text="Linux {linux} cannot start as PVH (4.11 can)",
        hint="use type=pv",
    ),
    Rule(
        *("stretch and later (glibc 2.20)", "before 2.6.32; buster and later: before 3.2", "any"),
        fits=lambda case: case.linux < case.oldest_linux,
        level="stops",
        key="kernel",
        text='the C library of {suite} stops on Linux {linux} ("FATAL: kernel too old")',
        hint="name a newer kernel",
    ),
    Rule(
        *("forky, sid with systemd (258 and later)", "before Linux 5.10", "any"),
        fits=lambda case: (
            case.spec.suite in ("forky", "sid")
            and case.spec.init == "systemd"
            and case.linux < (5, 10)
        ),
        level="warns",
        key="kernel",
        text="systemd of {suite} no longer supports Linux {linux}",
        hint="name a newer kernel",
    ),
    Rule(
        *("wheezy and older, amd64", "Debian's 4.8 and later", "any"),
        fits=lambda case: (
            case.spec.suite_facts.needs_vsyscall
            and case.spec.arch == "amd64"
            and case.linux >= (4, 8)
            and "vsyscall=" not in case.spec.cmdline
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
        fits=lambda case: case.spec.type == "pv" and case.xen < (3, 3) and case.linux >= (2, 6, 32),
        level="stops",
        key="xen",
        text="Xen {xen} loads no bzImage, which every kernel from squeeze on is (3.3 does)",
        hint="upgrade dom0, or take lenny's kernel",
    ),
    Rule(
        *("ext4, booted by pygrub", "inside the guest", "before 4.0"),
        fits=lambda case: (
            case.spec.boot == "pygrub" and case.spec.fs == "ext4" and case.xen < (4, 0)
        ),
        level="stops",
        key="fs",
        text="pygrub of Xen {xen} reads no ext4",
        hint="write fs=ext3",
    ),
    Rule(
        *("any", "before 2.6.32, with the initrd that is made here", "any"),
        fits=lambda case: (
            not (case.spec.is_kernel_inside or case.spec.initrd) and case.linux < (2, 6, 32)
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


def find_incompatible(spec: Spec, host_linux: tuple[int, ...] = ()) -> Iterator[Finding]:
    """Every rule that a spec breaks; `host_linux` is the version behind kernel=host."""
    is_hosts = spec.kernel_source == "host" and host_linux
    linux = host_linux if is_hosts else spec.linux
    if linux == (2, 6):  # the package's name does not say more
        linux = (2, 6, _SHIPPED.get(spec.suite, 32))
    case = Case(spec, linux, tuple(int(part) for part in spec.xen.split(".")))
    words = {
        "linux": ".".join(map(str, linux)),
        "suite": spec.suite,
        "kernel": spec.kernel,
        "xen": spec.xen,
    }
    for rule in RULES:
        if rule.fits(case):
            yield Finding(rule.level, rule.key, rule.text.format(**words), rule.hint)


def render_page() -> str:
    """docs/compatibility.md."""
    lines = [
        "# Guest, kernel, Xen",
        "",
        *_INTRODUCTION.splitlines(),
        "",
        "| guest | kernel | Xen | | what happens | what to do |",
        "|---|---|---|---|---|---|",
    ]
    shown = {"linux": "N", "suite": "that release", "kernel": "such a kernel", "xen": "N"}
    for rule in RULES:
        text = rule.text.format(**shown)
        lines.append(
            f"| {rule.guest} | {rule.kernel} | {rule.xen} | {rule.level} | {text} | {rule.hint} |"
        )
    lines += ["", "What is known to work:", "", "| guest | kernel | Xen |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in WORKS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(render_page())
    else:
        sys.stdout.write(render_page())
