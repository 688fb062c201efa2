"""Removing what nobody needs from the store and the package cache, the least recently used first.

Never removed: what a built or published guest was made from (its stages.json names the
fingerprints), what its spec would use today, what a running build holds locked, and what the caller
says is in use.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.changes import read_record
from pipeline.fetch import remove_dead_parts
from pipeline.host.scratch import remove_tree
from pipeline.interruption import gate
from pipeline.life.layout import Layout
from pipeline.life.records import list_installed
from pipeline.locking import kept_snapshot, read_lock
from pipeline.project import Project
from pipeline.store import try_locked

CACHES = ("cache/debs", "cache/indexes")
_OBSOLETE = "cache/apt"  # apt's own until it was taken from the guests' scripts, which could write


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


def list_entries(project: Project, current: Iterable[Path]) -> list[Entry]:
    """Everything in store and cache; `current` are folders that today's specs use."""
    needed = dict.fromkeys(current, "a spec uses it") | dict(_needed_by_guests(project))
    needed |= dict(_needed_by_locks(project)) | dict(_needed_by_installed(project))
    store = project.output / "store"
    folders = (path for path in store.glob("*/*") if not path.parent.name.startswith("."))
    found = [
        Entry(path, _size_of(path), path.stat().st_mtime, needed.get(path, ""))
        for path in folders
        if path.is_dir()
    ]
    found += [
        Entry(path, _size_of(path), path.stat().st_mtime, needed.get(path, ""))
        for path in sorted((project.output / "locked").glob("[0-9a-f]*"))
    ]
    for cache in CACHES:
        files = sorted((project.output / cache).glob("*"))
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


def _needed_by_guests(project: Project) -> Iterator[tuple[Path, str]]:
    for artifact in sorted((project.output / "guests").glob("*")):
        for stage, buildinfo in read_record(artifact).items():
            yield project.store.location(stage, buildinfo.fingerprint), f"guest {artifact.name}"
    # a copy-on-write disk that was published rests on its golden image as long as it is kept
    for version in sorted((project.output / "published").glob("*/2*")):
        for stage, buildinfo in read_record(version).items():
            needed = project.store.location(stage, buildinfo.fingerprint)
            yield needed, f"published {version.parent.name}/{version.name}"


def _needed_by_installed(project: Project) -> Iterator[tuple[Path, str]]:
    """A copy-on-write disk that was installed rests on its golden image in the store."""
    for name, record in list_installed(Layout.here()).items():
        if any(disk.format == "qcow2" for disk in record.disks) and "image" in record.origin:
            yield project.store.location("image", record.origin["image"]), f"installed {name}"


def _needed_by_locks(project: Project) -> Iterator[tuple[Path, str]]:
    for path in sorted(project.guests.glob("*.lock.json")):
        guest = path.name.removesuffix(".lock.json")
        lock = read_lock(project, guest)
        yield kept_snapshot(project, lock.identity), f"lock of {guest}"
        for package in lock.packages:
            yield project.output / "cache/debs" / package.sha256, f"lock of {guest}"


def _size_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_blocks * 512 for file in files)


def collect(
    project: Project, plan: Plan, on_removed: Callable[[Entry], None] = lambda _entry: None
) -> list[Entry]:
    """Remove what the plan dooms; returns what could not go because a build holds it.

    A folder leaves the store by rename, so that a killed collection leaves no half artifact.
    """
    scratch = project.output / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    busy = []
    for entry in plan.doomed:
        if not entry.path.is_dir():
            with gate("collect", entry.path):
                entry.path.unlink(missing_ok=True)
        else:
            lock = project.store.lock_path(entry.path.parent.name, entry.path.name)
            with try_locked(lock) as is_free:
                if not is_free:
                    busy.append(entry)
                    continue
                grave = scratch / f"gc-{uuid.uuid4().hex[:8]}"
                with gate("collect", entry.path):
                    os.rename(entry.path, grave)
                remove_tree(grave)
        on_removed(entry)
    return busy


def remove_leftovers(project: Project) -> list[Path]:
    """What killed fetches left in the caches, and what older versions kept; returns what went."""
    gone = [part for cache in CACHES for part in remove_dead_parts(project.output / cache)]
    old = project.output / _OBSOLETE
    if old.is_symlink():
        old.unlink()
    elif old.is_dir():
        shutil.rmtree(old)
    else:
        return gone
    return [*gone, old]
