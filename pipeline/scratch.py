"""Scratch folders: gone when their stage ends, reclaimed by the next run if it was killed."""

import glob
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline import process
from pipeline.console.progress import WARNING, print_line
from pipeline.errors import CommandFailed, PipelineError
from pipeline.interruption import (
    SCRATCH,
    at_interruption,
    checkpoint,
    gate,
    refuse_if_ending,
    swept_at_end,
)
from pipeline.locks import make_locked, remove_unlocked, try_locked
from pipeline.namespace import is_root, isolated
from pipeline.walls.beneath import Beneath

_TRIES = 50
_open_scratches: set[Path] = set()


@contextmanager
def scratch_folder(root: Path, name: str, *, mode: int = 0o755) -> Iterator[Path]:
    """A new folder below `root`, removed at the end unless it was renamed away.

    A lock file beside it is held for as long as this process lives, which is how
    `remove_abandoned` tells a running build's folder from a dead one's. After an interruption has
    begun it is `remove_open` that removes it, and nobody else.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder, descriptor = _make(root, name, mode)
    try:
        yield folder
    finally:
        checkpoint("remove", folder)
        refuse_if_ending()
        remove_or_warn(folder)
        _lock_of(folder).unlink(missing_ok=True)
        _open_scratches.discard(folder)
        os.close(descriptor)


def _make(root: Path, name: str, mode: int) -> tuple[Path, int]:
    """The folder, and the descriptor that holds its lock."""
    while True:
        folder = root / f"{name}-{uuid.uuid4().hex[:8]}"
        with gate("make scratch", folder), suppress(FileExistsError):  # taken for a dead one's
            descriptor = make_locked(_lock_of(folder), 0o600)
            _open_scratches.add(folder)
            folder.mkdir(mode=mode)
            return folder, descriptor


def remove_abandoned(root: Path) -> list[Path]:
    """Remove what dead builds left in a scratch root; returns what was removed.

    What cannot be removed is told, and stays.
    """
    if not root.is_dir():
        return []
    entries = set(root.iterdir())  # one look: a lock made between two would pass for a leftover
    locks = {path for path in entries if path.match(".*.lock") and not path.is_dir()}
    removed = [path for path in sorted(entries - locks) if _reclaim(path)]
    for lock in locks:
        _reclaim(lock.with_name(lock.name[1:].removesuffix(".lock")))
    return removed


def remove_dead_parts(folder: Path, name: str = "") -> list[Path]:
    """Remove what killed writers of a file left, of all files without a name; returns what went."""
    gone = []
    for part in sorted(folder.glob(f".{glob.escape(name) or '*'}.*.*")):  # .NAME.PID.THREAD
        try:
            if remove_unlocked(part):
                gone.append(part)
        except (OSError, PipelineError) as error:
            print_line(WARNING, f" not removed: {_describe(part, error)}")
    return gone


def _reclaim(folder: Path) -> bool:
    """Remove a folder while holding its lock; False when its build lives or another does it."""
    lock = _lock_of(folder)
    try:
        with try_locked(lock) as is_ours:
            is_removed = is_ours and os.path.lexists(folder) and remove_or_warn(folder)
            if is_ours and not os.path.lexists(folder):
                lock.unlink(missing_ok=True)
            return is_removed
    except (OSError, PipelineError) as error:
        print_line(WARNING, f" {_describe(lock, error)}: remove it")
        return False


def remove_open() -> list[str]:
    """Remove every scratch folder of this process, for interruptions; returns what stays.

    Each gets another name first, so that a thread which still writes into it finds it no more.
    """
    left = []
    for folder in tuple(_open_scratches):
        gone = folder.with_name(f"ended-{uuid.uuid4().hex[:8]}")
        with suppress(FileNotFoundError):
            folder.rename(gone)
        for path in (gone, folder):
            swept_at_end(path)
            try:
                remove_tree(path)
            except (OSError, PipelineError) as error:
                left.append(_describe(path, error))
        _lock_of(folder).unlink(missing_ok=True)
        swept_at_end(_lock_of(folder))
    return left


at_interruption(remove_open, SCRATCH)


def remove_or_warn(folder: Path) -> bool:
    """Remove a folder that nobody needs; what cannot be removed is told, and no reason to fail."""
    try:
        remove_tree(folder)
    except (OSError, PipelineError) as error:
        print_line(WARNING, f" not removed: {_describe(folder, error)}")
        return False
    return True


def _describe(path: Path, error: OSError | PipelineError) -> str:
    if isinstance(error, CommandFailed):
        lines = error.details.strip().splitlines()
        return lines[-1] if lines else f"{path}: {error}"
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def remove_tree(path: Path) -> None:
    """Remove what is there with all in it, at any depth, also of subordinate ids; links as links.

    Raises OSError or PipelineError when it cannot be removed, or something is mounted in it.
    """
    for _ in range(_TRIES):  # others may remove it too, or a program that ends may add to it
        try:
            with Beneath(path.parent) as parent:
                parent.remove(path.name, missing_ok=True)
        except PermissionError:
            if is_root() or not stat.S_ISDIR(path.lstat().st_mode):
                raise
            rm = ["rm", "-rf", "--one-file-system", "--", path]
            process.run(isolated(rm), is_cleanup=True)
        if not os.path.lexists(path):
            return
    raise PipelineError(f"{path}: others write to it while it is removed")


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")
