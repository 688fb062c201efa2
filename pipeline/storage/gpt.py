"""The partition table of a whole disk: GPT with both its copies, behind a protective MBR.

UEFI specification, chapter 5: the table has 128 entries of 128 bytes, each copy a header with
checksums of itself and of them.
"""

import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

SECTOR = 512
MIB = 1 << 20
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
SWAP = "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
_ENTRIES, _ENTRY, _HEADER = 128, 128, 92
_TABLE = _ENTRIES * _ENTRY // SECTOR
HEAD_SECTORS, TAIL_SECTORS = 2 + _TABLE, 1 + _TABLE
_MOST_MBR = 0xFFFFFFFF
_BOOT_CODE = 440


class WrongTable(ValueError):
    """It is no table of the form that is written here, or damaged."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A partition: `kind` and `uuid` are GUIDs, `start` and `size` bytes, `name` 36 letters."""

    kind: str
    uuid: str
    name: str
    start: int
    size: int
    attributes: int = 0

    def encode(self) -> bytes:
        """As the table has it: the GUIDs' first three fields are little-endian."""
        first, last = self.start // SECTOR, (self.start + self.size) // SECTOR - 1
        ids = uuid.UUID(self.kind).bytes_le + uuid.UUID(self.uuid).bytes_le
        name = self.name.encode("utf-16-le")[:72]
        return struct.pack("<32sQQQ72s", ids, first, last, self.attributes, name)


def render_table(
    entries: Sequence[Entry], *, disk_uuid: str, size: int, boot: bytes
) -> tuple[bytes, bytes]:
    """What stands at the disk's beginning and at its end, for a disk of `size` bytes.

    `boot` is the boot sector's code, at most 440 bytes.
    """
    sectors = size // SECTOR
    table = b"".join(entry.encode() for entry in entries).ljust(_ENTRIES * _ENTRY, b"\0")

    def header(own: int, other: int, at: int) -> bytes:
        def pack(checksum: int) -> bytes:
            return struct.pack(
                "<8s4sIIIQQQQ16sQIII",
                *(b"EFI PART", b"\0\0\1\0", _HEADER, checksum, 0, own, other),
                *(HEAD_SECTORS, sectors - TAIL_SECTORS - 1, uuid.UUID(disk_uuid).bytes_le),
                *(at, _ENTRIES, _ENTRY, zlib.crc32(table)),
            )

        return pack(zlib.crc32(pack(0))).ljust(SECTOR, b"\0")

    # from the sector behind it on, all of the disk is of type EE; no cylinders for it
    count = min(sectors - 1, _MOST_MBR)
    guard = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, count)
    mbr = boot.ljust(446, b"\0") + guard.ljust(64, b"\0") + b"\x55\xaa"
    head = mbr + header(1, sectors - 1, 2) + table
    return head, table + header(sectors - 1, 1, sectors - TAIL_SECTORS)


def read_table(head: bytes) -> tuple[list[Entry], str, bytes]:
    """The partitions, the disk's GUID and its boot code, of what `render_table` wrote or a guest
    changed in the same form; WrongTable for anything else."""
    header, table = head[SECTOR : SECTOR + _HEADER], head[2 * SECTOR : HEAD_SECTORS * SECTOR]
    if header[:8] != b"EFI PART" or len(table) != _ENTRIES * _ENTRY:
        raise WrongTable("there is no GUID partition table")
    size, told = struct.unpack_from("<II", header, 12)
    if size != _HEADER or zlib.crc32(header[:16] + bytes(4) + header[20:]) != told:
        raise WrongTable("its header is damaged")
    disk, at, count, width, checksum = struct.unpack_from("<16sQIII", header, 56)
    if (at, count, width) != (2, _ENTRIES, _ENTRY):
        raise WrongTable(f"{count} entries of {width} bytes at {at}, where others are written")
    if zlib.crc32(table) != checksum:
        raise WrongTable("its entries are damaged")
    entries = list(_decode(table))
    return entries, str(uuid.UUID(bytes_le=disk)), head[:_BOOT_CODE]


def _decode(table: bytes) -> Iterator[Entry]:
    is_over = False
    for kind, own, first, last, attributes, name in struct.iter_unpack("<16s16sQQQ72s", table):
        is_over = is_over or not any(kind)
        if is_over and any(kind):
            raise WrongTable("there are gaps between its entries")
        if any(kind) and first > last:
            raise WrongTable(f"a partition ends before it begins, at {first}")
        if any(kind):
            yield Entry(
                kind=str(uuid.UUID(bytes_le=kind)),
                uuid=str(uuid.UUID(bytes_le=own)),
                name=name.decode("utf-16-le", "replace").partition("\0")[0],
                start=first * SECTOR,
                size=(last - first + 1) * SECTOR,
                attributes=attributes,
            )


def find_faults(disk: IO[bytes]) -> list[str]:
    """What is wrong with the table of a disk: the guard, both headers, their checksums."""
    last = disk.seek(0, 2) // SECTOR - 1
    guard = _read(disk, 0, SECTOR)
    is_guarded = guard[510:] == b"\x55\xaa" and guard[450] == 0xEE
    faults = [] if is_guarded else ["no protective MBR"]
    tables = []
    for name, own, other in (("first", 1, last), ("second", last, 1)):
        header = _read(disk, own, _HEADER)
        if header[:8] != b"EFI PART":
            faults.append(f"no {name} header")
            continue
        told, mine, backup = struct.unpack_from("<I4xQQ", header, 16)
        at, count, width, checksum = struct.unpack_from("<QIII", header, 72)
        if zlib.crc32(header[:16] + bytes(4) + header[20:]) != told:
            faults.append(f"checksum of the {name} header")
        elif (mine, backup) != (own, other):
            faults.append(f"the {name} header names sectors {mine} and {backup}")
        elif (count, width) != (_ENTRIES, _ENTRY):
            faults.append(f"the {name} header has {count} entries of {width} bytes")
        else:
            tables.append(_read(disk, min(at, last), _ENTRIES * _ENTRY))
            if zlib.crc32(tables[-1]) != checksum:
                faults.append(f"checksum of the {name} table")
    if tables[1:] and tables[0] != tables[1]:
        faults.append("the two tables differ")
    return faults


def _read(disk: IO[bytes], sector: int, size: int) -> bytes:
    disk.seek(sector * SECTOR)
    return disk.read(size).ljust(size, b"\0")
