"""A disk as VMDK, subformat streamOptimized: what an OVA holds, written in one pass, to a pipe too.

Source: Virtual Disk Format 5.0 (VMware, 2011), "Stream-Optimized Compressed Sparse Extents"; read
back by QEMU. The same disk gives the same bytes. What is no data takes no place: grains of zeros
are left out.
"""

import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pipeline.files import data_extents

SECTOR = 512
GRAIN = 128 * SECTOR
FORMAT_URI = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
_MAGIC, _VERSION = b"KDMV", 3
_FLAGS = 1 | 1 << 16 | 1 << 17  # line ends can be checked; grains are compressed; there are markers
_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_MARKER = struct.Struct("<QII")
_TABLE, _DIRECTORY, _FOOTER = 1, 2, 3
_DESCRIPTOR_AT, _DESCRIPTOR_SECTORS, _OVERHEAD = 1, 20, 128
_ENTRIES = 512  # of a grain table
_AT_END = (1 << 64) - 1
_DEFLATE = 1
_LEVEL = 6
_AHEAD = 64  # grains that are compressed while others are written
_HEADS, _SECTORS = 255, 63
_DESCRIPTOR = """# Disk DescriptorFile
version=1
CID={mark:08x}
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW {sectors} SPARSE "{name}"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "{heads}"
ddb.geometry.sectors = "{sectors_a_track}"
ddb.adapterType = "lsilogic"
"""


def write_vmdk(
    disk: Path, name: str, write: Callable[[bytes], object], *, advance: Callable[[int], object]
) -> None:
    """Write a raw disk, whose size is in whole sectors; `name` is the file's own in its descriptor.

    `advance` is told the bytes of the disk that are done, holes too.
    """
    with open(disk, "rb", buffering=0) as stream:
        size = stream.seek(0, 2)
        place = 0  # in sectors

        def put(content: bytes) -> int:
            nonlocal place
            begun = place
            padded = content + bytes(-len(content) % SECTOR)
            write(padded)
            place += len(padded) // SECTOR
            return begun

        put(_header(size, _AT_END))
        put(_describe(size, name).encode().ljust(_DESCRIPTOR_SECTORS * SECTOR, b"\0"))
        put(bytes((_OVERHEAD - place) * SECTOR))
        directory = [0] * -(-size // (_ENTRIES * GRAIN))
        table: dict[int, int] = {}
        number, done = 0, 0
        for grain, packed in _compress(stream.fileno(), size):
            if grain // _ENTRIES != number and table:
                directory[number] = _put_table(put, table)
                table = {}
            number = grain // _ENTRIES
            table[grain % _ENTRIES] = put(struct.pack("<QI", grain * 128, len(packed)) + packed)
            advance((grain + 1) * GRAIN - done)
            done = (grain + 1) * GRAIN
        if table:
            directory[number] = _put_table(put, table)
        advance(size - done)
        content = struct.pack(f"<{len(directory)}I", *directory)
        put(_MARKER.pack(-(-len(content) // SECTOR), 0, _DIRECTORY))
        start = put(content)
        put(_MARKER.pack(1, 0, _FOOTER))
        put(_header(size, start))
        put(bytes(SECTOR))


def _header(size: int, directory: int) -> bytes:
    return _HEADER.pack(
        _MAGIC,
        *(_VERSION, _FLAGS, size // SECTOR, GRAIN // SECTOR),
        *(_DESCRIPTOR_AT, _DESCRIPTOR_SECTORS, _ENTRIES, 0, directory, _OVERHEAD, 0),
        b"\n \r\n",
        _DEFLATE,
    ).ljust(SECTOR, b"\0")


def _describe(size: int, name: str) -> str:
    return _DESCRIPTOR.format(
        mark=zlib.crc32(f"{name} {size}".encode()) & 0x7FFFFFFF,
        sectors=size // SECTOR,
        name=name,
        cylinders=min(size // SECTOR // _HEADS // _SECTORS, 65535),
        heads=_HEADS,
        sectors_a_track=_SECTORS,
    )


def _put_table(put: Callable[[bytes], int], table: dict[int, int]) -> int:
    content = struct.pack(f"<{_ENTRIES}I", *(table.get(entry, 0) for entry in range(_ENTRIES)))
    put(_MARKER.pack(len(content) // SECTOR, 0, _TABLE))
    return put(content)


def _compress(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Number and content of every grain that is not zeros, by rising number; two at a time."""
    waiting: deque[tuple[int, Future[bytes]]] = deque()
    with ThreadPoolExecutor(2) as pool:  # zlib frees the interpreter's lock
        for grain, content in _grains(descriptor, size):
            waiting.append((grain, pool.submit(zlib.compress, content, _LEVEL)))
            if len(waiting) > _AHEAD:
                number, packed = waiting.popleft()
                yield number, packed.result()
        for number, packed in waiting:
            yield number, packed.result()


def _grains(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    zeros, after = bytes(GRAIN), 0
    for start, end in data_extents(descriptor, size):
        for grain in range(max(start // GRAIN, after), -(-end // GRAIN)):
            content = os.pread(descriptor, GRAIN, grain * GRAIN).ljust(GRAIN, b"\0")
            if content != zeros:
                yield grain, content
        after = max(after, -(-end // GRAIN))
