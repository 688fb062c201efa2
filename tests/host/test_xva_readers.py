"""What others read out of our XVA, Debian's xva-img and dissect.archive; and what a cage gives."""

import os
from pathlib import Path

import pytest
from dissect.archive.xva import XVA

from pipeline.errors import VerificationError
from pipeline.formats.xva import BLOCK
from pipeline.formats.xva_reader import take_out
from pipeline.process import run
from tests.unit.test_xva import make_disk, written

pytestmark = pytest.mark.integration
_SIZE = 96 * BLOCK
_PLACES = (0, 5 * BLOCK + 7, 40 * BLOCK, _SIZE - 4096)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "disk.img", size=_SIZE, written=_PLACES)


def _write(disk: Path) -> Path:
    xva = disk.with_suffix(".xva")
    xva.write_bytes(written([disk]))
    return xva


def test_xva_img_gives_the_same_disk_back(disk: Path, tmp_path: Path) -> None:
    """By SHA-1: xva-img 1.4.2 knows no other checksum when it unpacks."""
    folder, back = tmp_path / "unpacked", tmp_path / "back.img"
    folder.mkdir()
    run(["tar", "-C", folder, "-xf", _write(disk)])

    run(["xva-img", "disk-export", folder / "Ref:002", back])

    run(["cmp", disk, back])


def test_xva_img_sees_another_byte(disk: Path, tmp_path: Path) -> None:
    """It does verify: what it says nothing of was right."""
    folder = tmp_path / "unpacked"
    folder.mkdir()
    run(["tar", "-C", folder, "-xf", _write(disk)])
    with open(folder / "Ref:002/00000005", "r+b") as stream:
        stream.write(b"another")

    told = run(
        ["xva-img", "disk-export", folder / "Ref:002", tmp_path / "back.img"],
        accept=tuple(range(256)),
    )

    assert "invalid checksum for" in told


def test_dissect_gives_the_same_disk_back_but_for_the_last_block(disk: Path) -> None:
    """dissect.archive 1.8 never yields the last block; the rest is ours to the byte."""
    with open(_write(disk), "rb") as stream:
        xva = XVA(stream)
        assert xva.disks() == ["Ref:002"]

        back = xva.open("Ref:002").read()

    assert back[:-BLOCK] == disk.read_bytes()[:-BLOCK]
    assert back[-BLOCK:] == bytes(BLOCK)


def test_a_strangers_file_is_read_in_a_cage_and_is_sparse(disk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a folder, with odd letters"
    folder.mkdir()

    xva = take_out(_write(disk), folder, run)

    (one,) = xva.disks
    assert (one.place, one.label, one.size) == ("0", "disk", _SIZE)
    run(["cmp", disk, folder / one.file])
    state = os.stat(folder / one.file)
    assert state.st_blocks * 512 <= 8 * BLOCK
    assert state.st_mode & 0o777 == 0o600


def test_a_fault_comes_out_of_the_cage_by_its_name(disk: Path, tmp_path: Path) -> None:
    xva = _write(disk)
    os.truncate(xva, xva.stat().st_size - 2048)
    (tmp_path / "out").mkdir()

    with pytest.raises(VerificationError, match=r"disk\.xva: it is cut short"):
        take_out(xva, tmp_path / "out", run)
