"""Locks: flock(2) on a file that is made for it, or on a folder.

The kernel drops a lock when its process dies. Whoever holds a lock may remove its file: a lock
counts only while its path still names what was locked.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import EnvironmentFault, InUseError, PipelineError

_POLL_S = 0.1
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MAKE = os.O_RDWR | os.O_CREAT
_NEW = _MAKE | os.O_EXCL
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_held: dict[Path, tuple[int, int]] = {}


@contextmanager
def locked(
    path: Path, *, is_shared: bool = False, on_wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold an exclusive or shared lock on the file `path` (made if absent); waits for who has it.

    `on_wait` is called before it waits. Raises OSError where this user may not, PipelineError where
    `path` is no file.
    """
    how = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    descriptor = _take(path, _MAKE, how | fcntl.LOCK_NB)
    if descriptor is None:
        on_wait()
        descriptor = _lock(path, _MAKE, how)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def try_locked(path: Path) -> Iterator[bool]:
    """Hold an exclusive lock on `path` if nobody holds it in any way; says whether."""
    descriptor = _take(path, _MAKE, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a living process holds this lock; False where there is no such file."""
    try:
        descriptor = _take(path, os.O_RDWR, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def remove_unlocked(path: Path) -> bool:
    """Remove a file that nobody holds; says whether it was there and is removed."""
    try:
        descriptor = _take(path, os.O_RDONLY, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    if descriptor is None:
        return False
    try:
        path.unlink()
    finally:
        os.close(descriptor)
    return True


def make_locked(path: Path, mode: int) -> int:
    """A descriptor of a new file with its lock held. Raises FileExistsError, FileNotFoundError."""
    return _lock(path, _NEW, fcntl.LOCK_EX, mode)


@contextmanager
def folder_locked(path: Path) -> Iterator[None]:
    """Hold a shared lock on a folder (made if absent), against who would remove it."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # removed a moment ago
            descriptor = _lock(path, _FOLDER, fcntl.LOCK_SH)
            break
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def try_folder_locked(path: Path) -> Iterator[bool]:
    """Hold the exclusive lock of a folder that is there and that nobody holds; says whether."""
    descriptor = None
    with suppress(FileNotFoundError):
        descriptor = _take(path, _FOLDER, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def hold(path: Path, what: str, *, patience_s: float = 0.0, say: Callable[[str], object]) -> None:
    """Take a lock that this process may have already; let go by as many calls of `release`.

    `what` says in words why another process may have it; `say` tells that we wait. Raises
    InUseError when it still has it after `patience_s`, EnvironmentFault where this user may not.
    """
    if path in _held:
        descriptor, count = _held[path]
        _held[path] = (descriptor, count + 1)
        return
    end, has_spoken = time.monotonic() + patience_s, False
    while (taken := _take_or_refuse(path)) is None:
        if time.monotonic() >= end:
            raise InUseError(what, hint="wait until it has ended")
        if not has_spoken:
            say(f"  waiting: {what}")
            has_spoken = True
        time.sleep(_POLL_S)
    _held[path] = (taken, 1)


def release(path: Path, at_last: Callable[[], object] = lambda: None) -> None:
    """Let go what was held once; `at_last` is called before nobody of this process has it."""
    descriptor, count = _held[path]
    if count > 1:
        _held[path] = (descriptor, count - 1)
        return
    del _held[path]
    try:
        at_last()
    finally:
        os.close(descriptor)


def _take_or_refuse(path: Path) -> int | None:
    try:
        return _take(path, _MAKE, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, PipelineError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise EnvironmentFault(
            f"{path} cannot be locked ({said})", hint="as root; else look at it"
        ) from error


def _lock(path: Path, flags: int, how: int, mode: int = 0o600) -> int:
    """The same as `_take` for a lock that is waited for."""
    descriptor = _take(path, flags, how, mode)
    assert descriptor is not None
    return descriptor


def _take(path: Path, flags: int, how: int, mode: int = 0o600) -> int | None:
    """A descriptor with the lock; None where another process has it."""
    while True:
        descriptor = _open(path, flags, mode)
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        os.close(descriptor)  # whoever had it removed its file a moment ago


def _open(path: Path, flags: int, mode: int) -> int:
    while True:
        has_folder = flags & (os.O_CREAT | os.O_EXCL) != os.O_CREAT
        if not has_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(path, flags | _OPEN, mode)
        except FileNotFoundError:
            if has_folder:
                raise  # else the folder went with its last lock a moment ago
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise
            raise PipelineError(f"{path} is no lock file", hint="move it away") from None
