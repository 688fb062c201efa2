"""Where the root file system of a disk is, and its partition's new size."""

from pathlib import Path

import pytest

from pipeline.errors import VerificationError
from pipeline.storage import gpt
from pipeline.storage.gpt import MIB, Entry, WrongTable, read_table, render_table
from pipeline.storage.partition_table import read_partitions
from pipeline.storage.root_place import TAIL, Place, copy_extents, find_root, fit_table
from pipeline.storage.written import read_heads
from tests.whole_disk import BOOT, DISK, entries_of, write_table


def test_a_table_is_read_as_it_was_written() -> None:
    entries = entries_of(8, attributes=4)
    head, _ = render_table(entries, disk_uuid=DISK, size=11 * MIB, boot=BOOT)
    assert read_table(head) == (entries, DISK, BOOT)


@pytest.mark.parametrize("at", [512, 512 + 16, 512 + 56, 512 + 80, 1024, 1024 + 128 + 40, 17407])
def test_a_damaged_table_is_none(at: int) -> None:
    head, _ = render_table(entries_of(8), disk_uuid=DISK, size=11 * MIB, boot=BOOT)
    damaged = bytearray(head)
    damaged[at] ^= 0xFF
    with pytest.raises(WrongTable):
        read_table(bytes(damaged))
    with pytest.raises(WrongTable):
        read_table(head[:-1])


def test_the_root_of_a_whole_disk_is_its_last_partition(tmp_path: Path) -> None:
    disk = write_table(tmp_path / "disk.img", entries_of(8))
    place = find_root(disk, is_whole=True)
    assert place == Place(disk=disk, offset=2 * MIB, size=8 * MIB)
    assert place.name == f"{disk}?offset=2097152"
    assert place.mount_options == ("loop", "offset=2097152", "sizelimit=8388608")


def test_a_disk_that_is_a_file_system_is_its_own_root(tmp_path: Path) -> None:
    """Whatever table its guest's root wrote into its boot block."""
    disk = write_table(tmp_path / "disk.img", entries_of(8))
    place = find_root(disk, is_whole=False)
    assert (place.name, place.mount_options) == (str(disk), ("loop",))


@pytest.mark.parametrize(
    "entries",
    [entries_of(8, name="mine"), list(reversed(entries_of(8))), []],
    ids=["name", "order", "none"],
)
def test_another_table_than_ours_is_refused_with_the_reason(
    tmp_path: Path, entries: list[Entry]
) -> None:
    disk = write_table(tmp_path / "disk.img", entries_of(8))
    head, _ = render_table(entries, disk_uuid=DISK, size=11 * MIB, boot=BOOT)
    with open(disk, "r+b") as stream:
        stream.write(head)
    with pytest.raises(VerificationError, match=r"disk\.img: .*(root|partition)"):
        find_root(disk, is_whole=True)


@pytest.mark.parametrize("after_mib", [4, 8, 16, 4096])
def test_a_table_that_is_fitted_is_that_of_a_disk_made_so(tmp_path: Path, after_mib: int) -> None:
    disk = write_table(tmp_path / "disk.img", entries_of(8))
    size = (2 + after_mib) * MIB + TAIL
    with open(disk, "r+b") as stream:
        stream.truncate(max(size, 11 * MIB))
    fit_table(disk, disk_bytes=size, root_bytes=after_mib * MIB)
    wanted = write_table(tmp_path / "wanted.img", entries_of(after_mib))
    with open(disk, "rb") as found, open(wanted, "rb") as made:
        for at in (0, size - gpt.TAIL_SECTORS * gpt.SECTOR):
            found.seek(at)
            made.seek(at)
            assert found.read(20 * 1024)[: size - at] == made.read(20 * 1024)
        assert read_partitions(found)[-1].size == after_mib * MIB


def test_a_mount_of_a_partition_changes_what_is_remembered_of_a_device(tmp_path: Path) -> None:
    disk = write_table(tmp_path / "disk.img", entries_of(8))
    before = read_heads(disk)
    with open(disk, "r+b") as stream:
        stream.seek(2 * MIB + 1024 + 44)  # ext4's s_mtime
        stream.write(b"\1")
    assert read_heads(disk) != before
    assert len(before) == 3 * MIB


def test_a_part_of_a_file_is_copied_without_its_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with open(source, "wb") as stream:
        for at, content in ((0, b"head"), (3 * MIB, b"inside"), (9 * MIB, b"behind")):
            stream.seek(at)
            stream.write(content)
    target.write_bytes(b"kept")
    copy_extents(source, target, start=2 * MIB, size=4 * MIB, at=MIB)
    content = target.read_bytes()
    assert (len(content), content[:4]) == (5 * MIB, b"kept")
    assert content[2 * MIB : 2 * MIB + 6] == b"inside"
    assert content.strip(b"\0") == b"kept" + bytes(2 * MIB - 4) + b"inside"
    assert target.stat().st_blocks * 512 <= 64 << 10
