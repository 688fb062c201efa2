"""A guest's file systems where they lie, judged each by itself, and read together as its tree.

ext is read as it is. The kernel alone reads xfs and btrfs: what is in them is copied into an ext
image, from a mount that nobody else sees and that is written to by nobody.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from pipeline.check.built_disk import find_partitions
from pipeline.errors import CommandFailed, VerificationError
from pipeline.process import run
from pipeline.spec import Spec
from pipeline.spec.devices import Part
from pipeline.storage.ext import ExtImage
from pipeline.storage.filesystems import (
    MOUNTED,
    FileSystemAt,
    check_mounted,
    one_at_a_time,
    require_mounting,
)
from pipeline.storage.joined_image import JoinedImage
from pipeline.storage.root_place import Place
from pipeline.walls.beneath import take
from pipeline.walls.cage import caged, caged_reader, make_room

MIB = 1 << 20
PATIENCE_S = 600
_ENDED = re.compile(r": \d+/\d+ files \(")
_READS_ALL = (
    *("setpriv", "--no-new-privs", "--inh-caps=-all"),
    *("--bounding-set=-all,+dac_override,+dac_read_search", "--"),
)
# where its superblock is and what is in it (xfs_sb, btrfs_super_block of Linux)
_XFS, _BTRFS_AT, _BTRFS = ">4sIQ16x16s", 64 << 10, "<32x16s16x8s40xQ"


@dataclass(frozen=True, kw_only=True)
class FileSystem:
    """What the superblock says and its own checker finds. `faults` is "" for a clean one."""

    features: frozenset[str]
    uuid: str
    size: int
    faults: str


def find_places(spec: Spec, raws: Mapping[str, Path], work: Path) -> dict[Part, Place]:
    """Where each of the guest's file systems lies; `raws` are its disks by part's name.

    One that its checker takes as a file alone is copied out of its partition, into `work`. Raises
    VerificationError for a partition that is gone.
    """
    parts = [part for part in spec.parts if part.has_files]
    if not spec.is_whole:
        return {part: Place(disk=raws[part.name]) for part in parts}
    raw = raws[spec.disks[0].name]
    partitions = find_partitions(raw, spec)
    places = {}
    for part in parts:
        own = partitions[part]
        places[part] = Place(disk=raw, offset=own.start, size=own.size)
        if part.fs in MOUNTED:
            copy = work / f"{part.name}.part"
            words = ["dd", f"if={raw}", f"of={copy}", f"skip={own.start}", f"count={own.size}"]
            words += ["iflag=skip_bytes,count_bytes", "bs=1M", "conv=sparse", "status=none"]
            run(caged_reader(words, readable=[raw], writable=[work]))
            places[part] = Place(disk=copy)
    return places


@contextmanager
def opened_tree(
    places: Mapping[Part, Place], work: Path, judged: Mapping[Part, FileSystem] | None = None
) -> Iterator[ExtImage]:
    """All of them as one tree; `judged` says what is known of them already.

    Raises EnvironmentFault where one has to be mounted and cannot, VerificationError for one that
    is damaged: the kernel does not see it.
    """
    require_mounting(part.fs for part in places)
    readable = {}
    for part, place in places.items():
        readable[part.mountpoint] = place
        if part.fs in MOUNTED:
            _refuse_damaged(part, (judged or {}).get(part) or read_file_system(place, part.fs))
            readable[part.mountpoint] = _copy_to_ext(part, place, work)
    root = readable.pop("/")
    with JoinedImage(root, readable) if readable else _open(root) as image:
        yield image


def _open(root: Place) -> ExtImage:
    return ExtImage(root.disk, offset=root.offset)


def _refuse_damaged(part: Part, system: FileSystem) -> None:
    if system.faults:
        raise VerificationError(
            f"{part.mountpoint}: its {part.fs} is damaged, and is not mounted",
            details=system.faults,
            hint="start the guest once, or build it again with replace=yes",
        )


def _copy_to_ext(part: Part, place: Place, work: Path) -> Place:
    """An ext image with the same files, which takes what they take."""
    room, copy = make_room(work / f"{part.name}.room"), work / f"{part.name}.ext"
    point, image = room / "mounted", room / "image"
    size_mib = part.size_mib * 2 + 64
    make = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-b", "4096", "-i", "4096"]
    mount = FileSystemAt(place=place, fs=part.fs).mount_argv(writable=False)
    words = caged(
        [*_READS_ALL, *make, "-m", "0", "-E", "nodiscard", "-d", point, image, f"{size_mib}M"],
        room=room,
        readable=[] if place.disk.is_block_device() else [place.disk],
        before=[["mkdir", point], [*mount, point]],
        mounts_files=True,
    )
    try:
        with one_at_a_time([part.fs]):
            run(words)
    except CommandFailed as error:
        raise VerificationError(
            f"{place.disk.name}: its {part.fs} cannot be read", details=error.details
        ) from error
    take(room, image.name, copy)
    return Place(disk=copy)


def read_file_system(place: Place, fs: str) -> FileSystem:
    """The superblock's facts, and its checker's opinion of the whole: it changes nothing."""
    return _read_mounted(place, fs) if fs in MOUNTED else _read_ext(place)


def _read_ext(place: Place) -> FileSystem:
    header = _ask(place.disk, ["dumpe2fs", "-h", place.name])
    fields = dict(re.findall(r"^([^:\n]+):[ \t]+(.*)$", header, re.MULTILINE))
    counts = [fields.get("Block count", ""), fields.get("Block size", "")]
    if not all(count.isdecimal() for count in counts):
        return FileSystem(features=frozenset(), uuid="", size=0, faults="no ext file system")
    words = _ask(place.disk, ["e2fsck", "-f", "-n", place.name])
    faults = [line for line in words.splitlines() if _is_fault(line)]
    if not faults and not _ENDED.search(words):
        faults = ["e2fsck did not come to its end"]
    return FileSystem(
        features=frozenset(fields.get("Filesystem features", "").split()),
        uuid=fields.get("Filesystem UUID", ""),
        size=int(counts[0]) * int(counts[1]),
        faults="; ".join(faults[:3]),
    )


def _read_mounted(place: Place, fs: str) -> FileSystem:
    with open(place.disk, "rb") as stream:
        head = stream.read(_BTRFS_AT + 4096).ljust(_BTRFS_AT + 4096, b"\0")
    if fs == "xfs":
        magic, block, count, own = struct.unpack_from(_XFS, head)
        is_one, size = magic == b"XFSB", block * count
    else:
        own, magic, size = struct.unpack_from(_BTRFS, head, _BTRFS_AT)
        is_one = magic == b"_BHRfS_M"
    if not is_one:
        return FileSystem(features=frozenset(), uuid="", size=0, faults=f"no {fs} file system")
    try:
        check_mounted(run, place.disk, fs)
        faults = ""
    except CommandFailed as error:
        faults = "; ".join(error.details.strip().splitlines()[-3:]) or "its checker failed"
    return FileSystem(features=frozenset(), uuid=str(UUID(bytes=own)), size=size, faults=faults)


def _ask(image: Path, argv: list[object]) -> str:
    """What a program of e2fsprogs says; its status says less, and a damaged superblock kills it."""
    words = ["timeout", "-k", "5", PATIENCE_S, *argv]
    return run(caged_reader(words, readable=[image]), accept=tuple(range(256)))


def _is_fault(line: str) -> bool:
    """e2fsck's report of a clean file system is its name, five passes and the counts."""
    line = line.strip()
    return bool(line) and not re.match(r"e2fsck \d|Pass \d", line) and not _ENDED.search(line)
