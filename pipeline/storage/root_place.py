"""Where a file system lies: a disk of its own, or a partition of a disk that has a table."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import VerificationError
from pipeline.files import data_extents
from pipeline.storage import gpt
from pipeline.storage.gpt import Entry, WrongTable

ROOT = "root"  # the name of its partition on a whole disk
TAIL = 1 << 20  # behind it, with the second copy of the table
_HEAD = gpt.HEAD_SECTORS * gpt.SECTOR
_PAGE = 4096
_STEP = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Place:
    """A file system in a disk's file or device: `size` bytes from `offset` on, 0 for all of it."""

    disk: Path
    offset: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """What e2fsprogs' programs call it, but those that make a file system."""
        return f"{self.disk}?offset={self.offset}" if self.offset else str(self.disk)

    @property
    def mount_options(self) -> tuple[str, ...]:
        """What mount(8) needs to find it; nothing for a device that holds nothing else."""
        if self.offset:
            return ("loop", f"offset={self.offset}", f"sizelimit={self.size}")
        return () if self.disk.is_block_device() else ("loop",)


def find_root(disk: Path, *, is_whole: bool) -> Place:
    """The root file system of a guest's raw disk, the last partition of one that is whole.

    Raises VerificationError for a table that is not as we write it.
    """
    if not is_whole:
        return Place(disk=disk)
    with open(disk, "rb", buffering=0) as stream:
        root = _read(stream.fileno(), disk)[0][-1]
    return Place(disk=disk, offset=root.start, size=root.size)


def _read(descriptor: int, disk: Path) -> tuple[list[Entry], str, bytes]:
    try:
        entries, disk_uuid, boot = gpt.read_table(os.pread(descriptor, _HEAD, 0))
        if not entries or entries[-1].name != ROOT:
            raise WrongTable(f"its last partition is not called {ROOT}")
        if any(entry.start > entries[-1].start for entry in entries):
            raise WrongTable(f"a partition lies behind {ROOT}")
    except WrongTable as error:
        raise VerificationError(
            f"{disk}: {error}", hint=f"look at it: sfdisk --verify {disk}"
        ) from error
    return entries, disk_uuid, boot


def fit_table(disk: Path, *, disk_bytes: int, root_bytes: int) -> None:
    """Give the last partition this size, and the table's second copy its place at the disk's end.

    The disk must have these bytes. A kill leaves the old table or the new one: what changes in the
    first copy lies in one page, which is written when the second one is on the disk.
    """
    with open(disk, "r+b", buffering=0) as stream:
        entries, disk_uuid, boot = _read(stream.fileno(), disk)
        entries[-1] = replace(entries[-1], size=root_bytes)
        head, tail = gpt.render_table(entries, disk_uuid=disk_uuid, size=disk_bytes, boot=boot)
        for content, at in ((tail, disk_bytes - len(tail)), (head[:_PAGE], 0)):
            os.pwrite(stream.fileno(), content, at)
            os.fsync(stream.fileno())


def copy_extents(source: Path, target: Path, *, start: int, size: int, at: int = 0) -> None:
    """What is no hole of a part of a file, to `at` in another one, which is there and becomes long
    enough; blocks are shared where the file system can."""
    with open(source, "rb", buffering=0) as stream, open(target, "r+b", buffering=0) as written:
        length = max(at + size, os.fstat(written.fileno()).st_size)
        os.ftruncate(written.fileno(), length)
        for first, end in data_extents(stream.fileno(), start + size):
            place, last = max(first, start), min(end, start + size)
            while place < last:
                count = min(last - place, _STEP)
                to = at + place - start
                place += os.copy_file_range(stream.fileno(), written.fileno(), count, place, to)
        os.fsync(written.fileno())
