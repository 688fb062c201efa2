"""Real LVM in User-Mode Linux: a volume group, a thin pool, and nothing left by any test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.process import run
from pipeline.project import Project
from pipeline.storage import lvm
from pipeline.storage.disks import GUEST_TAG
from tests import small
from tests.turns import TODAY

GROUP, POOL = "VG0", "pool"
MIB = 1 << 20
STRIDE = int(os.environ.get("KILL_STRIDE", "6"))  # commands take their time in this kernel
FIRST = 1 + TODAY % STRIDE  # so that every command has its day
_STORE = Path("/run/store")


@pytest.fixture(scope="session", autouse=True)
def group() -> str:
    """VG0 over the first disk."""
    run(["pvcreate", "-q", "/dev/ubdb"])
    run(["vgcreate", "-s", "1M", GROUP, "/dev/ubdb"])
    return GROUP


@pytest.fixture(autouse=True)
def no_volume_left(group: str) -> Iterator[None]:
    """The leak check of this side: mapped devices, mounts, loops, swap; without a command."""
    before = _stock()
    yield
    after = _stock()
    if after != before:
        _remove_volumes(before[0])  # the next test is not to suffer from this one
    assert after == before


@pytest.fixture(scope="module", autouse=True)
def no_inactive_volume_left(group: str) -> Iterator[None]:
    """The same by LVM's own account, which takes a second each time."""
    before = {found.uuid for found in lvm.list_volumes(run)}
    yield
    assert {found.uuid for found in lvm.list_volumes(run)} == before


def _remove_volumes(kept: frozenset[str]) -> None:
    for found in lvm.list_volumes(run):
        mapped = f"{found.group}-{found.name.replace('-', '--')}"
        if mapped not in kept and not lvm.open_count(run, found.device):
            lvm.remove_volume(run, found)


def _stock() -> tuple[frozenset[str], ...]:
    block = Path("/sys/block")
    mapped = frozenset(path.read_text().strip() for path in block.glob("dm-*/dm/name"))
    loops = frozenset(path.read_text() for path in block.glob("loop*/loop/backing_file"))
    mounts, swaps = (
        frozenset(Path(name).read_text().splitlines()) for name in ("/proc/mounts", "/proc/swaps")
    )
    return mapped, loops, mounts, swaps


@pytest.fixture
def pool(group: str) -> Iterator[str]:
    """A thin pool of 64 MiB that is gone afterwards with all in it."""
    run(["lvcreate", "-y", *lvm.udevless(), "--type", "thin-pool", "-L", "64M", "--zero", "y",
         "--poolmetadatasize", "4M", "-n", POOL, group])  # fmt: skip
    yield POOL
    run(["lvremove", "-y", *lvm.udevless(), f"{group}/{POOL}"])


def make_project(root: Path, *names: str, **more: str) -> Project:
    """A small project; the golden halves of all of them are made once in this kernel."""
    _STORE.mkdir(exist_ok=True)
    (root / "output").mkdir(exist_ok=True)
    if not (root / "output/store").exists():
        (root / "output/store").symlink_to(_STORE)
    return small.make_project(root, *names, **more)


def chunks_of(path: Path) -> Iterator[bytes]:
    """Every byte of a device, from the device and not from memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        yield from iter(lambda: os.read(handle, 4 * MIB), b"")
    finally:
        os.close(handle)


def remove_guests(project: Project) -> None:
    """Remove every volume that carries a guest's tag."""
    for found in lvm.list_volumes(run):
        if any(tag.startswith(GUEST_TAG) for tag in found.tags):
            lvm.remove_volume(run, found)
