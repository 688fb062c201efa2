"""One command at a time on one guest: a lock that a command keeps from its first look to its end.

It is taken again by the same process without waiting, so that a command may hold it around its own
transactions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline import locks
from pipeline.console.progress import print_line
from pipeline.dom0.layout import Layout


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
    what = f"another command is at work on {name}"
    locks.hold(_path(layout, name), what, patience_s=patience_s, say=print_line)


def release_lock(layout: Layout, name: str) -> None:
    """Let the lock go; of a guest that is not installed, and of an empty state, nothing stays."""

    def forget() -> None:
        if not os.path.lexists(layout.record(name)) and not os.path.lexists(layout.journal(name)):
            tidy(layout, name)

    locks.release(_path(layout, name), forget)


def tidy(layout: Layout, lock: str) -> None:
    """Remove a lock's file and what is empty of our state; the lock is held or of no use."""
    with suppress(OSError):
        _path(layout, lock).unlink(missing_ok=True)
    for folder in ("locks", "journal", "installed", ""):
        with suppress(OSError):
            (layout.state / folder).rmdir()


def _path(layout: Layout, name: str) -> Path:
    return layout.state / "locks" / name
