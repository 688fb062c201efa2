"""Check sums of an artifact folder, in two files that standard programs write and read.

SHA256SUMS is sha256sum(1)'s: every file but the disks. FSVERITY is what `fsverity digest FILE...`
prints for the disks: a digest that does not have to hash their holes (pipeline/artifact/sums.py).
"""

import hashlib
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline import process
from pipeline.errors import VerificationError
from pipeline.files import data_extents, digest_file, sync_file, sync_folder
from pipeline.walls.privacy import make_private

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


SUMS = "SHA256SUMS"
DISK_SUMS = "FSVERITY"
_LIMIT = 1 << 20
_FILE_LIMIT, _DISK_LIMIT = 4 << 30, 64 << 40
_LINE = re.compile(r"^([0-9a-f]{64} |sha256:[0-9a-f]{64}) ([^/\n]+)$", re.MULTILINE)


def write_sums(folder: Path, *, disks: Iterable[str]) -> None:
    """Both files for what lies in `folder`; `disks` are names or patterns of Path.match."""
    patterns = tuple(disks)
    files = sorted(path for path in folder.iterdir() if path.name not in (SUMS, DISK_SUMS))
    images = [path for path in files if any(path.match(pattern) for pattern in patterns)]
    with ThreadPoolExecutor(2) as pool:  # hashing frees the interpreter's lock
        others = {path: pool.submit(digest_file, path) for path in files if path not in images}
        measured = {path: pool.submit(measure_file, path) for path in images}
    lines = [f"{found.result()}  {path.name}\n" for path, found in others.items()]
    (folder / SUMS).write_text("".join(lines))
    lines = [f"{found.result()} {path.name}\n" for path, found in measured.items()]
    (folder / DISK_SUMS).write_text("".join(lines))


def read_sums(text: str) -> Mapping[str, str]:
    """File name to digest, from either file; "sha256:" stands before an fs-verity digest."""
    return {name: digest.rstrip() for digest, name in _LINE.findall(text)}


def read_sum_file(path: Path) -> Mapping[str, str]:
    """The same from a file in which nothing else may stand: VerificationError for another line.

    FileNotFoundError where there is none.
    """
    if path.stat().st_size > _LIMIT:
        raise VerificationError(f"{path} is larger than {_LIMIT >> 20} MiB", hint="build it again")
    text = path.read_text(errors="replace")
    found = read_sums(text)
    if len(found) != len(text.splitlines()) or {".", ".."} & set(found):
        raise VerificationError(f"{path} is damaged", hint="build it again, with replace=yes")
    return found


def is_as_summed(path: Path, recorded: str) -> bool:
    """Whether a path is a plain file, no link, with the recorded digest.

    Of a file that is absurdly large the holes would be hashed for hours: it is not asked.
    """
    try:
        state = path.lstat()
    except OSError:
        return False
    limit = _DISK_LIMIT if recorded.startswith("sha256:") else _FILE_LIMIT
    if not stat.S_ISREG(state.st_mode) or state.st_size > limit:
        return False
    return digest_as(recorded, path) == recorded


def digest_as(recorded: str, path: Path) -> str:
    """A file's digest of the same kind as a recorded one."""
    return measure_file(path) if recorded.startswith("sha256:") else digest_file(path)


def copy_disk(source: Path, target: Path, *, recorded: str = "", log: Path | None = None) -> None:
    """A sparse copy, or a reflink, on the disk when this returns; `target` must not be there.

    `recorded` is the digest that it must have, VerificationError where it has not.
    """
    make_private(target)
    process.run(["cp", "--sparse=always", "--reflink=auto", "--", source, target], log=log)
    if recorded and digest_as(recorded, target) != recorded:
        raise VerificationError(
            f"{target} is not what was copied from {source}",
            hint="it changed meanwhile, or a disk or the memory fails: see dmesg and smartctl",
        )
    sync_file(target)
    sync_folder(target.parent)
