"""A VHD is what tapdisk's own check demands, and nothing else passes that check."""

import io
import struct
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.formats.vhd import BLOCK, find_geometry, write_vhd
from tests.unit.test_xva import make_disk
from tests.vhd_check import SECTOR, Refused, check_vhd

NOW = 1_700_000_000
IDENTITY = uuid.UUID("3f1c1f06-61a7-5f9e-9a64-0d5e9f0d6c11")
MIB = 1 << 20


def written(disk: Path, *, epoch: int = NOW) -> bytes:
    target = io.BytesIO()
    write_vhd(disk, target, identity=IDENTITY, epoch=epoch)
    return target.getvalue()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An odd number of MiB, so that the last block is half there."""
    size = 31 * MIB
    return make_disk(tmp_path / "disk.img", size=size, written=(0, 9 * MIB + 7, size - 4096))


@pytest.mark.parametrize("places", [(), (0,), (5 * MIB,), (31 * MIB - 4096,)])
def test_the_same_disk_comes_back(tmp_path: Path, places: tuple[int, ...]) -> None:
    disk = make_disk(tmp_path / "disk.img", size=31 * MIB, written=places)

    content = written(disk)

    assert check_vhd(content, now=NOW) == disk.read_bytes()
    assert len(content) < (len(places) + 1) * (BLOCK + 8192)


def test_data_begin_at_a_page(disk: Path) -> None:
    table = struct.unpack_from(">16I", written(disk), 1536)

    assert [(start + 1) * SECTOR % 4096 for start in table if start != 0xFFFFFFFF] == [0, 0, 0]


def test_the_same_disk_gives_the_same_bytes_on_any_day(disk: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.img"
    copy.write_bytes(disk.read_bytes())

    assert written(copy) == written(disk)


def test_what_no_vhd_holds_is_refused(tmp_path: Path) -> None:
    large = make_disk(tmp_path / "large.img", size=(2040 << 30) + SECTOR, written=())
    odd = make_disk(tmp_path / "odd.img", size=MIB + 1, written=())

    for disk in (large, odd):
        with pytest.raises(PipelineError, match="2040 GiB at most"):
            written(disk)


@pytest.mark.parametrize(
    ("size", "geometry"),
    [
        (3 * MIB, (90, 4, 17)),
        (504 * MIB, (1024, 16, 63)),
        (4 << 30, (8322, 16, 63)),
        (2040 << 30, (65535, 16, 255)),
    ],
)
def test_geometry_is_that_of_the_specification(size: int, geometry: tuple[int, int, int]) -> None:
    assert find_geometry(size) == geometry


def _at(place: int, new: bytes, *, sums: bool = True) -> Callable[[bytes], bytes]:
    """Other bytes in both copies of the footer, their checksums right again."""

    def change(content: bytes) -> bytes:
        footer = bytearray(content[:SECTOR])
        footer[place : place + len(new)] = new
        if sums:
            footer[64:68] = bytes(4)
            footer[64:68] = struct.pack(">I", ~sum(footer) & 0xFFFFFFFF)
        return bytes(footer) + content[SECTOR:-SECTOR] + bytes(footer)

    return change


def _in(place: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content[:place] + new + content[place + len(new) :]


def _later(place: bytes) -> bytes:
    """The next sector, where the number of the last block stands."""
    return struct.pack(">H", struct.unpack(">H", place)[0] + 1)


FAULTS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "no VHD": ("invalid cookie", _at(0, b"x")),
    "another byte": ("invalid checksum", _at(60, b"\1", sums=False)),
    "features": ("invalid extra features", _at(11, b"\7")),
    "version": ("invalid file format version", _at(13, b"\7")),
    "a later time": ("creation time in future", _at(24, b"\x7f")),
    "QEMU's": ("not created by xen", _at(28, b"qem2")),
    "a later tapdisk": ("unsupported tap creator version", _at(35, b"\7")),
    "the largest geometry": ("geometry too large", _at(56, b"\xff\xff\x10\xff")),
    "a static one": ("no static VHD", _at(63, b"\2")),
    "reserved": ("invalid 'reserved' bits", _at(100, b"\1")),
    "one footer": ("footers do not match", lambda all: _at(24, b"\1")(all)[:512] + all[512:]),
    "cut short": ("invalid cookie", lambda all: all[:-SECTOR]),
    "no header": ("header: invalid cookie", _in(512, b"d")),
    "header": ("header: invalid checksum", _in(600, b"d")),
    "no batmap": ("batmap: invalid cookie", _in(2048, b"x")),
    "batmap": ("batmap: invalid checksum", _in(2560, b"\xff")),
    "a block twice": ("clobbers block", lambda all: _in(1540, all[1536:1540])(all)),
    "in the heads": ("clobbers headers", _in(1536, struct.pack(">I", 0))),
    "in the footer": ("clobbers footer", lambda all: _in(1598, _later(all[1598:1600]))(all)),
    "holes in a block": ("sectors that are not written", _in(4096 - 512, b"\0")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_refused_by_its_name(disk: Path, fault: str) -> None:
    words, change = FAULTS[fault]
    content = written(disk)
    check_vhd(content, now=NOW)

    with pytest.raises(Refused, match=words):
        check_vhd(change(content), now=NOW)
