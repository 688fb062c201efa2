"""A file of an artifact on its way: its blocks that are no zeros, packed by zstd; and back."""

import os
from collections.abc import Iterable
from pathlib import Path

from pipeline.artifact.block_stream import read_stream, write_stream
from pipeline.errors import VerificationError
from pipeline.files import digest_file
from pipeline.shared.entry import Part


def pack(folder: Path, name: str, target: Path, *, sha256: str = "") -> Part:
    """Pack a file of `folder` into `target`, which is new; `sha256` is its digest if it is known.

    Whoever unpacks it asks whether it is right.
    """
    path = folder / name
    write_stream(path, target)
    state = path.stat()
    return Part(
        name=name,
        size=state.st_size,
        sha256=sha256 or digest_file(path),
        packed_size=target.stat().st_size,
        packed_sha256=digest_file(target),
        data_bytes=min(state.st_blocks * 512, state.st_size),
        mode=state.st_mode & 0o777,
    )


def write_pieces(pieces: Iterable[bytes], target: Path, expected: int, where: str) -> None:
    """What comes from a place, as a file; VerificationError unless it has so many bytes."""
    size = 0
    with open(target, "wb") as file:
        for piece in pieces:
            size += len(piece)
            if size > expected:
                raise _refusal(where, f"more than {expected} bytes")
            file.write(piece)
    if size < expected:
        raise _refusal(where, f"cut short after {size} of {expected} bytes")


def unpack(packed: Path, folder: Path, part: Part, where: str) -> Path:
    """Make the file below `folder`; VerificationError unless it is what was packed."""
    target, where = folder / part.name, f"{where}: {part.name}"
    if digest_file(packed) != part.packed_sha256:
        raise _refusal(where, "other bytes than were packed")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        read_stream(packed, target, size=part.size)
    except VerificationError as error:
        raise _refusal(where, error.brief) from error
    if digest_file(target) != part.sha256:
        raise _refusal(where, "it unpacks to other bytes")
    os.chmod(target, part.mode)
    return target


def _refusal(where: str, why: str) -> VerificationError:
    return VerificationError(f"{where}: {why}", hint="nothing of it was used")
