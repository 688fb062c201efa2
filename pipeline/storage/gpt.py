"""The partition table of a whole disk: GPT with both its copies, behind a protective MBR.

UEFI specification, chapter 5: the table has 128 entries of 128 bytes, each copy a header with
checksums of itself and of them.
"""

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A partition: `kind` and `uuid` are GUIDs, `start` and `size` bytes, `name` 36 letters."""

    kind: str
    uuid: str
    name: str
    start: int
    size: int

    def encode(self) -> bytes:
        """As the table has it: the GUIDs' first three fields are little-endian."""
        first, last = self.start // SECTOR, (self.start + self.size) // SECTOR - 1
        ids = uuid.UUID(self.kind).bytes_le + uuid.UUID(self.uuid).bytes_le
        name = self.name.encode("utf-16-le")[:72]
        return struct.pack("<32sQQQ72s", ids, first, last, 0, name)


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
