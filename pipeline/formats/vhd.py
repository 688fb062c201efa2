"""A dynamic VHD as XenServer and XCP-ng take it: tapdisk's, which is stricter than Microsoft's.

What `vhd-util check` and an import look at (xapi-project/blktap, vhd/lib): the creator `tap`, whose
image has a map of full blocks; a geometry that is not beyond the size, to which qemu-img writes the
largest there is; both copies of the footer; no time in the future. Every block that is there is
marked as written whole, and its data begin at 4 KiB.
"""

import os
import struct
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from pipeline.errors import PipelineError
from pipeline.files import data_extents

REVISION = 1  # of the bytes
BLOCK = 2 << 20
_SECTOR, _PAGE = 512, 4096
_MOST = 2040 << 30
_UNUSED, _NOWHERE = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
_FOOTER, _HEADER, _MAP = (
    ">8sIIQI4sII QQHBBI I16sB427x",
    ">8sQQIIII 16s I4x 512s 192s 256x",
    ">8sQIIIB",
)
_CREATOR, _CREATOR_VERSION, _FORMAT, _MAP_VERSION = b"tap\0", 0x10003, 0x10000, 0x10002
_RESERVED, _DYNAMIC = 2, 3
_Y2000 = 946_684_800
_TABLE_AT = _SECTOR + 1024
_FULL = bytes([0xFF]) * _SECTOR  # the bitmap of a block: a bit for each of its sectors
_ZEROS = bytes(BLOCK)


def write_vhd(
    raw: Path,
    target: IO[bytes],
    *,
    identity: uuid.UUID,
    epoch: int,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Write a raw image or device into an empty file that can be sought in; zeros take no room.

    The same disk, `identity` and time `epoch` give the same bytes. Raises PipelineError for more
    than 2040 GiB.
    """
    with open(raw, "rb", buffering=0) as source:
        handle = source.fileno()
        size = os.lseek(handle, 0, os.SEEK_END)
        if size > _MOST or size % _SECTOR:
            raise PipelineError(
                f"{raw}: {size} bytes; a VHD has whole sectors, and 2040 GiB at most",
                hint="format=raw or qcow2 holds it",
            )
        count = -(-size // BLOCK)
        table = [_UNUSED] * count
        position = _first_data(count)
        done = 0
        for number in _find_blocks(handle, size):
            block = os.pread(handle, BLOCK, number * BLOCK).ljust(BLOCK, b"\0")
            if block != _ZEROS or number == 0:
                table[number] = (position - _SECTOR) // _SECTOR
                target.seek(position - _SECTOR)
                target.write(_FULL)
                target.write(block)
                position += BLOCK + _PAGE
            advance(min(number * BLOCK + BLOCK, size) - done)
            done = min(number * BLOCK + BLOCK, size)
    _write_heads(target, size, table, identity, epoch, end=position - _PAGE)


def _write_heads(
    target: IO[bytes], size: int, table: list[int], identity: uuid.UUID, epoch: int, *, end: int
) -> None:
    """What stands before the blocks, and the footer behind them."""
    footer = _footer(size, identity, epoch)
    target.seek(0)
    target.write(footer)
    target.write(_header(len(table)))
    target.write(_padded(struct.pack(f">{len(table)}I", *table), b"\xff"))
    target.write(_full_blocks(table))
    target.seek(end)
    target.write(footer)


def _find_blocks(handle: int, size: int) -> Iterator[int]:
    """The first, and what is no hole, each once and rising."""
    yield 0
    seen = 0
    for start, end in data_extents(handle, size):
        for number in range(max(start // BLOCK, seen + 1), -(-end // BLOCK)):
            yield number
            seen = number


def _first_data(count: int) -> int:
    """Where the first block's data begin: behind the table, the map of full blocks, a bitmap."""
    heads = _TABLE_AT + _up(count * 4, _SECTOR) + _SECTOR + _up(-(-count // 8), _SECTOR)
    return _up(heads + _SECTOR, _PAGE)


def _footer(size: int, identity: uuid.UUID, epoch: int) -> bytes:
    cylinders, heads, sectors = find_geometry(size)

    def pack(checksum: int) -> bytes:
        return struct.pack(
            _FOOTER,
            *(b"conectix", _RESERVED, _FORMAT, _SECTOR, max(epoch - _Y2000, 0)),
            *(_CREATOR, _CREATOR_VERSION, 0, size, size, cylinders, heads, sectors),
            *(_DYNAMIC, checksum, identity.bytes, 0),
        )

    return pack(_checksum(pack(0)))


def _header(count: int) -> bytes:
    def pack(checksum: int) -> bytes:
        return struct.pack(
            _HEADER,
            *(b"cxsparse", _NOWHERE, _TABLE_AT, _FORMAT, count, BLOCK, checksum),
            *(bytes(16), 0, bytes(512), bytes(192)),
        )

    return pack(_checksum(pack(0)))


def _full_blocks(table: list[int]) -> bytes:
    """A header and a bit for each block, the first of a byte highest: tapdisk's batmap."""
    bits = bytearray(_up(-(-len(table) // 8), _SECTOR))
    for number, place in enumerate(table):
        if place != _UNUSED:
            bits[number >> 3] |= 0x80 >> (number & 7)
    at = _TABLE_AT + _up(len(table) * 4, _SECTOR) + _SECTOR
    sectors = len(bits) // _SECTOR
    head = struct.pack(_MAP, b"tdbatmap", at, sectors, _MAP_VERSION, _checksum(bits), 0)
    return _padded(head, b"\0") + bits


def find_geometry(size: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors a track: the VHD specification's appendix."""
    total = min(size // _SECTOR, 65535 * 16 * 255)
    if total >= 65535 * 16 * 63:
        return total // 255 // 16, 16, 255
    sectors = 17
    tracks = total // sectors
    heads = max((tracks + 1023) // 1024, 4)
    if tracks >= heads * 1024 or heads > 16:
        sectors, heads = 31, 16
        tracks = total // sectors
    if tracks >= heads * 1024:
        sectors, heads = 63, 16
        tracks = total // sectors
    return tracks // heads, heads, sectors


def _checksum(content: bytes | bytearray) -> int:
    """The complement of the sum of all bytes."""
    return ~sum(content) & 0xFFFFFFFF


def _padded(content: bytes, filler: bytes) -> bytes:
    return content + filler * (-len(content) % _SECTOR)


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
