"""What was written to a disk, and whether its guest has written to it since.

Three notes, each as cheap as its moment allows. A build knows all that it wrote to a volume or a
device (volumes.json), and the time of each image file (written.json). An installed disk has a
`mark` in its guest's record.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.errors import PipelineError
from pipeline.files import write_durably
from pipeline.storage.disks import Target
from pipeline.storage.lvm import Volume
from pipeline.storage.partition_table import read_partitions

CHUNK = 4 << 20
HEAD = 1 << 20
TIMES, RECORD = "written.json", "volumes.json"
GONE = "no disk"
_MOST_HEADS = 16


@dataclass(frozen=True)
class Written:
    """What was written: the device's size in bytes, the data's extents and their sha256.

    The holes are zero. It is enough to see later whether anybody has written to the device: no file
    system is mounted for writing without a change in what was data.
    """

    size: int
    sha256: str
    extents: tuple[tuple[int, int], ...]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """From a record."""
        pairs = tuple((int(start), int(end)) for start, end in record["extents"])
        return cls(int(record["size"]), str(record["sha256"]), pairs)

    def is_still_on(self, device: Path) -> bool:
        """Whether a device holds what was written to it."""
        handle = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.lseek(handle, 0, os.SEEK_END) != self.size:
                return False
            digest = hashlib.sha256()
            for start, end in self.extents:
                for at in range(start, end, CHUNK):
                    digest.update(os.pread(handle, min(CHUNK, end - at), at))
            return digest.hexdigest() == self.sha256
        finally:
            os.close(handle)


@dataclass(frozen=True)
class BuiltDisk:
    """A disk outside the guest's folder, and what was written to it.

    A volume has its `uuid`, and the name `staged` until it gets that of `path` with the guest's
    folder; a given device has neither.
    """

    part: str
    path: Path
    written: Written | None
    uuid: str = ""
    staged: str = ""

    @property
    def group(self) -> str:
        """A volume's group."""
        return self.path.parent.name

    def as_json(self) -> dict[str, Any]:
        """For the record beside the guest's disks."""
        written = asdict(self.written) if self.written else None
        if not self.uuid:
            return {"part": self.part, "path": str(self.path), "written": written}
        place = {"part": self.part, "group": self.group, "uuid": self.uuid}
        return {**place, "staged": self.staged, "final": self.path.name, "written": written}

    @classmethod
    def of_volume(cls, target: Target, volume: Volume, written: Written | None = None) -> Self:
        """A volume that waits for its name."""
        return cls(target.part.name, target.path, written, volume.uuid, volume.name)


def write_record(folder: Path, disks: Iterable[BuiltDisk]) -> None:
    """volumes.json; nothing where there is nothing to say."""
    found = list(disks)
    lists = {
        "volumes": [disk.as_json() for disk in found if disk.uuid],
        "devices": [disk.as_json() for disk in found if not disk.uuid],
    }
    if found:
        write_durably(folder / RECORD, f"{json.dumps(lists)}\n".encode(), mode=0o600)


def read_record(folder: Path) -> tuple[BuiltDisk, ...]:
    """What was built outside this folder; nothing where there is no record."""
    path = folder / RECORD
    if not path.is_file():
        return ()
    try:
        lists = json.loads(path.read_bytes())
        return (*map(_read_volume, lists["volumes"]), *map(_read_device, lists["devices"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PipelineError(
            f"{path} is damaged: what was written to the guest's volumes is not known",
            hint="remove that file; then replace=yes builds over what is on them",
        ) from error


def _read_volume(table: Mapping[str, Any]) -> BuiltDisk:
    written = Written.from_json(table["written"]) if table["written"] else None
    path = Path("/dev", table["group"], table["final"])
    return BuiltDisk(str(table["part"]), path, written, str(table["uuid"]), str(table["staged"]))


def _read_device(table: Mapping[str, Any]) -> BuiltDisk:
    return BuiltDisk(str(table["part"]), Path(table["path"]), Written.from_json(table["written"]))


def note_times(folder: Path) -> None:
    """Remember the times of image files: a disk with another one has been written to."""
    disks = [path for suffix in ("img", "qcow2", "vhd") for path in folder.glob(f"*.{suffix}")]
    write_times(folder, {path.name: path.stat().st_mtime_ns for path in disks})


def write_times(folder: Path, times: Mapping[str, int]) -> None:
    """Image file to the time that it had when it was made."""
    write_durably(folder / TIMES, json.dumps(times).encode(), mode=0o600)


def read_times(folder: Path) -> dict[str, int]:
    """The same, read; empty where none was noted. Raises PipelineError for what is no such note."""
    path = folder / TIMES
    if not path.is_file():
        return {}
    try:
        times = json.loads(path.read_bytes())
        return {str(name): int(mtime_ns) for name, mtime_ns in times.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PipelineError(
            f"{path} is damaged: whether the guest has written to its disks is not known",
            hint="look at the disks; when they may be built anew, remove that file",
        ) from error


def mark_of(disk: Path) -> str:
    """What changes when a guest writes to its disk.

    A file's modification time; of a device the digest of its first MiB and that of each of its
    partitions: every file system that we make notes each mount there (ext4's s_mtime, xfs' and
    btrfs' generation).
    """
    try:
        state = disk.stat()
        if stat.S_ISREG(state.st_mode):
            return f"mtime {state.st_mtime_ns}"
        if not stat.S_ISBLK(state.st_mode):
            return GONE
        return f"head {hashlib.sha256(read_heads(disk)).hexdigest()}"
    except OSError:
        return GONE


def read_heads(device: Path) -> bytes:
    """The first MiB, and that of each partition of a whole disk; raises OSError."""
    with open(device, "rb", buffering=0) as stream:
        starts = [0, *(part.start for part in read_partitions(stream)[:_MOST_HEADS])]
        return b"".join(os.pread(stream.fileno(), HEAD, start) for start in starts)


def read_head(device: Path) -> bytes:
    """The first MiB; raises OSError."""
    with open(device, "rb", buffering=0) as stream:
        return stream.read(HEAD)
