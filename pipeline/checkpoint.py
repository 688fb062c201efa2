"""Where a test can hold a thread, fail it or end the run: at every publication, rename, removal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Watcher = Callable[[str, Path], None]

_watcher: Watcher | None = None


def watch(watcher: Watcher | None) -> None:
    """From now on `watcher` is called at each checkpoint, in its thread; None ends that."""
    global _watcher
    _watcher = watcher


def checkpoint(point: str, path: Path) -> None:
    """Say that `point` is reached for `path`; nothing happens unless somebody watches."""
    if _watcher is not None:
        _watcher(point, path)
