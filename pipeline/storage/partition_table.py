"""The partition table of a disk that a stranger made: GPT, or MBR with its logical drives.

UEFI specification, chapter 5 (GPT, its checksums and its second copy at the disk's end); the MBR's
chain of extended partitions has a bound.
"""

import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

SECTOR = 512
_SECTORS = (512, 4096)
_SIGNATURE, _GPT = b"\x55\xaa", b"EFI PART"
_MOST_ENTRIES, _MOST_ENTRY = 1024, 4096
_MOST_LOGICAL = 60
_EXTENDED, _PROTECTIVE = (0x05, 0x0F, 0x85), 0xEE
_FIRST_LOGICAL = 5


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A part of a disk in bytes; `number` is the kernel's, 0 for the whole disk."""

    number: int
    start: int
    size: int
    uuid: str = ""
    label: str = ""


def read_partitions(disk: IO[bytes]) -> list[Partition]:
    """What the table names and the disk has, by number; none where there is no table."""
    length = disk.seek(0, 2)
    first = _read(disk, 0, SECTOR)
    if first[510:512] != _SIGNATURE:
        parts = list(_read_gpt(disk, length))
    else:
        entries = list(_entries(first))
        is_gpt = any(kind == _PROTECTIVE for _, kind, _, _ in entries)
        parts = list(_read_gpt(disk, length)) if is_gpt else list(_read_mbr(disk, first))
    whole = [part for part in parts if part.start > 0 and part.start + part.size <= length]
    return sorted(whole, key=lambda part: part.number)


def _read(disk: IO[bytes], at: int, size: int) -> bytes:
    disk.seek(at)
    return disk.read(size).ljust(size, b"\0")


def _entries(sector: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(place, type, first sector, sectors) of the four; empty ones left out."""
    for place in range(4):
        kind, start, count = struct.unpack_from("<4xB3xII", sector, 446 + 16 * place)
        if kind and count:
            yield place, kind, start, count


def _read_mbr(disk: IO[bytes], first: bytes) -> Iterator[Partition]:
    mark = struct.unpack_from("<I", first, 440)[0]
    # a boot sector of FAT or NTFS ends like an MBR: what its "entries" say is no table
    if any(first[446 + 16 * place] not in (0, 0x80) for place in range(4)):
        return

    def part(number: int, start: int, count: int) -> Partition:
        return Partition(
            number=number,
            start=start * SECTOR,
            size=count * SECTOR,
            uuid=f"{mark:08x}-{number:02x}" if mark else "",
        )

    for place, kind, start, count in _entries(first):
        if kind not in _EXTENDED:
            yield part(place + 1, start, count)
            continue
        base, offset = start, 0
        for number in range(_FIRST_LOGICAL, _FIRST_LOGICAL + _MOST_LOGICAL):
            sector = _read(disk, (base + offset) * SECTOR, SECTOR)
            if sector[510:512] != _SIGNATURE:
                break
            rest = list(_entries(sector))
            for _, inner, begin, length in rest:
                if inner not in _EXTENDED:
                    yield part(number, base + offset + begin, length)
            following = [begin for _, inner, begin, _ in rest if inner in _EXTENDED]
            if not following or following[0] <= offset:  # the chain leads back
                break
            offset = following[0]


def _read_gpt(disk: IO[bytes], length: int) -> Iterator[Partition]:
    for sector in _SECTORS:
        for at in (sector, length - sector):
            header = _read(disk, max(at, 0), 92)
            size, told = struct.unpack_from("<II", header, 12)
            if header[:8] != _GPT or size != 92:
                continue
            if zlib.crc32(header[:16] + bytes(4) + header[20:]) != told:
                continue
            first, count, width, checksum = struct.unpack_from("<QIII", header, 72)
            if not (128 <= width <= _MOST_ENTRY and count <= _MOST_ENTRIES):
                continue
            table = _read(disk, min(first * sector, length), count * width)
            if zlib.crc32(table) == checksum:
                yield from _gpt_entries(table, width, sector)
                return


def _gpt_entries(table: bytes, width: int, sector: int) -> Iterator[Partition]:
    for number, at in enumerate(range(0, len(table), width), 1):
        kind, own, first, last = struct.unpack_from("<16s16sQQ", table, at)
        if any(kind) and first <= last:
            name = table[at + 56 : at + 128].decode("utf-16-le", "replace")
            yield Partition(
                number=number,
                start=first * sector,
                size=(last - first + 1) * sector,
                uuid=str(uuid.UUID(bytes_le=own)),
                label=name.partition("\0")[0],
            )
