"""Whether a disk may be written: never while anybody uses it, whatever the flags.

A disk that only a stopped guest's configuration names may be replaced when the user says so.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import InUseError
from pipeline.host.holders import Subject, find_holders
from pipeline.host.xen_domains import find_defined, find_running


def refuse_if_used(path: Path) -> None:
    """Raise InUseError naming each holder of a file or block device: mounted, swapped on, under md
    or device-mapper, behind a loop device, open in a process, attached to a domain.

    What a user may not see (other users' processes) stays unseen.
    """
    subject = Subject.of(path)
    if subject is None:
        return
    holders = [*find_running(subject), *find_holders(subject)]
    if holders:
        raise InUseError(
            f"{path} is in use by {', '.join(holders)}",
            hint="shut the guest down (xl shutdown NAME), unmount or detach it, then try again",
        )


def refuse_if_defined(path: Path) -> None:
    """Raise InUseError when a configuration of Xen's or libvirt's names this disk.

    Callers ask only where the user has not said replace=yes.
    """
    subject = Subject.of(path)
    if subject is not None and (found := find_defined(subject)):
        raise InUseError(
            f"{path} is a disk of the guest that {', '.join(found)} defines",
            hint="replace=yes writes it anew and loses what that guest wrote",
        )
