"""The leak check: what a test must leave as it found it."""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

SETTLE_S = 60.0
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent dies (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@dataclass(frozen=True)
class Belongings:
    """Mount points, attached loop devices, our descendants, entries of the temporary folder."""

    mounts: frozenset[str] = frozenset()
    loops: frozenset[str] = frozenset()
    processes: frozenset[str] = frozenset()
    temporary: frozenset[str] = frozenset()

    def since(self, before: Belongings) -> Belongings:
        """What is there now and was not before; processes get a moment to end."""
        end = time.monotonic() + SETTLE_S
        left = self._minus(before)
        while left != Belongings() and time.monotonic() < end:
            time.sleep(0.2)
            left = take_stock()._minus(before)
        return left

    def _minus(self, before: Belongings) -> Belongings:
        return Belongings(
            *(getattr(self, item.name) - getattr(before, item.name) for item in fields(self))
        )


def take_stock() -> Belongings:
    """The machine as it stands."""
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    loops = set(_loops())
    temporary = {entry.name for entry in Path(tempfile.gettempdir()).iterdir()}
    return Belongings(
        frozenset(mounts),
        frozenset(loops),
        frozenset(_descendants()),
        frozenset(name for name in temporary if name.startswith(("dib_", "mmdebstrap.", "tmp."))),
    )


def _loops() -> Iterator[str]:
    """Attached loop devices, but not those on files of another worker of the same session."""
    own = os.environ.get("PYTEST_XDIST_WORKER", "")
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # it may be detached at this very moment
            worker = re.search(r"/popen-(gw\d+)/", path.read_text())
            if not own or worker is None or worker[1] == own:
                yield path.parent.parent.name


def _descendants() -> set[str]:
    """Every living process below this one, as "pid name"."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            head, _, tail = Path(entry.path, "stat").read_text().rpartition(")")
        except OSError:
            continue
        state, parent = tail.split()[:2]
        if state != "Z":
            parents[int(entry.name)] = int(parent)
            names[int(entry.name)] = head.partition("(")[2]
    found: set[int] = set()
    frontier = {os.getpid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return {f"{pid} {names[pid]}" for pid in found}
