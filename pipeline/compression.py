"""Packed content: every form that kernels, packages and indexes come in, unpacked with bounds.

Strangers packed it: a few kilobytes may unpack to terabytes, or want a dictionary of 4 GiB.
"""

import bz2
import gzip
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import IO, Protocol, cast

MAGICS = (
    (b"\x7fELF", "none"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\x5d\x00\x00", "lzma"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x89LZO", "lzo"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
SUFFIXES = {
    "": "none",
    ".gz": "gzip",
    ".bz2": "bzip2",
    ".lzma": "lzma",
    ".xz": "xz",
    ".lz4": "lz4",
    ".zst": "zstd",
}
_MIB = 1 << 20
MOST_UNPACKED = 512 * _MIB  # no kernel or initrd has more
_MOST_MEMORY = 256 * _MIB  # xz -9 needs 65 MiB
MOST_WINDOW = 256 * _MIB  # zstd --ultra -22, which kernels use, takes half of it
_ZSTD_STEP = 4096  # which a bomb makes 128 MiB of
_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_LZ4_BLOCK = 8 * _MIB  # of the legacy format; lz4_Frame_format.md of lz4


class TooLongError(ValueError):
    """It unpacks to more than it may."""

    def __init__(self, limit: int) -> None:
        size = f"{limit // _MIB} MiB" if limit >= _MIB else f"{limit} bytes"
        super().__init__(f"it unpacks to more than {size}")


class _Machine(Protocol):
    """What the decompressors of lzma, bz2 and zlib have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes | memoryview, max_length: int, /) -> bytes: ...


_MACHINES: dict[str, Callable[[], _Machine]] = {
    "gzip": lambda: zlib.decompressobj(31),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MOST_MEMORY),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, _MOST_MEMORY),
}
_OPENERS: dict[str, Callable[..., object]] = {
    "gzip": gzip.open,
    "bzip2": bz2.open,
    "xz": lzma.open,
    "lzma": lzma.open,
}


def find_compression(content: bytes) -> str:
    """The name of the compression by its magic number, `none` for ELF, else `unknown`."""
    for magic, name in MAGICS:
        if content.startswith(magic):
            return name
    return "unknown"


def unpack(
    content: bytes | memoryview,
    compression: str,
    *,
    limit: int = MOST_UNPACKED,
    is_first_enough: bool = False,
    window: int = MOST_WINDOW,
) -> bytes:
    """The unpacked bytes of all streams that follow one another, zeros between them left out.

    Where the `is_first_enough` what follows the first stream is not looked at. `window` is the most
    that zstd may look back, in bytes. Raises TooLongError for more than `limit` bytes, ValueError
    for what is damaged, cut short or packed in a way that is not known.
    """
    if compression == "none":
        found, content = [bytes(content)], b""
    else:
        found = []
        room = limit + 1
        while content or not found:
            piece, content = _unpack_stream(content, compression, room, window)
            found.append(piece)
            room -= len(piece)
            if is_first_enough or room <= 0:
                break
            content = bytes(content).lstrip(b"\0")
    if sum(map(len, found)) > limit:
        raise TooLongError(limit)
    return b"".join(found)


def open_packed(stream: IO[bytes], compression: str) -> IO[bytes]:
    """The unpacked bytes, to be read once from the beginning to the end, without a bound.

    Reading raises what the library of the `compression` does.
    """
    if compression == "zstd":
        import zstandard

        machine = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW)
        return cast(IO[bytes], machine.stream_reader(stream, read_across_frames=True))
    if compression == "lz4":
        import lz4.frame

        return cast(IO[bytes], lz4.frame.open(stream))
    return cast(IO[bytes], _OPENERS[compression](stream))


def _unpack_stream(
    content: bytes | memoryview, compression: str, room: int, window: int
) -> tuple[bytes, bytes | memoryview]:
    """What one stream holds, or so much of it that it is more than `room`; what follows it."""
    try:
        if compression == "zstd":
            return _unpack_zstd(content, room, window)
        if compression == "lz4":
            return _unpack_lz4(bytes(content), room)
        if compression not in _MACHINES:
            raise ValueError(f"no decompressor for {compression}")
        machine = _MACHINES[compression]()
        piece = machine.decompress(content, room)
        if len(piece) < room and not machine.eof:
            raise EOFError
        return piece, machine.unused_data
    except EOFError:
        raise ValueError(f"the {compression} stream is cut short") from None
    except (zlib.error, OSError, lzma.LZMAError) as fault:
        raise ValueError(f"the {compression} stream is damaged: {fault}") from None


def _unpack_zstd(
    content: bytes | memoryview, room: int, window: int
) -> tuple[bytes, bytes | memoryview]:
    import zstandard  # 10 ms, and only Ubuntu's packages and newer kernels need it

    machine = zstandard.ZstdDecompressor(max_window_size=window).decompressobj()
    found: list[bytes] = []
    try:
        for at in range(0, len(content), _ZSTD_STEP):
            found.append(machine.decompress(content[at : at + _ZSTD_STEP]))
            room -= len(found[-1])
            if room <= 0 or machine.eof:
                end = min(at + _ZSTD_STEP, len(content)) - len(machine.unused_data)
                return b"".join(found), content[end:]
    except zstandard.ZstdError as fault:
        raise ValueError(f"the zstd stream is damaged: {fault}") from None
    raise EOFError


def _unpack_lz4(content: bytes, room: int) -> tuple[bytes, bytes]:
    import lz4.block  # 2 ms, and only kernels need it
    import lz4.frame

    try:
        if content.startswith(_LZ4_LEGACY):
            return _unpack_legacy(content, room, lz4.block.decompress), b""
        frame = lz4.frame.LZ4FrameDecompressor()
        piece = bytes(frame.decompress(content, max_length=room))
        if len(piece) < room and not frame.eof:
            raise EOFError
        return piece, frame.unused_data or b""
    except (lz4.block.LZ4BlockError, RuntimeError) as fault:
        raise ValueError(f"the lz4 stream is damaged: {fault}") from None


def _unpack_legacy(content: bytes, room: int, decompress: Callable[..., bytes]) -> bytes:
    """LZ4 as kernels use it: after the magic [u32 size][block], again and again; then zeros."""
    blocks: list[bytes] = []
    at = len(_LZ4_LEGACY)
    while at + 4 <= len(content) and room > 0:
        size = struct.unpack_from("<I", content, at)[0]
        at += 4
        if size == struct.unpack("<I", _LZ4_LEGACY)[0]:  # streams may follow one another
            continue
        block = content[at : at + size]
        if size == 0:  # padding
            break
        if len(block) < size:
            raise EOFError
        blocks.append(decompress(block, uncompressed_size=_LZ4_BLOCK))
        room -= len(blocks[-1])
        at += size
    return b"".join(blocks)
