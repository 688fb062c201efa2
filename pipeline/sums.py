"""Check sums of an artifact folder, in two files that standard programs write and read.

SHA256SUMS is sha256sum(1)'s: every file but the disks. FSVERITY is what `fsverity digest FILE...`
prints for the disks: a digest that does not have to hash their holes (pipeline/verity.py).
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.canonical import digest_file
from pipeline.errors import VerificationError
from pipeline.verity import measure_file

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
