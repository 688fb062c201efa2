"""Partition tables as strangers write them: GPT and its second copy, MBR and its chain."""

import io
import struct
import uuid
import zlib

import pytest

from pipeline.storage.partition_table import Partition, read_partitions

SECTORS = 4096
LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def mbr(*entries: tuple[int, int, int], mark: int = 0x1234ABCD) -> bytearray:
    """(type, first sector, sectors) of up to four."""
    sector = bytearray(512)
    sector[440:444] = struct.pack("<I", mark)
    sector[510:512] = b"\x55\xaa"
    for place, (kind, start, count) in enumerate(entries):
        struct.pack_into("<4xB3xII", sector, 446 + 16 * place, kind, start, count)
    return sector


def gpt(*, sector: int = 512, damage: str = "") -> bytearray:
    """A disk with one partition, its name `root`, from sector 40 to 47."""
    disk = bytearray(SECTORS * sector)
    disk[:512] = mbr((0xEE, 1, SECTORS - 1))
    entry = struct.pack(
        "<16s16sQQ8x72s", LINUX.bytes_le, bytes(range(16)), 40, 47, "root".encode("utf-16-le")
    )
    table = entry.ljust(128 * 128, b"\0")

    def header(own: int, first: int) -> bytes:
        head = bytearray(92)
        struct.pack_into("<8sIII", head, 0, b"EFI PART", 0x10000, 92, 0)
        struct.pack_into("<Q", head, 24, own)
        struct.pack_into("<QIII", head, 72, first, 128, 128, zlib.crc32(table))
        struct.pack_into("<I", head, 16, zlib.crc32(head))
        return bytes(head)

    last = SECTORS - 1
    rows = len(table) // sector
    disk[sector : sector + 92] = header(1, 2)
    disk[2 * sector : 2 * sector + len(table)] = table
    disk[last * sector : last * sector + 92] = header(last, last - rows)
    disk[(last - rows) * sector : last * sector] = table
    if damage == "header":
        disk[sector + 30] ^= 1
    if damage == "table":
        disk[2 * sector + 50] ^= 1
    return disk


def read(disk: bytes | bytearray) -> list[Partition]:
    return read_partitions(io.BytesIO(bytes(disk)))


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("damage", ["", "header", "table"])
def test_a_gpt_is_read_and_its_second_copy_where_the_first_is_damaged(
    sector: int, damage: str
) -> None:
    assert read(gpt(sector=sector, damage=damage)) == [
        Partition(
            number=1,
            start=40 * sector,
            size=8 * sector,
            uuid="03020100-0504-0706-0809-0a0b0c0d0e0f",
            label="root",
        )
    ]


def test_an_mbr_and_its_logical_drives() -> None:
    disk = bytearray(SECTORS * 512)
    disk[:512] = mbr((0x83, 63, 100), (0x05, 200, 800))
    disk[200 * 512 : 201 * 512] = mbr((0x83, 2, 50), (0x05, 100, 100))
    disk[300 * 512 : 301 * 512] = mbr((0x82, 2, 60))

    assert [(part.number, part.start // 512, part.size // 512) for part in read(disk)] == [
        (1, 63, 100),
        (5, 202, 50),
        (6, 302, 60),
    ]
    assert read(disk)[0].uuid == "1234abcd-01"


def test_a_chain_that_leads_back_ends() -> None:
    disk = bytearray(SECTORS * 512)
    disk[:512] = mbr((0x05, 200, 800))
    disk[200 * 512 : 201 * 512] = mbr((0x83, 2, 50), (0x05, 100, 100))
    disk[300 * 512 : 301 * 512] = mbr((0x83, 2, 50), (0x05, 100, 100))

    assert [part.number for part in read(disk)] == [5, 6]


@pytest.mark.parametrize(
    "disk",
    [
        b"",
        bytes(512),
        bytes(SECTORS * 512),
        bytes(mbr((0x83, SECTORS - 10, 100))).ljust(SECTORS * 512, b"\0"),
        bytes(mbr((0x83, 0, 100))).ljust(SECTORS * 512, b"\0"),
        bytes(mbr((0xEE, 1, 4000))).ljust(SECTORS * 512, b"\0"),
    ],
    ids=["nothing", "a sector", "zeros", "beyond the end", "at the start", "GPT without one"],
)
def test_what_is_no_table_has_no_partitions(disk: bytes) -> None:
    assert read(disk) == []


def test_a_boot_sector_of_fat_is_no_table() -> None:
    sector = mbr()
    sector[446:462] = b"No system disk\r\n"

    assert read(bytes(sector).ljust(SECTORS * 512, b"\0")) == []
