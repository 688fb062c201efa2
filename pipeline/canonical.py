"""Canonical JSON, digests, durable writes: how inputs become fingerprints, files stay whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.interruption import gate, passing

CHUNK = 1 << 20
_ZEROS = bytes(CHUNK)


def canonical_json(value: object) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8 (after RFC 8785's idea)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def fingerprint(value: object) -> str:
    """sha256 (hex) over the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes, holes as zeros without reading them (lseek(2), SEEK_DATA)."""
    digest = hashlib.sha256()
    with open(open_plain(path), "rb", buffering=0) as stream:
        handle = stream.fileno()
        size = os.fstat(handle).st_size
        position = 0
        for data, hole in data_extents(handle, size):
            _update_zeros(digest, data - position)
            os.lseek(handle, data, os.SEEK_SET)
            for start in range(data, hole, CHUNK):
                digest.update(stream.read(min(CHUNK, hole - start)))
            position = hole
        _update_zeros(digest, size - position)
    return digest.hexdigest()


def open_plain(path: Path) -> int:
    """A regular file for reading; OSError for a link, FIFO, device or folder, without a wait."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def data_extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) in bytes of what is no hole in an open file (lseek(2), SEEK_DATA)."""
    position = 0
    while position < size:
        start = _seek(descriptor, position, os.SEEK_DATA, size)
        position = _seek(descriptor, start, os.SEEK_HOLE, size)
        if start < size:
            yield start, position


def _seek(handle: int, position: int, whence: int, size: int) -> int:
    try:
        return os.lseek(handle, position, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole from here on
            return size
        raise


def _update_zeros(digest: hashlib._Hash, count: int) -> None:
    whole, rest = divmod(count, CHUNK)
    for _ in range(whole):
        digest.update(_ZEROS)
    digest.update(_ZEROS[:rest])


def digest_tree(root: Path) -> dict[str, str]:
    """Each file below `root`: relative path -> mode and sha256; links by their target."""
    found: dict[str, str] = {}
    for path in _walk(root):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = f"link {os.readlink(path)}"
        else:
            executable = "x" if path.stat().st_mode & 0o111 else "-"
            found[name] = f"{executable} {digest_file(path)}"
    return found


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(files):
            yield Path(folder, name)


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level: {"a": {"b": 1}} -> {"a: b": 1}, for comparing inputs."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat.update(flatten(inner, f"{prefix}{key}: "))
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


def write_durably(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file through a temporary neighbour, fsync and rename: whole or absent."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with passing(path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")) as aside:
        with open(os.open(aside, flags, mode), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        with gate("replace", path):
            os.replace(aside, path)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable (fsync(2) on a directory)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
