"""What other programs say when they fail: the line that counts, known causes, what to do.

Sources: apt-secure(8), gpgv(1), debootstrap(8), debian bug reports on expired Release files.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from pipeline.errors import (
    CommandFailed,
    DiskFull,
    EnvironmentFault,
    PipelineError,
    VerificationError,
)

_NOT_PLAIN = (errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EISDIR, errno.ENOTDIR)
_NEXT_SNAPSHOT = "build again with snapshot_max_age=0 to take the mirror's present state"

_DISK_FULL = "the disk is full"
MAKE_ROOM = (
    "free some space (`df -h`); `doit gc keep=5G` removes what no guest needs; "
    "DOMU_OUTPUT=/another/folder builds elsewhere"
)
# tar and e2fsprogs speak of what was written, not of why it was less
_FULL = re.compile(
    r"No space left on device|ENOSPC|Disk quota exceeded|Wrote only \d+ of \d+ bytes|short write",
    re.IGNORECASE,
)
# lines that tell nothing of why: the undoing of diskimage-builder, `set -x`, times
_NOISE = re.compile(
    r"Unmount /|\++ |dib-run-parts \S+ completed, |tar: Exiting with failure status|\s*$"
)
_SCRIPT = re.compile(r"dib-run-parts Running (?:\S*/)?([^/\s]+/[^/\s]+)\s*$")
_DPKG = re.compile(r"dpkg: error processing (?:package|archive) ")
# apt, debootstrap (W: where it goes on to its own end), mmdebstrap
_ERROR = re.compile(r"E: (?!Sub-process )|W: Failure ")
_SHELLS = ("sh", "bash")
_LONGEST = 300
LAST_LINES = 20
# what the end of a program's output says -> cause, "" for the line itself, and what to do; the
# first that fits
_KNOWN = tuple(
    (re.compile(pattern, re.IGNORECASE), cause, hint)
    for pattern, cause, hint in (
        (
            r"NO_PUBKEY|unknown key",
            "the mirror is signed by a key that the keyring does not hold",
            "give the right keyring=/path, or install the keyring package of that distribution",
        ),
        (
            r"EXPKEYSIG|KEYEXPIRED|expired key",
            "the mirror's signing key has expired",
            "an archived suite needs the keyring of removed keys; a live one a newer keyring",
        ),
        (
            r"Release file .* is (?:expired|not valid yet)|E: Release file.*expired",
            "the mirror's Release file is past its Valid-Until",
            "the mirror is frozen, or the suite has moved to the archive: choose another mirror=",
        ),
        (
            r"Hash Sum mismatch|File has unexpected size|Mirror sync in progress",
            "the mirror changed while it was being read, or a proxy served stale bytes",
            _NEXT_SNAPSHOT,
        ),
        (r"404\s+Not Found", "the mirror no longer has a file of this snapshot", _NEXT_SNAPSHOT),
        (
            r"Unable to locate package|has no installation candidate|Couldn't find these debs",
            "",
            "check `packages`, `elements` and `components` in the spec",
        ),
        (
            r"timezone-locale: no such zone",
            "",
            "write timezone as a file below /usr/share/zoneinfo: Europe/Paris",
        ),
        (
            r"timezone-locale: no such locale",
            "",
            "write locale as a line of /usr/share/i18n/SUPPORTED: de_DE.UTF-8",
        ),
        (
            _DPKG.pattern,
            "",
            "a script of that package failed, what it said stands above; do without the package, "
            "or give what it needs in an element",
        ),
        (
            r"Could not resolve|Temporary failure (?:in name resolution|resolving)",
            "the mirror's host name cannot be resolved",
            "check the network and mirror=",
        ),
        (
            r"Could not connect to|Connection refused|Connection timed out",
            "the mirror does not answer",
            "check that the mirror or its proxy runs, or choose another mirror=",
        ),
        (
            r"unshare: .*(?:subuid|subgid|newuidmap|newgidmap)",
            "this user has no subordinate ids",
            "as root: apt-get install uidmap; usermod --add-subuids 100000-165535"
            " --add-subgids 100000-165535 USER",
        ),
        (
            r"unshare: .*Operation not permitted|clone: Operation not permitted",
            "user namespaces are forbidden on this machine",
            "run as root, or allow them: sysctl kernel.unprivileged_userns_clone=1",
        ),
        (
            r"Segmentation fault.*(?:chroot|debootstrap)|vsyscall",
            "an old C library needs vsyscall, which this kernel does not offer",
            "boot the build host with vsyscall=emulate",
        ),
    )
)


def explain_failure(error: CommandFailed) -> None:
    """Say what counts of a failure: the line that tells why in the headline, or its known cause.

    What only undoes or traces is dropped from the details. There is always something to do next.
    """
    lines = error.details.splitlines()
    shown = [line for line in lines if not _NOISE.match(line)]
    told, script = _find_telling(shown), _find_script(lines)
    error.details = "".join(f"{line}\n" for line in shown[-LAST_LINES:])
    known = ((cause, hint) for pattern, cause, hint in _KNOWN if pattern.search(error.details))
    is_full = _FULL.search(error.details) is not None
    cause, error.hint = (_DISK_FULL, MAKE_ROOM) if is_full else next(known, ("", ""))
    ended = f"{script or _program(error.argv)} ended with status {error.status}"
    error.brief = f"{ended}: {cause}" if cause else f"{told} ({ended})" if told else ended
    if script and not error.hint:
        error.hint = "it is a script of one of the elements; the log has all that it said"
    elif error.log and not error.hint:
        error.hint = "the log has the whole command and all that it said"
    if is_full:
        error.exit_code = DiskFull.exit_code


def _find_telling(shown: list[str]) -> str:
    """The line that says why: dpkg's or apt's complaint, else the last that the script said."""
    for at, line in enumerate(shown):
        if _DPKG.match(line):
            return ": ".join(part.strip().rstrip(":") for part in shown[at : at + 2])[:_LONGEST]
    errors = [line for line in shown if _ERROR.match(line)]
    last = errors[:1] or shown[-1:]
    return "" if not last or _SCRIPT.match(last[0]) else last[0].strip()[:_LONGEST]


def _find_script(lines: list[str]) -> str:
    """The script of an element that ran last, as phase/name."""
    matches = filter(None, map(_SCRIPT.match, reversed(lines)))
    return next((match[1] for match in matches), "")


def _program(argv: list[str]) -> str:
    """A program as people know it: a shell's script, a module of ours, no folder before it."""
    names = [PurePath(word).name for word in argv]
    if names[1:] and names[0] in _SHELLS and not argv[1].startswith("-"):
        return names[1]
    return argv[2] if "-m" in argv[1:2] and argv[2:] else names[0]


def describe_room(folder: Path) -> str:
    """What the file system of a folder has now: what was half made may have been removed since."""
    while not folder.exists() or not folder.is_mount():
        folder = folder.parent
    state = os.statvfs(folder)
    free, size = (blocks * state.f_frsize >> 20 for blocks in (state.f_bavail, state.f_blocks))
    return f"{folder} has {free} of {size} MiB free"


def is_disk_full(error: PipelineError) -> bool:
    """Whether there was no room, whoever met that."""
    return isinstance(error, DiskFull) or _DISK_FULL in error.brief


def explain_os_error(error: OSError) -> PipelineError | None:
    """What a person can mend, as such; else None.

    A full disk, a file that this user may not use, a link, FIFO or folder in a file's place.
    """
    place = str(error.filename or "")
    what = ": ".join(filter(None, (place, os.strerror(error.errno or errno.ENOSPC))))
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or (
        not error.errno and _FULL.search(str(error))
    ):
        brief = f"{_DISK_FULL}: {what}" if place else _DISK_FULL
        return DiskFull(brief, hint=MAKE_ROOM)
    if error.errno in (errno.EACCES, errno.EROFS):
        return EnvironmentFault(what, hint="be the user whose it is, or let that user give way")
    if place and error.errno in _NOT_PLAIN:
        return VerificationError(f"{place}: no plain file", hint="move it away, and build again")
    return None


@contextmanager
def explained() -> Iterator[None]:
    """The system's own errors that a person can mend, as such: a full disk, a missing right."""
    try:
        yield
    except OSError as error:
        known = explain_os_error(error)
        if known is None:
            raise
        raise known from error


@contextmanager
def explained_ssh(host: str, *, key: str = "", known: str = "") -> Iterator[None]:
    """An ssh that could not even ask (status 255 of ssh(1)) as EnvironmentFault with a way out.

    `key` and `known` say what the command at hand has besides for a key and for host keys.
    """
    try:
        yield
    except CommandFailed as error:
        if error.status != 255:
            raise
        last = (error.details.strip().splitlines() or [""])[-1]
        hint = f"log in once by hand: ssh {host}"
        if "IDENTIFICATION HAS CHANGED" in error.details:
            hint = f"its host key is another than before: compare it; ssh-keygen -R {host}{known}"
        elif "Host key verification failed" in error.details:
            hint = f"compare its host key and accept it: ssh {host}{known}"
        elif "Permission denied" in error.details:
            hint = f"a key that it takes: {key or f'ssh-copy-id root@{host}'}; "
            hint += "passwords are never asked for"
        raise EnvironmentFault(f"{host}: {last}", details=error.details, hint=hint) from error
