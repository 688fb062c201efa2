"""What would make a build or the guest fail, found before anything is fetched.

Guest, kernel and Xen against one another are in xen/compatibility.py.
"""

import errno
import os
import platform
import re
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Self

from pipeline import process
from pipeline.console.findings import render_table
from pipeline.console.progress import print_line
from pipeline.errors import (
    CommandFailed,
    EnvironmentFault,
    Finding,
    WrongValueError,
    suggest_nearest,
)
from pipeline.files import open_plain
from pipeline.guest.domains import domain_of
from pipeline.mirror.keyrings import choose_keyring
from pipeline.mirror.mirrors import HOST, find_archive
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.spec.devices import Part
from pipeline.spec.domain import refuse_unrenderable
from pipeline.spec.rules import case_of
from pipeline.suites import describe_age
from pipeline.xen import capabilities
from pipeline.xen.compatibility import find_broken

_PAGE = 0x400000
_MIB_OF_32 = 16 << 20  # what 2^32 blocks of 4 KiB are; resize2fs takes one block less
# sub rsp,16; mov rdi,rsp; xor esi,esi; mov rax,0xffffffffff600000; call rax; exit(0)
_EXIT_32 = bytes.fromhex("31c0 40 31db cd80")  # xor eax,eax; inc eax; xor ebx,ebx; int 0x80
_CALL = bytes.fromhex("4883ec10 4889e7 31f6 48c7c0000060ff ffd0 31ff b83c000000 0f05")


_ZONES = Path("/usr/share/zoneinfo/tzdata.zi")
_ZONE = re.compile(r"^(?:Z|L \S+) (\S+)", re.MULTILINE)
_LOCALES = Path("/usr/share/i18n/SUPPORTED")
_BUILT_IN = ("C", "POSIX", "C.UTF-8")
_said: set[str] = set()


@dataclass(frozen=True)
class Machine:
    """What the build host can do; asked for lazily, so tests can say otherwise."""

    arch: str
    has_vsyscall: Callable[[], bool]
    today: date
    runs_32_bit: Callable[[], bool] = lambda: True
    linux: tuple[int, ...] = ()
    xen_caps: tuple[str, ...] = ()

    @classmethod
    def here(cls) -> Self:
        """This machine."""
        numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", platform.release())
        linux = tuple(int(part) for part in numbers.groups() if part) if numbers else ()
        today = datetime.now(UTC).date()
        return cls(platform.machine(), has_vsyscall, today, runs_32_bit, linux, read_xen_caps())


def read_xen_caps(root: Path = Path("/")) -> tuple[str, ...]:
    """What the Xen below this machine runs; empty where there is none, or it does not tell."""
    try:
        return tuple((root / capabilities.PATH).read_text().split())
    except OSError:
        return ()


def has_vsyscall() -> bool:
    """Whether this kernel still answers the call that C libraries before 2.14 make.

    It is made, by a program of 30 bytes: neither the command line nor /proc/PID/maps tells whether
    an emulated page works.
    """
    return _runs(probe_program())


def runs_32_bit() -> bool:
    """Whether this kernel starts i386 programs; tried, too: it can be off at its command line."""
    return _runs(probe_program_32())


def _runs(content: bytes) -> bool:
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        program = Path(folder) / "probe"
        program.write_bytes(content)
        program.chmod(0o700)
        try:
            process.run([program])
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


def probe_program_32() -> bytes:
    """An ELF program for i386 that exits."""
    size = 52 + 32 + len(_EXIT_32)
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    header = struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, _PAGE + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, _PAGE, _PAGE, size, size, 5, 0x1000)
    return ident + header + segment + _EXIT_32


def look_ahead(
    spec: Spec, project: Project, machine: Machine | None = None, *, runs_guest: bool = True
) -> list[Finding]:
    """Everything that can be told about a guest's build on this machine; changes nothing.

    Without `runs_guest` the tree is there already, and none of the guest's programs is run.
    """
    machine = machine or Machine.here()
    return [
        *_about_age(spec, machine),
        *(_about_machine(spec, machine) if runs_guest else ()),
        *_about_xen(spec, machine),
        *_about_keyring(spec, project),
        *_about_elements(project),
        *_about_cd(spec),
        *_about_sizes(spec, project),
        *_about_paths(spec, project),
        *find_broken(case_of(spec, machine.linux), "stops", "warns"),
    ]


def require_feasible(spec: Spec, project: Project) -> None:
    """EnvironmentFault with all that stops this build; what only warns is printed."""
    findings = look_ahead(spec, project)
    for finding in findings:
        hint = f"; {finding.hint}" if finding.hint else ""
        line = f"     {spec.name}: {finding.subject}: {finding.text}{hint}"
        if finding.level == "warning" and line not in _said:  # several stages ask
            _said.add(line)
            print_line(line)
    fault = refusal_of(findings)
    if fault:
        raise fault


def refusal_of(findings: Iterable[Finding]) -> EnvironmentFault | None:
    """One error for everything that stops the build; None when nothing does."""
    stops = [finding for finding in findings if finding.level == "error"]
    if not stops:
        return None
    first = stops[0]
    details = "\n".join(render_table(stops)) if len(stops) > 1 else ""
    return EnvironmentFault(f"{first.subject}: {first.text}", details=details, hint=first.hint)


def _about_age(spec: Spec, machine: Machine) -> Iterator[Finding]:
    note = describe_age(spec.suite_facts, machine.today)
    if note and (spec.mirror == HOST or not spec.suite_facts.is_archived):
        yield Finding("warning", "suite", f"{spec.suite}: {note}")


def _about_machine(spec: Spec, machine: Machine) -> Iterator[Finding]:
    if spec.arch == "amd64" and machine.arch not in ("x86_64", "amd64"):
        yield Finding(
            "error", "arch", f"an amd64 guest cannot be built on {machine.arch}", "use arch=i386"
        )
    elif spec.suite_facts.needs_vsyscall and spec.arch == "amd64" and not machine.has_vsyscall():
        yield Finding(
            "error",
            "suite",
            f"the C library of {spec.suite} makes vsyscalls, which this machine's kernel answers "
            "with a crash (tried)",
            "boot the build host with vsyscall=emulate, or build arch=i386",
        )
    elif spec.arch == "i386" and not machine.runs_32_bit():
        yield Finding(
            "error",
            "arch",
            f"this machine ({machine.arch}) runs no i386 programs (tried)",
            "boot an x86 build host with ia32_emulation=on, or use arch=amd64",
        )


def _about_xen(spec: Spec, machine: Machine) -> Iterator[Finding]:
    """A guest that is built on a Xen host may be for another one: no more than a warning."""
    for finding in capabilities.find_unable(spec.type, spec.arch, machine.xen_caps):
        yield replace(finding, level="warning")


def _about_keyring(spec: Spec, project: Project) -> Iterator[Finding]:
    if spec.adopted and spec.is_kernel_inside:  # no package is fetched
        return
    archive = find_archive(spec, project.mirrors)
    keyring = choose_keyring(spec, archive.keyring)
    package = spec.suite_facts.keyring_package
    is_given = bool(spec.keyring or archive.keyring)
    if keyring.is_file() or (package == "ubuntu-keyring" and not is_given):
        return
    hint = "correct keyring=" if is_given else f"apt-get install {package}, or give keyring="
    yield Finding("error", "keyring", f"{keyring}: no such file", hint)


def _about_cd(spec: Spec) -> Iterator[Finding]:
    """The image in the CD drive: ISO 9660, whose first descriptor is sector 16 (ECMA-119, 8.1)."""
    if not spec.cdrom:
        return
    try:
        descriptor = open_plain(Path(spec.cdrom).resolve())
    except OSError as error:
        yield Finding("error", "cdrom", f"{spec.cdrom}: {error.strerror}", "put the image there")
        return
    mark = os.pread(descriptor, 5, 16 * 2048 + 1)
    os.close(descriptor)
    if mark != b"CD001":
        hint = "name an ISO 9660 image, such as debian-12-amd64-netinst.iso"
        yield Finding("error", "cdrom", f"{spec.cdrom} is no image of a CD", hint)


def _about_elements(project: Project) -> Iterator[Finding]:
    """Elements of the site that stand in for shipped ones."""
    names = [{path.name for path in folder.iterdir()} for folder in project.elements]
    for name in sorted(set.intersection(*names)) if len(names) > 1 else ():
        seen = f"the site's element '{name}' is used, not the shipped one"
        yield Finding("warning", "elements", seen, "give it another name, if that is not meant")


def _about_paths(spec: Spec, project: Project) -> Iterator[Finding]:
    """What the toolstack says of this project's paths; the rest of the spec is judged already."""
    try:
        refuse_unrenderable(spec, domain_of(spec, project))
    except WrongValueError as mistake:
        hint = mistake.hint or "put output/ elsewhere: DOMU_OUTPUT"
        yield Finding("error", mistake.key or "output", mistake.message, hint)


def refuse_places(spec: Spec, project: Project) -> None:
    """EnvironmentFault for a disk that no file here can be, or whose path no toolstack can name."""
    fault = refusal_of([*_about_sizes(spec, project), *_about_paths(spec, project)])
    if fault:
        raise fault


def _about_sizes(spec: Spec, project: Project) -> Iterator[Finding]:
    short = set()
    for part in spec.parts:
        is_ext = part.has_files and part.fs.startswith("ext")
        if is_ext and "64bit" not in spec.mke2fs_features(part.fs) and part.size_mib >= _MIB_OF_32:
            short.add(_key_of(part))
            yield Finding(
                "error",
                _key_of(part),
                f"{part.size_mib} MiB: {part.fs} of {spec.suite} ends below 16 TiB",
                f"write {_MIB_OF_32 - 1}M or less, or fs = 'xfs'",
            )
    for part in spec.disks:
        fits = part.device or _fits_a_file(project.output, part.size_mib << 20)
        if not fits and _key_of(part) not in short:
            yield Finding(
                "error",
                _key_of(part),
                f"{part.size_mib} MiB: no file of {project.output}'s file system can be so large",
                f"write {_MIB_OF_32 - 1}M or less (ext4's limit), or put output/ on xfs or btrfs",
            )


def _key_of(part: Part) -> str:
    return "size" if part.is_root else "swap" if part.is_swap else f"partition {part.name}"


def find_unknown_names(spec: Spec) -> Iterator[Finding]:
    """A time zone and a locale that this machine does not know; where it has no list, none.

    Debian keeps both lists up to date in every release that it supports.
    """
    if _ZONES.is_file():
        zones = set(_ZONE.findall(_ZONES.read_text()))
        if spec.timezone not in zones and not (_ZONES.parent / spec.timezone).is_file():
            hint = suggest_nearest(spec.timezone, sorted(zones)) or f"a file below {_ZONES.parent}"
            yield Finding("error", "timezone", f"no such zone: {spec.timezone}", hint)
    if _LOCALES.is_file() and spec.locale not in _BUILT_IN:
        locales = {line.partition(" ")[0] for line in _LOCALES.read_text().splitlines()}
        if spec.locale not in locales:
            hint = suggest_nearest(spec.locale, sorted(locales)) or f"one of {_LOCALES}"
            yield Finding("error", "locale", f"no such locale: {spec.locale}", hint)


def _fits_a_file(folder: Path, size: int) -> bool:
    """Whether the file system takes a file of so many bytes; one without a name is tried."""
    while not folder.exists():
        folder = folder.parent
    try:
        handle = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # it knows no such files, or is not ours to write to: the build will tell
        return True
    try:
        os.truncate(handle, size)
    except OSError as error:
        return error.errno not in (errno.EFBIG, errno.EINVAL)
    finally:
        os.close(handle)
    return True
