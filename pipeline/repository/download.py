"""Big files of a repository: resumed where they were broken off, whole and right or not there."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.console.progress import Bar, progress_bar
from pipeline.errors import VerificationError
from pipeline.files import digest_file
from pipeline.interruption import gate
from pipeline.mirror.fetch import ATTEMPTS, PAUSE_S, open_at
from pipeline.mirror.trouble import MirrorTrouble, TooSlow
from pipeline.storage.refusals import require_folder_room


def download(url: str, target: Path, *, size: int, sha256: str, what: str) -> int:
    """Fetch into `target`; VerificationError unless size in bytes and sha256 (hex) match.

    What a broken-off download left is gone on with, whatever it was: if the whole is not right
    then, it is fetched once more from its beginning. The caller sees to it that nobody else does
    the same. Returns how many bytes came.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{sha256}.part")
    require_folder_room(target.parent, size)
    with progress_bar(f"fetching {what}", total=size, unit="B") as bar:
        kept = _size_of(part)
        came = _fill(url, part, size, bar)
        if kept and not _is_right(part, size, sha256):
            part.unlink()
            came += _fill(url, part, size, bar)
    if not _is_right(part, size, sha256):
        part.unlink(missing_ok=True)
        raise VerificationError(
            f"{url}: not what was signed", hint="nothing of it was used; tell its owner"
        )
    with gate("keep", target):
        os.replace(part, target)
    return came


def _size_of(part: Path) -> int:
    return part.stat().st_size if part.is_file() and not part.is_symlink() else 0


def _is_right(part: Path, size: int, sha256: str) -> bool:
    return _size_of(part) == size and digest_file(part) == sha256


def _fill(url: str, part: Path, size: int, bar: Bar) -> int:
    """Fetch what is missing, in several goes if need be; returns how many bytes came."""
    came = 0
    for number in range(ATTEMPTS):
        time.sleep(PAUSE_S * (2**number - 1))
        try:
            for count in _append(url, part, size):
                came += count
                bar.advance(count)
            return came
        except TooSlow:
            raise
        except MirrorTrouble:
            if number == ATTEMPTS - 1:
                raise
    return came


def _append(url: str, part: Path, size: int) -> Iterator[int]:
    """The bytes of each piece that is written; VerificationError where more come than may."""
    start = _size_of(part)
    if start >= size:
        return
    with (
        open_at(url, start, limit=size - start) as (begun, pieces),
        open(part, "r+b" if start else "xb") as file,
    ):
        file.truncate(begun)
        file.seek(begun)
        for piece in pieces:
            if file.tell() + len(piece) > size:
                raise VerificationError(
                    f"{url}: it sends more than the {size} bytes that were signed",
                    hint="nothing of it was used; tell its owner",
                )
            file.write(piece)
            yield len(piece)
        if file.tell() < size:
            raise MirrorTrouble(f"{url}: cut short after {file.tell()} of {size} bytes")
