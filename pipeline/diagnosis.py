"""What the known complaints of other programs mean, as one cause and one fix.

Sources: apt-secure(8), gpgv(1), debootstrap(8), debian bug reports on expired Release files.
"""

from __future__ import annotations

import errno
import os
import re

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
_MAKE_ROOM = "free some space (`df -h`); `doit gc keep=5G` removes what no guest needs"
# tar and e2fsprogs speak of what was written, not of why it was less
_FULL = re.compile(
    r"No space left on device|ENOSPC|Disk quota exceeded|Wrote only \d+ of \d+ bytes|short write",
    re.IGNORECASE,
)
# what the end of a program's output says -> cause and what to do; the first that fits
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
            r"Unable to locate package (\S+)|has no installation candidate",
            "a package does not exist in this suite and its components",
            "check `packages`, `elements` and `components` in the spec",
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
    """Add the first known cause that the end of the program's output names, and what to do."""
    known = ((cause, hint) for pattern, cause, hint in _KNOWN if pattern.search(error.details))
    is_full = _FULL.search(error.details) is not None
    cause, hint = (_DISK_FULL, _MAKE_ROOM) if is_full else next(known, ("", ""))
    if cause:
        error.brief, error.hint = f"{error.brief}: {cause}", hint
    if is_full:
        error.exit_code = DiskFull.exit_code


def explain_os_error(error: OSError) -> PipelineError | None:
    """What a person can mend, as such; else None.

    A full disk, a file that this user may not use, a link, FIFO or folder in a file's place.
    """
    place = str(error.filename or "")
    what = ": ".join(filter(None, (place, os.strerror(error.errno or errno.ENOSPC))))
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or (
        not error.errno and _FULL.search(str(error))
    ):
        return DiskFull(f"{_DISK_FULL}: {what}" if place else _DISK_FULL, hint=_MAKE_ROOM)
    if error.errno in (errno.EACCES, errno.EROFS):
        return EnvironmentFault(what, hint="be the user whose it is, or let that user give way")
    if place and error.errno in _NOT_PLAIN:
        return VerificationError(f"{place}: no plain file", hint="move it away, and build again")
    return None
