"""storage/lvm.py over real LVM2 and device-mapper."""

import os
import stat
import threading

import pytest

from pipeline.errors import EnvironmentFault
from pipeline.process import run
from pipeline.storage import lvm

MIB = 1 << 20


def test_a_volume_is_made_renamed_grown_cut_and_removed(group: str) -> None:
    made = lvm.create_volume(run, group, "web1-disk.new-1", size_bytes=5 * MIB, tags=["domu:a"])
    assert stat.S_ISBLK(os.stat(made.path).st_mode)
    assert (made.size, made.tags, made.is_thin) == (5 * MIB, frozenset(["domu:a"]), False)
    renamed = lvm.rename_volume(run, group, made.name, "web1-disk")
    assert renamed.uuid == made.uuid
    assert renamed.path.exists() and not made.path.exists()
    assert lvm.extend_volume(run, renamed, 9 * MIB).size == 9 * MIB
    assert lvm.reduce_volume(run, renamed, 6 * MIB).size == 6 * MIB
    found = lvm.find_volume(run, group, "web1-disk")
    assert found is not None and found.tags == frozenset(["domu:a"])
    lvm.remove_volume(run, found)
    assert lvm.find_volume(run, group, "web1-disk") is None


def test_sizes_are_rounded_up_to_extents(group: str) -> None:
    made = lvm.create_volume(run, group, "odd", size_bytes=MIB + 512)
    assert made.size == 2 * MIB == lvm.read_group(run, group).extents(MIB + 512) * MIB
    lvm.remove_volume(run, made)


def test_a_volume_in_several_pieces_is_one_volume(group: str) -> None:
    first = lvm.create_volume(run, group, "first", size_bytes=2 * MIB)
    second = lvm.create_volume(run, group, "second", size_bytes=2 * MIB)
    lvm.extend_volume(run, first, 4 * MIB)
    assert run(["lvs", "--noheadings", "-o", "seg_count", f"{group}/first"]).split() == ["2"]
    found = [(one.name, one.size) for one in lvm.list_volumes(run, group)]
    assert found == [("first", 4 * MIB), ("second", 2 * MIB)]
    lvm.remove_volume(run, first)
    lvm.remove_volume(run, second)


def test_the_open_count_sees_an_opener_without_o_excl(group: str) -> None:
    made = lvm.create_volume(run, group, "web1-disk", size_bytes=MIB)
    assert lvm.open_count(run, made.device) == 0
    handle = os.open(made.path, os.O_RDONLY)
    assert lvm.open_count(run, made.device) == 1
    os.close(handle)
    lvm.remove_volume(run, made)


def test_thin_volumes_and_snapshots_say_where_they_come_from(group: str, pool: str) -> None:
    golden = lvm.create_volume(run, group, "golden", size_bytes=512 * MIB, pool=pool)
    assert golden.is_thin and golden.pool == pool and golden.size == 512 * MIB
    clone = lvm.create_snapshot(run, group, "golden", "web1-disk", tags=["domu:guest=web1"])
    assert (clone.origin, clone.pool, clone.is_thin) == ("golden", pool, True)
    assert clone.path.exists()
    found = lvm.find_volume(run, group, pool)
    assert found is not None and found.is_pool and found.zeroes and found.chunk == 64 << 10


def test_a_group_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(EnvironmentFault, match=r"no volume group 'VG9' \(this machine has: VG0\)"):
        lvm.read_group(run, "VG9")


def test_too_much_is_refused_in_lvms_words_and_nothing_is_left(group: str) -> None:
    with pytest.raises(EnvironmentFault, match="insufficient free space") as caught:
        lvm.create_volume(run, group, "big", size_bytes=1 << 40)
    assert "size=" in caught.value.hint


def test_two_threads_hold_the_lock_one_after_the_other() -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(20):
            with lvm.lvm_lock(), lvm.lvm_lock():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
