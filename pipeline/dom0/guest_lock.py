"""One command at a time on one guest: a lock that a command keeps from its first look to its end.

flock(2): the kernel drops it when its process dies. It is taken again by the same process without
waiting, so that a command may hold it around its own transactions.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.console.progress import print_line
from pipeline.dom0.layout import Layout
from pipeline.errors import EnvironmentFault, InUseError

_POLL_S = 0.1
_held: dict[Path, tuple[int, int]] = {}


@contextmanager
def guest_lock(layout: Layout, name: str, *, patience_s: float = 0.0) -> Iterator[None]:
    """Hold a guest's lock; says for whom it waits.

    Raises InUseError when another command still has it after `patience_s`.
    """
    hold_lock(layout, name, patience_s=patience_s)
    try:
        yield
    finally:
        release_lock(layout, name)


def hold_lock(layout: Layout, name: str, *, patience_s: float = 0.0) -> None:
    """The same, to be let go by release_lock; once for each time that it was held."""
    path = _path(layout, name)
    if path in _held:
        descriptor, count = _held[path]
        _held[path] = (descriptor, count + 1)
        return
    end, has_spoken = time.monotonic() + patience_s, False
    while (opened := _try_lock(path)) is None:
        if time.monotonic() >= end:
            raise InUseError(
                f"another command is at work on {name}", hint="wait until it has ended"
            )
        if not has_spoken:
            print_line(f"  waiting: another command is at work on {name}")
            has_spoken = True
        time.sleep(_POLL_S)
    _held[path] = (opened, 1)


def release_lock(layout: Layout, name: str) -> None:
    """Let the lock go; of a guest that is not installed, and of an empty state, nothing stays."""
    path = _path(layout, name)
    descriptor, count = _held[path]
    if count > 1:
        _held[path] = (descriptor, count - 1)
        return
    del _held[path]
    if not os.path.lexists(layout.record(name)) and not os.path.lexists(layout.journal(name)):
        tidy(layout, name)
    os.close(descriptor)


def tidy(layout: Layout, lock: str) -> None:
    """Remove a lock's file and what is empty of our state; the lock is held or of no use."""
    with suppress(OSError):
        _path(layout, lock).unlink(missing_ok=True)
    for folder in ("locks", "journal", "installed", ""):
        with suppress(OSError):
            (layout.state / folder).rmdir()


def _path(layout: Layout, name: str) -> Path:
    return layout.state / "locks" / name


def _try_lock(path: Path) -> int | None:
    """A descriptor with the lock; None where another process has it.

    Raises EnvironmentFault where this user may not.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            continue  # the folder went with the last guest a moment ago
        except OSError as error:
            raise EnvironmentFault(
                f"{path} cannot be locked ({error.strerror})", hint="as root; else look at it"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)  # it was removed with its guest a moment ago
