"""What was booted, so that it can be told later whether it still lies there unchanged.

A disk has fs-verity's digest, as in the artifact's FSVERITY: SHA-256 of a sparse 4 GiB disk would
take longer than the proof's own work on it. Everything else has SHA-256. Size and time of change
are kept beside it: a glance trusts them, publishing does not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.sums import measure_file
from pipeline.errors import PipelineError
from pipeline.files import digest_file, read_table
from pipeline.proof.names import FOLDER, FORM, PROOF

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


@dataclass(frozen=True)
class Verdict:
    """`reason` says why it is not proven, "" when it is; `proven_at` is seconds since 1970.

    `unasked` are the checks that could not be asked, for want of a key for example.
    """

    reason: str
    proven_at: int = 0
    unasked: tuple[str, ...] = ()

    @property
    def is_proven(self) -> bool:
        """True when exactly these bytes booted under Xen and every check that was asked held."""
        return not self.reason


def read_verdict(folder: Path, *, is_glance: bool = False) -> Verdict:
    """The verdict on the artifact folder of a guest, or on a copy of it.

    Every file that was booted is measured again: about half a second for a disk of 4 GiB. With
    `is_glance` only files whose size or time changed are, which is what a list of guests wants.
    """
    path = folder / FOLDER / PROOF
    try:
        record = read_table(path, "a proof")
    except FileNotFoundError:
        return Verdict("it was never proven")
    except PipelineError as error:
        return Verdict(f"its proof cannot be read: {error}")
    if record.get("form") != FORM:
        return Verdict(f"its proof is of form {record.get('form')}, this pipeline writes {FORM}")
    at = int(record["proven_at"])
    if record["verdict"] != "proven":
        tail = f": {record['reason']}" if record["reason"] else ""
        return Verdict(f"its last proof says {record['verdict']}{tail}", at)
    seals = record["digests"]
    if not any(name.endswith(".cfg") for name in seals):
        return Verdict("its proof does not say what was booted", at)
    change = find_change(folder, seals, is_glance=is_glance)
    unasked = tuple(check["name"] for check in record["checks"] if check["ok"] is None)
    return Verdict(f"changed since its proof: {change}" if change else "", at, unasked)
