"""XVA, what `xe vm-import` and Xen Orchestra take: a tar of ova.xml and of blocks of 1 MiB.

What an importer demands (xapi's ocaml/xapi/stream_vdi.ml and import.ml): ova.xml first; then disk
after disk in the order of their references as strings, the first and the last block of each always,
others that are zero left out, the names %08d; after each block a file with its checksum: as SHA-1
every host knows it (.checksum), as XXH64 (.xxhash) those after XCP-ng 8.0.
"""

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import xxhash

from pipeline.errors import PipelineError
from pipeline.files import data_extents
from pipeline.formats.ova_xml import Disk, Machine, render_ova, vdi_ref

REVISION = 1  # of the bytes that are written
BLOCK = 1 << 20
DESCRIPTION = "ova.xml"
SUFFIXES = {"sha1": ".checksum", "xxhash": ".xxhash"}
Checksum = Literal["sha1", "xxhash"]
_RECORD = tarfile.BLOCKSIZE
_ZEROS = bytes(BLOCK)


@dataclass(frozen=True)
class Source:
    """A raw image, or a block device, and what an importer calls the disk."""

    path: Path
    label: str


@dataclass(frozen=True)
class _Tar:
    """A tar that says nothing of who wrote it, nor when."""

    target: IO[bytes]
    epoch: int

    def add(self, name: str, content: bytes | memoryview) -> None:
        head = tarfile.TarInfo(name)
        head.size, head.mtime, head.mode = len(content), self.epoch, 0o644
        self.target.write(head.tobuf(tarfile.USTAR_FORMAT))
        self.target.write(content)
        self.target.write(bytes(-len(content) % _RECORD))


def write_xva(
    sources: Sequence[Source],
    target: IO[bytes],
    machine: Machine,
    *,
    epoch: int,
    checksum: Checksum = "sha1",
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Stream disks into an XVA; the machine boots from the first.

    The same disks and machine give the same bytes, all with the time `epoch`. `advance` hears
    after each block how much of a disk is done. Raises PipelineError for a first disk below 1 MiB:
    the length of its first block is the unit of what is left out of all disks.
    """
    disks = [Disk(_size_of(source.path), source.label) for source in sources]
    if disks[0].size < BLOCK:
        raise PipelineError(
            f"{sources[0].path}: the first disk of an XVA has 1 MiB at least", hint="a larger disk"
        )
    tar = _Tar(target, epoch)
    tar.add(DESCRIPTION, render_ova(machine, disks).encode())
    for number, (source, disk) in enumerate(zip(sources, disks, strict=True)):
        with open(source.path, "rb", buffering=0) as stream:
            _add_disk(tar, vdi_ref(number), stream.fileno(), disk.size, checksum, advance)
    target.write(bytes(2 * _RECORD))


def digest_block(block: bytes | memoryview, suffix: str) -> str:
    """What stands in the file with this suffix behind a block."""
    if suffix == SUFFIXES["xxhash"]:
        return xxhash.xxh64(block).hexdigest().upper()
    return hashlib.sha1(block, usedforsecurity=False).hexdigest()


def _add_disk(
    tar: _Tar,
    ref: str,
    handle: int,
    size: int,
    checksum: Checksum,
    advance: Callable[[int], None],
) -> None:
    last = (size - 1) // BLOCK
    done = 0
    for number in _find_blocks(handle, size):
        block = os.pread(handle, min(BLOCK, size - number * BLOCK), number * BLOCK)
        if number in (0, last) or block != _ZEROS:
            name = f"{ref}/{number:08d}"
            tar.add(name, block)
            tar.add(f"{name}{SUFFIXES[checksum]}", digest_block(block, SUFFIXES[checksum]).encode())
        advance(number * BLOCK + len(block) - done)
        done = number * BLOCK + len(block)


def _find_blocks(handle: int, size: int) -> Iterator[int]:
    """The first, the last, and what is no hole, each once and rising."""
    last, seen = (size - 1) // BLOCK, 0
    yield 0
    for start, end in data_extents(handle, size):
        for number in range(max(start // BLOCK, seen + 1), -(-end // BLOCK)):
            yield number
            seen = number
    if seen < last:
        yield last


def _size_of(path: Path) -> int:
    with open(path, "rb") as stream:
        return stream.seek(0, os.SEEK_END)
