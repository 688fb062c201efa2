"""fs-verity digests: the digest of a disk without reading its holes.

SHA-256 over a sparse disk of 4 GiB has to hash 4 GiB of zeros, 2.5 s for 270 MB of content. The
digest that Linux defines for fs-verity is the root of a Merkle tree over blocks of 4 KiB, so the
trees of holes are constants. `fsverity digest FILE` (Debian's fsverity) prints the same. Source:
Documentation/filesystems/fsverity.rst of Linux, sections "Merkle tree" and "fs-verity descriptor".
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.canonical import data_extents

BLOCK = 4096
_HASHES = BLOCK // hashlib.sha256().digest_size  # 128 hashes fill a block of the tree
_GROUP = BLOCK * _HASHES  # what one block of the lowest tree level stands for
_VERSION, _SHA256, _LOG_BLOCK = 1, 1, 12


def _sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()


_ZERO_BLOCK = bytes(BLOCK)
_ZERO_HASH = _sha256(_ZERO_BLOCK)
_ZERO_GROUP_HASH = _sha256(_ZERO_HASH * _HASHES)


def measure_file(path: Path) -> str:
    """The fs-verity digest as `fsverity digest` prints it: "sha256:" and 64 hex digits."""
    size = _size_of(path)
    # struct fsverity_descriptor: root hash in 64 bytes, no salt, 144 bytes reserved
    descriptor = struct.pack(
        "<BBBBIQ64s32x144x", _VERSION, _SHA256, _LOG_BLOCK, 0, 0, size, _root_hash(path, size)
    )
    return f"sha256:{hashlib.sha256(descriptor).hexdigest()}"


def _size_of(path: Path) -> int:
    """In bytes, of a file or of a block device, whose inode has none."""
    with open(path, "rb", buffering=0) as stream:
        return stream.seek(0, os.SEEK_END)


def _root_hash(path: Path, size: int) -> bytes:
    """Level by level until one hash is left; an empty file has no tree and a root of zeros."""
    if size == 0:
        return b""
    if size <= BLOCK:
        return _sha256(path.read_bytes().ljust(BLOCK, b"\0"))
    level = b"".join(_group_hashes(path, size))
    while len(level) > hashlib.sha256().digest_size:
        level = b"".join(
            _sha256(level[start : start + BLOCK].ljust(BLOCK, b"\0"))
            for start in range(0, len(level), BLOCK)
        )
    return level


def _group_hashes(path: Path, size: int) -> Iterator[bytes]:
    """The hash of each block of the lowest tree level, 512 KiB of the file at a time."""
    with open(path, "rb", buffering=0) as stream:
        full = set(_touched_groups(stream.fileno(), size))
        for group in range(-(-size // _GROUP)):
            start = group * _GROUP
            length = min(_GROUP, size - start)
            if group in full:
                yield _hash_group(os.pread(stream.fileno(), length, start))
            elif length == _GROUP:
                yield _ZERO_GROUP_HASH
            else:
                yield _sha256((_ZERO_HASH * -(-length // BLOCK)).ljust(BLOCK, b"\0"))


def _touched_groups(descriptor: int, size: int) -> Iterator[int]:
    for start, end in data_extents(descriptor, size):
        yield from range(start // _GROUP, -(-end // _GROUP))


def _hash_group(data: bytes) -> bytes:
    view = memoryview(data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0"))
    hashes = [
        _ZERO_HASH if block == _ZERO_BLOCK else _sha256(block)
        for block in (view[start : start + BLOCK] for start in range(0, len(view), BLOCK))
    ]
    return _sha256(b"".join(hashes).ljust(BLOCK, b"\0"))
