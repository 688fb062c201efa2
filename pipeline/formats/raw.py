"""A raw disk copied in one pass: holes stay holes where the target is a file, zeros in a pipe."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from pipeline.files import data_extents

_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)


def write_raw(
    disk: Path, target: IO[bytes], *, is_sparse: bool, advance: Callable[[int], object]
) -> None:
    """Copy a file or block device into an empty file, or into a pipe.

    `advance` is told the bytes of the disk that are done, holes too.
    """
    with open(disk, "rb", buffering=0) as stream:
        size, done = stream.seek(0, 2), 0
        for start, end in data_extents(stream.fileno(), size):
            _skip(target, start - done, is_sparse=is_sparse)
            for at in range(start, end, _PIECE):
                piece = os.pread(stream.fileno(), min(_PIECE, end - at), at)
                if is_sparse and piece == _ZEROS:
                    target.seek(len(piece), os.SEEK_CUR)
                else:
                    target.write(piece)
                advance(at + len(piece) - done)
                done = at + len(piece)
        _skip(target, size - done, is_sparse=is_sparse)
        advance(size - done)
        if is_sparse:
            target.truncate(size)


def _skip(target: IO[bytes], count: int, *, is_sparse: bool) -> None:
    if is_sparse:
        target.seek(count, os.SEEK_CUR)
        return
    for start in range(0, count, _PIECE):
        target.write(_ZEROS[: min(_PIECE, count - start)])
