"""No former tenant's data: a disk full of marks, a guest made on it, every block read."""

from pathlib import Path

from pipeline.process import run
from pipeline.storage import lvm
from pipeline.storage.golden import list_golden, remove_golden
from tests import small
from tests.lvm.inside.conftest import chunks_of, make_project, remove_guests

MARK = b"A former tenant's secret, once a sector of 512 bytes has it. "
MIB = 1 << 20


def soil(group: str) -> int:
    """Fill all that is free of a group with marks; how many there are."""
    free = lvm.read_group(run, group).free
    dirty = lvm.create_volume(run, group, "dirty", size_bytes=free)
    block = (MARK * 9)[:512] * (4 * MIB // 512)
    with open(dirty.path, "r+b", buffering=0) as stream:
        for _ in range(free // len(block)):
            stream.write(block)
    lvm.remove_volume(run, dirty)
    return free // 512


def marks_on(path: Path) -> int:
    """How often the mark is there; a mark never lies across two chunks of whole sectors."""
    return sum(chunk.count(MARK[:32]) for chunk in chunks_of(path))


def test_no_block_of_a_new_volume_shows_a_former_tenant(group: str, tmp_path: Path) -> None:
    soil(group)
    raw = lvm.create_volume(run, group, "unwritten", size_bytes=8 * MIB)
    assert marks_on(raw.path) > 100_000, "the disk was clean: this test would show nothing"
    lvm.remove_volume(run, raw)
    project = make_project(tmp_path, "web1", text='lvm = "VG0"\n')
    small.build(project, "web1")
    for name in ("web1-disk", "web1-swap"):
        assert marks_on(Path("/dev", group, name)) == 0
    remove_guests(project)
    run(["lvcreate", "-y", *lvm.udevless(), "--type", "thin-pool", "-L", "64M", "--zero", "y",
         "--poolmetadatasize", "4M", "-n", "pool", group])  # fmt: skip
    text = 'lvm = "VG0"\nlvm_thin = "pool"\nclone = "cow"\n'
    make_project(tmp_path, "web2", text=text)
    small.build(project, "web2")
    for name in ("web2-disk", "web2-swap"):
        assert marks_on(Path("/dev", group, name)) == 0
    remove_guests(project)
    for golden in list_golden(run):
        assert marks_on(golden.path) == 0
        remove_golden(run, golden)
    run(["lvremove", "-y", *lvm.udevless(), f"{group}/pool"])
