"""Scratch folders: gone when their stage ends, reclaimed by the next run if it was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline import command
from pipeline.errors import PipelineError
from pipeline.host.namespace import is_root, isolated

_open_scratches: set[Path] = set()


@contextmanager
def scratch_folder(root: Path, name: str) -> Iterator[Path]:
    """A new folder below `root`, removed at the end unless it was renamed away.

    A lock file beside it is held for as long as this process lives, which is how
    `remove_abandoned` tells a running build's folder from a dead one's.
    """
    folder = root / f"{name}-{uuid.uuid4().hex[:8]}"
    lock = _lock_of(folder)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    _open_scratches.add(folder)
    try:
        folder.mkdir(mode=0o755)
        yield folder
    finally:
        _open_scratches.discard(folder)
        remove_tree(folder)
        with suppress(FileNotFoundError):
            lock.unlink()
        os.close(descriptor)


def remove_abandoned(root: Path) -> list[Path]:
    """Remove scratch folders whose build is dead; returns what was removed."""
    removed: list[Path] = []
    for folder in sorted(root.iterdir()):
        if not folder.is_dir():
            continue
        if _is_abandoned(folder):
            remove_tree(folder)
            removed.append(folder)
    return removed


def remove_open() -> None:
    """Remove every scratch folder of this process; for interruptions."""
    for folder in sorted(_open_scratches):
        with suppress(OSError, PipelineError):
            remove_tree(folder)
        with suppress(FileNotFoundError):
            _lock_of(folder).unlink()


def remove_tree(folder: Path) -> None:
    """Remove a folder with all in it, also when its files belong to subordinate ids."""
    if not folder.exists():
        return
    if is_root():
        shutil.rmtree(folder)
    else:
        command.run(isolated(["rm", "-rf", "--one-file-system", "--", folder]))


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _is_abandoned(folder: Path) -> bool:
    try:
        descriptor = os.open(_lock_of(folder), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        with suppress(FileNotFoundError):
            _lock_of(folder).unlink()
        return True
    finally:
        os.close(descriptor)
