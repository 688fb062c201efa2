"""Removing what nobody needs from the store and the package cache, the least recently used first.

Never removed: what a built or published guest was made from (its stages.json names the
fingerprints), what its spec would use today: all that the caller says is needed; and what a
running build holds locked.
"""

import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.interruption import gate
from pipeline.locks import try_locked
from pipeline.project import Project
from pipeline.scratch import remove_abandoned, remove_dead_parts, remove_tree
from pipeline.store.store import Store


@dataclass(frozen=True)
class Entry:
    """Something that can go: a folder of the store or a file of the cache; size in bytes on disk.

    `used_at` is when it was last used, in seconds since the epoch; `needed_by` says who keeps it.
    """

    path: Path
    size: int
    used_at: float
    needed_by: str = ""


@dataclass(frozen=True)
class Plan:
    """What a collection removes and what it leaves; `kept` are those that it may not remove."""

    doomed: tuple[Entry, ...]
    spared: tuple[Entry, ...]
    kept: tuple[Entry, ...]

    @property
    def freed(self) -> int:
        """Bytes that go."""
        return sum(entry.size for entry in self.doomed)

    @property
    def left(self) -> int:
        """Bytes that stay."""
        return sum(entry.size for entry in (*self.spared, *self.kept))


def plan_collection(entries: Iterable[Entry], limit: int) -> Plan:
    """Which entries go so that all together have at most `limit` bytes, oldest first.

    What is needed stays even where that is more than the limit.
    """
    kept: list[Entry] = []
    free: list[Entry] = []
    for entry in entries:
        (kept if entry.needed_by else free).append(entry)
    free.sort(key=lambda entry: (entry.used_at, entry.path))
    total = sum(entry.size for entry in (*kept, *free))
    doomed = []
    while free and total > limit:
        total -= free[0].size
        doomed.append(free.pop(0))
    return Plan(tuple(doomed), tuple(free), tuple(kept))


def list_entries(project: Project, needed: Mapping[Path, str]) -> list[Entry]:
    """Everything in store and cache; `needed` says who needs a folder or a file."""
    folders = (path for path in project.store.glob("*/*") if not path.parent.name.startswith("."))
    found = [
        Entry(path, _size_of(path), path.stat().st_mtime, needed.get(path, ""))
        for path in folders
        if path.is_dir()
    ]
    found += [
        Entry(path, _size_of(path), path.stat().st_mtime, needed.get(path, ""))
        for path in sorted(project.locked.glob("[0-9a-f]*"))
    ]
    for cache in (project.cache.debs, project.cache.indexes):
        files = sorted(cache.glob("*"))
        found += [
            Entry(
                path,
                _size_of(path),
                max(path.stat().st_atime, path.stat().st_mtime),
                needed.get(path, ""),
            )
            for path in files
            if path.is_file() and not path.name.startswith(".")
        ]
    return found


def _size_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_blocks * 512 for file in files)


def collect(
    project: Project, plan: Plan, on_removed: Callable[[Entry], None] = lambda _entry: None
) -> list[Entry]:
    """Remove what the plan dooms; returns what could not go because a build holds it.

    A folder leaves the store by rename, so that a killed collection leaves no half artifact.
    """
    project.scratch.mkdir(parents=True, exist_ok=True)
    busy = []
    for entry in plan.doomed:
        if not entry.path.is_dir():
            with gate("collect", entry.path):
                entry.path.unlink(missing_ok=True)
        else:
            lock = Store.of(project).lock_path(entry.path.parent.name, entry.path.name)
            with try_locked(lock) as is_free:
                if not is_free:
                    busy.append(entry)
                    continue
                grave = project.scratch / f"gc-{uuid.uuid4().hex[:8]}"
                with gate("collect", entry.path):
                    os.rename(entry.path, grave)
                remove_tree(grave)
        on_removed(entry)
    return busy


def remove_leftovers(project: Project) -> list[Path]:
    """Remove what dead runs left: scratch, parts of files; returns what went."""
    gone = remove_abandoned(project.scratch)
    kept = [*project.store.glob(".verified/*"), *project.store.glob(".taken")]
    for folder in (project.cache.debs, project.cache.indexes, *kept):
        gone += remove_dead_parts(folder)
    return gone
