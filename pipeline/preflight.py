"""What would make a build or the guest fail, found before anything is fetched.

Facts: Linux 5.9's removal of 32-bit PV guests and 4.11's PVH entry (its changelogs), glibc's NEWS
for the oldest kernel it runs on, kernel-parameters.txt for vsyscall=.
"""

from __future__ import annotations

import platform
import re
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from pipeline import command
from pipeline.archive.keyring import choose_keyring
from pipeline.archive.mirrors import HOST, find_archive
from pipeline.errors import CommandFailed, EnvironmentFault
from pipeline.progress import print_line
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.suites import describe_age

_PAGE = 0x400000
# sub rsp,16; mov rdi,rsp; xor esi,esi; mov rax,0xffffffffff600000; call rax; exit(0)
_CALL = bytes.fromhex("4883ec10 4889e7 31f6 48c7c0000060ff ffd0 31ff b83c000000 0f05")
_LINUX = re.compile(r"vmlinuz-(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Finding:
    """One thing found: `stops` the build, or is only worth a line; `key` is the spec's."""

    level: Literal["stops", "warns"]
    key: str
    text: str
    hint: str = ""


@dataclass(frozen=True)
class Machine:
    """What the build host can do; asked for lazily, so tests can say otherwise."""

    arch: str
    has_vsyscall: Callable[[], bool]
    today: date

    @classmethod
    def here(cls) -> Machine:
        """This machine."""
        return cls(platform.machine(), has_vsyscall, datetime.now(UTC).date())


def has_vsyscall() -> bool:
    """Whether this kernel still answers the call that C libraries before 2.14 make.

    It is made, by a program of 30 bytes: neither the command line nor /proc/PID/maps tells whether
    an emulated page works.
    """
    with tempfile.TemporaryDirectory(prefix="vsyscall-") as folder:
        program = Path(folder) / "probe"
        program.write_bytes(probe_program())
        program.chmod(0o700)
        try:
            command.run([program])
        except CommandFailed:
            return False
    return True


def probe_program() -> bytes:
    """An ELF program for x86-64 that calls gettimeofday at its vsyscall address and exits."""
    size = 64 + 56 + len(_CALL)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    entry = _PAGE + 64 + 56
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _PAGE, _PAGE, size, size, 0x1000)
    return ident + header + segment + _CALL


def look_ahead(spec: Spec, project: Project, machine: Machine | None = None) -> list[Finding]:
    """Everything that can be told about a guest's build on this machine; changes nothing."""
    machine = machine or Machine.here()
    return [
        *_about_age(spec, machine),
        *_about_machine(spec, machine),
        *_about_keyring(spec, project),
        *_about_kernel(spec),
    ]


def require_feasible(spec: Spec, project: Project) -> None:
    """EnvironmentFault with all that stops this build; what only warns is printed."""
    found = look_ahead(spec, project)
    stops = [one for one in found if one.level == "stops"]
    for one in found:
        if one.level == "warns":
            print_line(f"     {spec.name}: {one.key}: {one.text}")
    if not stops:
        return
    first = stops[0]
    details = "" if len(stops) == 1 else "\n".join(f"{one.key}: {one.text}" for one in stops)
    raise EnvironmentFault(f"{first.key}: {first.text}", details=details, hint=first.hint)


def _about_age(spec: Spec, machine: Machine) -> Iterator[Finding]:
    note = describe_age(spec.suite_facts, machine.today)
    if note and (spec.mirror == HOST or not spec.suite_facts.is_archived):
        yield Finding("warns", "suite", f"{spec.suite}: {note}")


def _about_machine(spec: Spec, machine: Machine) -> Iterator[Finding]:
    if spec.arch == "amd64" and machine.arch not in ("x86_64", "amd64"):
        yield Finding(
            "stops", "arch", f"an amd64 guest cannot be built on {machine.arch}", "use arch=i386"
        )
    elif spec.suite_facts.needs_vsyscall and spec.arch == "amd64" and not machine.has_vsyscall():
        yield Finding(
            "stops",
            "suite",
            f"the C library of {spec.suite} makes vsyscalls, which this machine's kernel answers "
            "with a crash (tried)",
            "boot the build host with vsyscall=emulate, or build arch=i386",
        )


def _about_keyring(spec: Spec, project: Project) -> Iterator[Finding]:
    archive = find_archive(spec, project.mirrors)
    keyring = choose_keyring(spec, archive.keyring)
    package = spec.suite_facts.keyring_package
    is_given = bool(spec.keyring or archive.keyring)
    if keyring.is_file() or (package == "ubuntu-keyring" and not is_given):
        return
    hint = "correct keyring=" if is_given else f"apt-get install {package}, or give keyring="
    yield Finding("stops", "keyring", f"{keyring}: no such file", hint)


def _about_kernel(spec: Spec) -> Iterator[Finding]:
    """Guest, kernel and Xen together: what used to be found out at the console."""
    suite, linux = spec.suite_facts, _linux_of(spec)
    if spec.arch == "i386" and spec.type == "pv" and linux >= (5, 9):
        yield Finding(
            "stops",
            "type",
            f"Linux {_show(linux)} has no 32-bit PV guests any more (5.9 removed them)",
            "use type=pvh or hvm, or arch=amd64",
        )
    if spec.type == "pvh" and linux < (4, 11):
        yield Finding(
            "stops", "type", f"Linux {_show(linux)} cannot start as PVH (4.11 can)", "use type=pv"
        )
    is_bare = re.search(r"-(486|586|686)$", spec.kernel) and "xen" not in spec.kernel
    if spec.arch == "i386" and spec.type == "pv" and is_bare:
        yield Finding(
            "stops",
            "kernel",
            f"{spec.kernel} has no PAE, which a 32-bit PV guest needs",
            "name its -pae, -bigmem or -xen package",
        )
    oldest = _oldest_linux(suite.kernel_version)
    if linux < oldest:
        yield Finding(
            "stops",
            "kernel",
            f"the C library of {spec.suite} needs Linux {_show(oldest)}, this is {_show(linux)} "
            '("FATAL: kernel too old")',
            "name a newer kernel",
        )
    if spec.suite == "etch" and spec.kernel_source != "package" and linux >= (2, 6, 26):
        yield Finding(
            "warns", "kernel", "its console is hvc0, etch's own is tty1: check the getty lines"
        )


def _linux_of(spec: Spec) -> tuple[int, ...]:
    """The version of Linux, from the file's name where there is one, else the suite's."""
    name = platform.release() if spec.kernel_source == "host" else Path(spec.kernel).name
    match = _LINUX.match(name if name.startswith("vmlinuz-") else f"vmlinuz-{name}")
    if spec.kernel_source == "package" or match is None:
        return spec.suite_facts.kernel_version
    return tuple(int(part) for part in match.groups() if part)


def _oldest_linux(suites_own: tuple[int, int]) -> tuple[int, ...]:
    """What glibc asks for: 3.2 from 2.26 on (buster, 4.19), 2.6.32 from 2.20 on (stretch, 4.9)."""
    if suites_own >= (4, 19):
        return (3, 2)
    return (2, 6, 32) if suites_own >= (4, 9) else (2, 6)


def _show(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
