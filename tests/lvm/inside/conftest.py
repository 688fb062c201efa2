"""Real LVM in User-Mode Linux: a volume group, a thin pool, and nothing left by any test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.process import run
from pipeline.project import Project
from pipeline.storage import lvm
from pipeline.storage.disks import GUEST_TAG

GROUP, POOL = "VG0", "pool"
MIB = 1 << 20


@pytest.fixture(scope="session", autouse=True)
def group() -> str:
    """VG0 over the first disk."""
    run(["pvcreate", "-q", "/dev/ubdb"])
    run(["vgcreate", "-s", "1M", GROUP, "/dev/ubdb"])
    return GROUP


@pytest.fixture(autouse=True)
def no_volume_left(group: str) -> Iterator[None]:
    """The leak check of this side: volumes, mapped devices, mounts, loops."""
    before, volumes = _stock(), {found.uuid for found in lvm.list_volumes(run)}
    yield
    after = _stock()
    for found in lvm.list_volumes(run) if after != before else ():
        if found.uuid not in volumes and not lvm.open_count(run, found.device):
            lvm.remove_volume(run, found)  # the next test is not to suffer from this one
    assert after == before


def _stock() -> tuple[frozenset[str], ...]:
    volumes = frozenset(f"{found.name} {found.size}" for found in lvm.list_volumes(run))
    mapped = frozenset(run(["dmsetup", "ls"]).splitlines())
    mounts = frozenset(Path("/proc/self/mounts").read_text().splitlines())
    loops = frozenset(run(["losetup", "-n", "-O", "NAME,BACK-FILE"]).splitlines())
    swaps = frozenset(Path("/proc/swaps").read_text().splitlines())
    return volumes, mapped, mounts, loops, swaps


@pytest.fixture
def pool(group: str) -> Iterator[str]:
    """A thin pool of 64 MiB that is gone afterwards with all in it."""
    run(["lvcreate", "-y", *lvm.udevless(), "--type", "thin-pool", "-L", "64M", "--zero", "y",
         "--poolmetadatasize", "4M", "-n", POOL, group])  # fmt: skip
    yield POOL
    run(["lvremove", "-y", *lvm.udevless(), f"{group}/{POOL}"])


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
