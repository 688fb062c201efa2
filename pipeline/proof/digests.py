"""What was booted, so that it can be told later whether it still lies there unchanged.

A disk has fs-verity's digest, as in the artifact's FSVERITY: SHA-256 of a sparse 4 GiB disk would
take longer than the proof's own work on it. Everything else has SHA-256. Size and time of change
are kept beside it: a glance trusts them, publishing does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.canonical import digest_file
from pipeline.verity import measure_file

SHA256, VERITY = "sha256", "fs-verity"
Seal = dict[str, Any]


def seal_files(folder: Path, files: Iterable[Path], disks: Iterable[Path] = ()) -> dict[str, Seal]:
    """A seal for each file: by its name below `folder`, else by its full path."""
    kinds = [*((path, SHA256) for path in files), *((path, VERITY) for path in disks)]
    return {name_below(folder, path): _seal(path, kind) for path, kind in kinds}


def name_below(folder: Path, path: Path) -> str:
    """Relative inside the artifact folder, so that a copy of the folder is recognised too."""
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def find_change(folder: Path, seals: Mapping[str, Seal], *, is_glance: bool = False) -> str:
    """What is no longer as it was sealed, in words; "" when all is.

    A glance reads a file only when its size or time of change differ from the seal's.
    """
    for name, seal in seals.items():
        path = folder / name
        try:
            stamp = _stamp(path)
            if is_glance and seal.get("mtime_ns") and stamp == (seal["size"], seal["mtime_ns"]):
                continue
            if _measure(path, seal["kind"]) != seal["digest"]:
                return f"{name} is not what was booted"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return ""


def _seal(path: Path, kind: str) -> Seal:
    size, mtime_ns = _stamp(path)
    return {"kind": kind, "digest": _measure(path, kind), "size": size, "mtime_ns": mtime_ns}


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change; (0, 0) for a block device, whose inode says nothing about it."""
    status = path.stat()
    return (0, 0) if path.is_block_device() else (status.st_size, status.st_mtime_ns)


def _measure(path: Path, kind: str) -> str:
    return measure_file(path) if kind == VERITY else digest_file(path)
