"""Scratch folders: gone when their stage ends, reclaimed by the next run if it was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline import command
from pipeline.errors import PipelineError
from pipeline.host.namespace import is_root, isolated

PATIENCE_S = 5.0
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
        # only what is really gone is forgotten: an interruption waits for the rest
        remove_tree(folder)
        lock.unlink(missing_ok=True)
        _open_scratches.discard(folder)
        os.close(descriptor)


def remove_abandoned(root: Path) -> list[Path]:
    """Remove scratch folders whose build is dead; returns what was removed."""
    return [folder for folder in sorted(root.iterdir()) if folder.is_dir() and _reclaim(folder)]


def _reclaim(folder: Path) -> bool:
    """Remove a folder while holding its lock; False when its build lives or another does it."""
    lock = _lock_of(folder)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not folder.exists():
            return False
        remove_tree(folder)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        if not folder.exists():
            lock.unlink(missing_ok=True)
        os.close(descriptor)


def remove_open() -> None:
    """Remove every scratch folder of this process; for interruptions."""
    end = time.monotonic() + PATIENCE_S
    while _open_scratches and time.monotonic() < end:
        for folder in sorted(_open_scratches):
            # the stage's own thread may be removing it at the same moment
            with suppress(OSError, PipelineError):
                remove_tree(folder)
            if not folder.exists():
                _lock_of(folder).unlink(missing_ok=True)
                _open_scratches.discard(folder)
        time.sleep(0.02)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all in it, also when its files belong to subordinate ids."""
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue  # someone else is removing it too
        except PermissionError:
            if is_root():
                raise
            break
    if folder.exists():
        command.run(isolated(["rm", "-rf", "--one-file-system", "--", folder]), is_cleanup=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")
