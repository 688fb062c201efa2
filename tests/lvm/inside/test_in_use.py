"""Each way of using a volume is found, named, and stops a build whatever the flags."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline import process
from pipeline.errors import InUseError
from pipeline.process import run
from pipeline.storage import lvm
from pipeline.storage.in_use import refuse_if_defined, refuse_if_used
from pipeline.storage.lvm import Volume

MIB = 1 << 20


def await_openers(volume: Volume, count: int) -> None:
    while lvm.open_count(run, volume.device) != count:
        time.sleep(0.05)


def mounted(volume: Volume, work: Path) -> Iterator[None]:
    run(["mke2fs", "-q", volume.path])
    run(["mount", volume.path, work])
    yield
    run(["umount", work])


def mounted_elsewhere(volume: Volume, work: Path) -> Iterator[None]:
    """In a mount namespace that is not ours: only device-mapper's count knows of it."""
    run(["mke2fs", "-q", volume.path])
    script = f"mount {volume.path} {work}; touch {work}/../ready; exec sleep 60"
    with process.started(["unshare", "--mount", "sh", "-c", script], log=work.parent / "log"):
        run(["sh", "-c", f"until [ -e {work}/../ready ]; do sleep 0.1; done"])
        yield
    await_openers(volume, 0)


def swapped_on(volume: Volume, work: Path) -> Iterator[None]:
    run(["mkswap", "-q", volume.path])
    run(["swapon", volume.path])
    yield
    run(["swapoff", volume.path])


def under_device_mapper(volume: Volume, work: Path) -> Iterator[None]:
    run(["dmsetup", "create", "--noudevsync", "upper", "--table", f"0 2048 linear {volume.path} 0"])
    yield
    run(["dmsetup", "remove", "--noudevsync", "upper"])


def under_md(volume: Volume, work: Path) -> Iterator[None]:
    run(["mdadm", "--build", "/dev/md9", "--force", "-l", "linear", "-n", "1", volume.path])
    yield
    run(["mdadm", "--stop", "/dev/md9"])


def behind_a_loop(volume: Volume, work: Path) -> Iterator[None]:
    name = run(["losetup", "--show", "-f", volume.path]).strip()
    yield
    run(["losetup", "-d", name])


def open_for_reading(volume: Volume, work: Path) -> Iterator[None]:
    """As xen-blkback and any program have it: O_EXCL of another opener succeeds."""
    with process.started(["sh", "-c", f"exec sleep 60 < {volume.path}"], log=work.parent / "log"):
        await_openers(volume, 1)
        os.close(os.open(volume.path, os.O_RDONLY | os.O_EXCL))
        yield


USES = {
    "mounted on": mounted,
    "openers in device-mapper's count": mounted_elsewhere,
    "swap on": swapped_on,
    "(upper), which lies on it": under_device_mapper,
    "/dev/md9, which lies on it": under_md,
    "/dev/loop": behind_a_loop,
    "process ": open_for_reading,
}


@pytest.fixture(scope="module")
def volume(group: str) -> Iterator[Volume]:
    made = lvm.create_volume(run, group, "web1-disk", size_bytes=16 * MIB)
    yield made
    lvm.remove_volume(run, made)


@pytest.mark.parametrize("words", USES)
def test_a_use_is_found_and_named(group: str, volume: Volume, tmp_path: Path, words: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    refuse_if_used(volume.path)
    with contextmanager(USES[words])(volume, work):
        with pytest.raises(InUseError) as caught:
            refuse_if_used(volume.path)
        assert words in caught.value.brief
        # by another name of the same device too
        with pytest.raises(InUseError):
            refuse_if_used(Path(f"/dev/mapper/{group}-web1--disk"))
    refuse_if_used(volume.path)


@pytest.mark.parametrize(
    "text",
    [
        'name = "old"\nmemory = 64\nkernel = "/k"\ndisk = ["phy:{},xvda1,w"]\n',
        'name = "old"\nmemory = 64\nkernel = "/k"\ndisk = ["format=raw, vdev=xvda1, target={}"]\n',
        "import os\nname = 'old'\nif os.getuid() == 0:\n    disk = ['phy:{},sda1,w']\n",
    ],
)
def test_a_disk_of_a_stopped_guest_is_known_by_its_configuration(
    group: str, volume: Volume, text: str
) -> None:
    refuse_if_defined(volume.path)
    file = Path("/etc/xen/old.cfg")
    file.write_text(text.format(f"/dev/mapper/{group}-web1--disk"))
    with pytest.raises(InUseError, match=r"guest that /etc/xen/old.cfg defines"):
        refuse_if_defined(volume.path)
    file.write_text("# " + text.format(volume.path).replace("\n", "\n# "))
    refuse_if_defined(volume.path)
    file.unlink()
