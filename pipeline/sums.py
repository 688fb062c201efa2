"""Check sums of an artifact folder, in two files that standard programs write and read.

SHA256SUMS is sha256sum(1)'s: every file but the disks. FSVERITY is what `fsverity digest FILE...`
prints for the disks: a digest that does not have to hash their holes (pipeline/verity.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.canonical import digest_file
from pipeline.verity import measure_file

SUMS = "SHA256SUMS"
DISK_SUMS = "FSVERITY"
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


def digest_as(recorded: str, path: Path) -> str:
    """A file's digest of the same kind as a recorded one."""
    return measure_file(path) if recorded.startswith("sha256:") else digest_file(path)
