"""Removing what nobody needs from the store and the package cache, the least recently used first.

Never removed: what a built or published guest was made from (its stages.json names the
fingerprints), what its spec would use today, what a running build holds locked, and what the caller
says is in use.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.changes import read_record
from pipeline.host.scratch import remove_tree
from pipeline.life.layout import Layout
from pipeline.life.records import list_installed
from pipeline.locking import kept_snapshot, read_lock
from pipeline.project import Project

CACHES = ("cache/debs", "cache/apt", "cache/indexes")
_APT_OWN = ("lock", "domu.lock")


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
            if path.is_file() and path.name not in _APT_OWN and not path.name.startswith(".")
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
        with _try_lock(_lock_of(project, entry.path)) as is_free:
            if not is_free:
                busy.append(entry)
                continue
            if entry.path.is_dir():
                grave = scratch / f"gc-{uuid.uuid4().hex[:8]}"
                os.rename(entry.path, grave)
                remove_tree(grave)
            else:
                entry.path.unlink(missing_ok=True)
        on_removed(entry)
    return busy


def _lock_of(project: Project, path: Path) -> Path:
    if path.is_dir():
        return project.store.lock_path(path.parent.name, path.name)
    return project.output / "cache" / "apt" / "domu.lock"


@contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)
