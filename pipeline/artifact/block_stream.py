"""An image on its way: its blocks that are no zeros, or those that another image has not.

One zstd frame: a magic, the image's size, then runs of blocks, each a kind and a count: zeros,
data that follow, or a copy from a place of the older image. ext4 puts files at other places from
one night to the next, but always on a block: what a file has kept is found wherever it lies.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from pipeline.errors import VerificationError
from pipeline.files import data_extents
from pipeline.walls.privacy import make_private

BLOCK = 4096
_MAGIC = b"DOMU-BLOCKS-1\n"
_HEAD = struct.Struct("<Q")  # the image's size in bytes
_RUN = struct.Struct("<BIQ")  # kind, number of blocks, first block of the older image
_END, _ZEROS, _DATA, _COPY = range(4)
_ZERO_BLOCK = bytes(BLOCK)
_STEP = 256  # blocks that are held at once
# 63 MB of a bookworm image in 1.4 s of processor time; level 9 makes 56 of it in 5.6, every night
_LEVEL, _DELTA_LEVEL = 3, 9
_WINDOW_LOG = 25  # 32 MiB, what a reader must hold
_DIGEST_BYTES = 16


def write_stream(image: Path, target: Path, *, older: Path | None = None) -> None:
    """Write an image's blocks; with `older` only those that this one has not."""
    settings = zstandard.ZstdCompressionParameters.from_level(
        _DELTA_LEVEL if older else _LEVEL,
        window_log=_WINDOW_LOG,
        enable_ldm=True,
        threads=-1,
        write_checksum=True,
    )
    known = _Blocks(older) if older else None
    size = image.stat().st_size
    with (
        open(image, "rb", buffering=0) as source,
        open(target, "xb") as file,
        zstandard.ZstdCompressor(compression_params=settings).stream_writer(file) as packed,
    ):
        packed.write(_MAGIC + _HEAD.pack(size))
        for kind, count, place in _find_runs(source, size, known):
            packed.write(_RUN.pack(kind, count, place))
            if kind == _DATA:
                packed.write(_read_blocks(source, place, count))
        packed.write(_RUN.pack(_END, 0, 0))


def read_stream(packed: Path, target: Path, *, size: int, older: Path | None = None) -> None:
    """Make the image at `target`, which must not be there; `older` is the one that was left out.

    Raises VerificationError for a stream that is damaged or of an image that is not of this size.
    Whether it is the right one its digest says.
    """
    reader = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
    make_private(target)
    with open(packed, "rb") as file, open(target, "r+b", buffering=0) as image:
        try:
            with reader.stream_reader(file) as stream:
                _read_runs(_Exactly(stream), image, size, older)
        except (zstandard.ZstdError, struct.error, ValueError) as error:
            raise VerificationError(
                f"{packed.name}: no stream of this image ({error})", hint="fetch it again"
            ) from None
        os.fsync(image.fileno())


class _Exactly:
    """A stream that gives all that it is asked for, or ValueError."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        pieces: list[bytes] = []
        while size:
            piece = self._stream.read(size)
            if not piece:
                raise ValueError("it is cut short")
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


class _Blocks:
    """The blocks of an image by digest; the first place of each."""

    def __init__(self, image: Path) -> None:
        self.places: dict[bytes, int] = {}
        self.digests: dict[int, bytes] = {}
        size = image.stat().st_size
        with open(image, "rb", buffering=0) as source:
            for place, block in _blocks_of(source, size):
                digest = _digest(block)
                self.digests[place] = digest
                self.places.setdefault(digest, place)

    def find(self, digest: bytes, expected: int) -> int | None:
        """Where such a block is: at the `expected` place if it can be."""
        return expected if self.digests.get(expected) == digest else self.places.get(digest)


def _digest(block: bytes) -> bytes:
    return hashlib.blake2b(block, digest_size=_DIGEST_BYTES).digest()


def _blocks_of(source: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Number and content of every block that is neither a hole nor zeros."""
    done = 0
    for start, end in data_extents(source.fileno(), size):
        first, last = max(done, start // BLOCK), -(-end // BLOCK)
        for at in range(first, last, _STEP):
            count = min(_STEP, last - at)
            piece = _read_blocks(source, at, count)
            for number in range(count):
                block = piece[number * BLOCK : (number + 1) * BLOCK]
                if block != _ZERO_BLOCK:
                    yield at + number, block
        done = max(done, last)


def _read_blocks(source: BinaryIO, first: int, count: int) -> bytes:
    """Whole blocks: what the last one lacks is zeros."""
    return os.pread(source.fileno(), count * BLOCK, first * BLOCK).ljust(count * BLOCK, b"\0")


def _find_runs(
    source: BinaryIO, size: int, known: _Blocks | None
) -> Iterator[tuple[int, int, int]]:
    """Kind, count and place: of data its own, of a copy that in the older image."""
    kind, count, place, after = _END, 0, 0, 0
    for number, block in _blocks_of(source, size):
        gap = number - after
        expected = place + count if kind == _COPY and not gap else number
        old = known.find(_digest(block), expected) if known else None
        now, at = (_DATA, number) if old is None else (_COPY, old)
        if not gap and now == kind and at == place + count and (now == _COPY or count < _STEP):
            count += 1
        else:
            if count:
                yield kind, count, place
            if gap:
                yield _ZEROS, gap, 0
            kind, count, place = now, 1, at
        after = number + 1
    if count:
        yield kind, count, place
    if rest := -(-size // BLOCK) - after:
        yield _ZEROS, rest, 0


def _read_runs(stream: _Exactly, image: BinaryIO, size: int, older: Path | None) -> None:
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("another form")
    (told,) = _HEAD.unpack(stream.read(_HEAD.size))
    if told != size:
        raise ValueError(f"of {told} bytes, not of {size}")
    os.truncate(image.fileno(), size)
    at, blocks = 0, -(-size // BLOCK)
    with open(older or os.devnull, "rb", buffering=0) as source:
        while True:
            kind, count, place = _RUN.unpack(stream.read(_RUN.size))
            if kind == _END:
                break
            at += count
            if (
                kind not in (_ZEROS, _DATA, _COPY)
                or at > blocks
                or (kind == _DATA and count > _STEP)
            ):
                raise ValueError("a run that cannot be")
            if kind == _DATA:
                _put(image, at - count, stream.read(count * BLOCK), size)
            elif kind == _COPY:
                _copy(source, image, place, at - count, count, size)
    if at != blocks:
        raise ValueError("it is cut short")


def _copy(source: BinaryIO, image: BinaryIO, place: int, first: int, count: int, size: int) -> None:
    for done in range(0, count, _STEP):
        step = min(_STEP, count - done)
        piece = os.pread(source.fileno(), step * BLOCK, (place + done) * BLOCK)
        if not piece:
            raise ValueError("a copy of what the older image has not")
        _put(image, first + done, piece.ljust(step * BLOCK, b"\0"), size)


def _put(image: BinaryIO, first: int, content: bytes, size: int) -> None:
    """The last block ends with the image."""
    at = first * BLOCK
    os.pwrite(image.fileno(), content[: size - at], at)
