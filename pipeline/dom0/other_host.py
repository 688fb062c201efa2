"""The host that a guest is to move to: asked over ssh, once, before anything moves.

xl goes the same way, as root and without a password (xl(1), migrate).
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from pipeline import process
from pipeline.diagnosis import explained_ssh
from pipeline.dom0.layout import Layout
from pipeline.dom0.toolstack import Running, Toolstack, parse_list
from pipeline.errors import CommandFailed, EnvironmentFault, Finding, InUseError, WrongValueError
from pipeline.files import read_bytes, write_durably
from pipeline.guest.login import ssh_agent
from pipeline.xen.capabilities import has_hvm, read_info
from pipeline.xen.domain import Domain
from pipeline.xen.values import parse_version

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")
_BEGIN, _LACKS = "domu: this is", "lacks"
ASK = f"""\
echo '{_BEGIN}'
for word; do
    name=${{word#*=}}
    case $word in
    path=*) [ -e "$name" ] ;;
    user=*) id "$name" >/dev/null 2>&1 ;;
    bridge=*) [ -d "/sys/class/net/$name" ] ;;
    esac || echo "{_LACKS} $word"
done
xl list && xl info
"""


@dataclass(frozen=True)
class Needs:
    """What a guest needs of the host that it moves to: `disks` and `files` are paths."""

    domain: Domain
    memory_mib: int
    disks: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    users: tuple[str, ...] = ()

    @property
    def bridges(self) -> list[str]:
        """Each once; xl's own default is xenbr0."""
        return list(dict.fromkeys(card.bridge or "xenbr0" for card in self.domain.cards))

    @property
    def words(self) -> list[str]:
        """What is asked for, as the question has it."""
        words = [f"path={path}" for path in (*self.disks, *self.files)]
        words += [f"user={user}" for user in self.users]
        return [*words, *(f"bridge={bridge}" for bridge in self.bridges)]


@dataclass(frozen=True)
class OtherHost:
    """What a host answered: which of the words it lacks, what runs there, what `xl info` tells."""

    name: str
    lacks: frozenset[str] = frozenset()
    domains: Mapping[str, Running] = field(default_factory=dict)
    info: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, name: str, told: str) -> Self:
        """Of what the question printed; a login shell may have talked before."""
        said = told.partition(f"{_BEGIN}\n")[2]
        lacks = [line.partition(" ")[2] for line in said.splitlines() if line.startswith(_LACKS)]
        return cls(name, frozenset(lacks), parse_list(said), read_info(said))


def ask_host(name: str, words: Sequence[str]) -> OtherHost:
    """Raises EnvironmentFault for a host that lets root not in, or where xl does not answer."""
    argv = [*SSH, "--", name, "sh", "-s", "--", *map(shlex.quote, words)]
    try:
        with explained_ssh(name):
            return OtherHost.read(name, process.run(argv, stdin=ASK.encode(), env=ssh_agent()))
    except CommandFailed as error:
        last = (error.details.strip().splitlines() or [""])[-1]
        raise EnvironmentFault(
            f"{name} runs no Xen whose xl answers: {last}",
            details=error.details,
            hint=f"ssh {name} xl list must work",
        ) from error


def find_obstacles(needs: Needs, here: Mapping[str, str], there: OtherHost) -> Iterator[Finding]:
    """What stops the guest from going on there, and what may; `here` is `xl info` of this host."""
    yield from _find_lacks(needs, there)
    yield from _find_unfit_xen(needs.domain, here, there)
    free = there.info.get("free_memory", "")
    # without dom0_mem= dom0 hands over memory of its own: xl.conf(5), autoballoon
    is_fixed = "dom0_mem=" in there.info.get("xen_commandline", "")
    if free.isdigit() and is_fixed and int(free) < needs.memory_mib:
        yield Finding(
            "error",
            "memory",
            f"{free} MiB are free there, the guest has {needs.memory_mib}",
            "shut a guest down there, or make this one smaller: xl mem-set",
        )


def _find_lacks(needs: Needs, there: OtherHost) -> Iterator[Finding]:
    shared = "shared storage, at the same path: NFS, iSCSI, DRBD; a volume group: vgchange -ay"
    hints = {
        "disk": (needs.disks, "path", shared),
        "file": (needs.files, "path", f"scp -p {{0}} {there.name}:{{0}}"),
        "user": (
            needs.users,
            "user",
            f"ssh {there.name} useradd --system --user-group --no-create-home "
            "--shell /usr/sbin/nologin {0}",
        ),
        "bridge": (needs.bridges, "bridge", "make it there, in the network that it is in here"),
    }
    for subject, (names, word, hint) in hints.items():
        for name in names:
            if f"{word}={name}" in there.lacks:
                yield Finding("error", subject, f"{name} is not there", hint.format(name))


def _find_unfit_xen(domain: Domain, here: Mapping[str, str], there: OtherHost) -> Iterator[Finding]:
    with_version = [_version(info) for info in (here, there.info)]
    if all(with_version) and with_version[1] < with_version[0]:
        yield Finding(
            "error",
            "xen",
            f"Xen {there.info['xen_version']} is older than {here['xen_version']} here",
            "guests move to the same Xen or a newer one",
        )
    caps = there.info.get("xen_caps", "").split()
    can = has_hvm(caps) if domain.type != "pv" else any(cap.startswith("xen-") for cap in caps)
    if caps and not can:
        yield Finding(
            "error", "type", f"that Xen starts no {domain.type} guest", "see xl info there"
        )
    ours, theirs = (_features(info) for info in (here, there.info))
    if any(here & ~there for here, there in zip(ours, theirs, strict=False)):
        yield Finding(
            "warning",
            "processor",
            "that processor lacks features of this one (hw_caps of xl info)",
            "a guest that uses them does not go on there; cpuid= in its configuration hides them",
        )


def _version(info: Mapping[str, str]) -> tuple[int, int] | tuple[()]:
    try:
        return parse_version(f"{info.get('xen_major', '')}.{info.get('xen_minor', '')}")
    except WrongValueError:
        return ()


def _features(info: Mapping[str, str]) -> list[int]:
    """The words of CPUID's features, as Xen's xl prints them."""
    try:
        return [int(word, 16) for word in info.get("hw_caps", "").split(":")]
    except ValueError:
        return []


def note_moved(layout: Layout, name: str, target: str) -> None:
    """That a guest with a configuration here runs elsewhere, on the same disks."""
    note = layout.moved(name)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_durably(note, f"{target}\n".encode())


def require_here(layout: Layout, toolstack: Toolstack | None, name: str) -> None:
    """Raises InUseError while a guest that was moved runs on the other host, which is asked."""
    note = layout.moved(name)
    try:
        target = read_bytes(note).decode(errors="replace").strip()
    except FileNotFoundError:
        return
    if toolstack is None or name not in toolstack.domains():
        try:
            there = ask_host(target, ())
        except EnvironmentFault as error:
            error.brief = f"{name} was moved to {target}, which cannot be asked: {error.brief}"
            error.hint = f"{error.hint}; if it does not run there any more: rm {note}"
            raise
        if name in there.domains:
            raise InUseError(
                f"{name} was moved to {target} and runs there, on the same disks",
                hint=f"send it back there: xl migrate {name} THIS-HOST; or shut it down there",
            )
    note.unlink()
    with suppress(OSError):
        note.parent.rmdir()


def refuse_running(
    layout: Layout, toolstack: Toolstack | None, name: str, what: str, *, is_foreign: bool = False
) -> str:
    """Raises InUseError while the guest runs, here or where it was moved to.

    Returns what could not be looked at, "" for nothing. One that `is_foreign` is known to the
    toolstack alone.
    """
    require_here(layout, toolstack, name)
    if toolstack is None:
        return f"no Xen here: whether {name} runs was not asked, only whether its disks are open"
    if name in toolstack.domains():
        way = f"{toolstack.program} shutdown {name}" if is_foreign else f"doit shutdown name={name}"
        raise InUseError(f"{name} is running; {what} needs it shut down", hint=way)
    return ""
