"""Root file systems from elsewhere on real disks and as real tars: surveyed, mended, taken in."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pipeline import process
from pipeline.errors import PipelineError, VerificationError
from pipeline.foreign.adopted import Bench, refuse_unmendable
from pipeline.foreign.mend import Wanted, plan_changes
from pipeline.foreign.mounted_root import change_disks, survey_disks
from pipeline.project import Project
from pipeline.storage.filesystems import FileSystemAt
from pipeline.storage.root_place import Place
from tests.conftest import require
from tests.elements.small_tree import take_picture
from tests.unit.test_foreign_mend import make_kvm

pytestmark = pytest.mark.integration
MIB = 1 << 20
WANTED = Wanted(nodes={"/": "/dev/xvda1", "swap": "/dev/xvda2"})


def make_busybox(folder: Path) -> Path:
    """Enough of one for an initrd that nobody boots."""
    path = folder / "busybox"
    path.write_bytes(b"\x7fELF, static")
    return path


def make_ext(tree: Path, image: Path, *, at_mib: int = 0) -> Path:
    """An ext4 file system with the tree, behind so many megabytes of a disk."""
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, "-E", "root_owner=0:0", image, "32M"],
        check=True,
    )
    if at_mib:
        content = image.read_bytes()
        with open(image, "wb") as stream:
            stream.seek(at_mib * MIB)
            stream.write(content)
    return image


def read_ext(image: Path, path: str) -> str:
    done = subprocess.run(
        ["debugfs", "-R", f"cat {path}", image], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def work(tmp_path: Path) -> Path:
    require(os.geteuid() == 0 and Path("/dev/loop-control").exists(), "needs root and loop devices")
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("at_mib", [0, 1])
def test_a_disk_is_surveyed_unwritten_and_then_mended(
    tmp_path: Path, work: Path, at_mib: int
) -> None:
    image = make_ext(make_kvm(tmp_path / "tree"), tmp_path / "a, disk", at_mib=at_mib)
    place = FileSystemAt(place=Place(disk=image, offset=at_mib * MIB, size=32 * MIB), fs="ext4")
    before = hashlib.sha256(image.read_bytes()).digest()
    tree = survey_disks([place], work=work, run=process.run)
    assert hashlib.sha256(image.read_bytes()).digest() == before
    assert (tree.init, tree.hostname, len(tree.kernels)) == ("systemd", "web", 1)
    changes = plan_changes(tree, WANTED)
    busybox = make_busybox(tmp_path)
    after = change_disks([place], changes, work=work, run=process.run, busybox=busybox)
    assert [line.node for line in after.fstab][:2] == ["/dev/xvda1", "UUID=aaaa-bbbb"]
    if not at_mib:
        assert "root=/dev/xvda1" in read_ext(image, "/boot/grub/grub.cfg")
        subprocess.run(["e2fsck", "-f", "-n", image], check=True, capture_output=True)
    assert not list(work.iterdir())
    assert (
        str(image) not in subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout
    )


def test_a_file_system_of_its_own_for_boot_is_mounted_where_it_belongs(
    tmp_path: Path, work: Path
) -> None:
    whole = make_kvm(tmp_path / "tree")
    shutil.move(whole / "boot", tmp_path / "boot")
    (whole / "boot").mkdir()
    root = make_ext(whole, tmp_path / "root.img")
    boot = make_ext(tmp_path / "boot", tmp_path / "boot.img")
    places = [
        FileSystemAt(place=Place(disk=boot), fs="ext4", mountpoint="/boot"),
        FileSystemAt(place=Place(disk=root), fs="ext4"),
    ]
    tree = survey_disks(places, work=work, run=process.run)
    assert tree.menus == ("/boot/grub/grub.cfg",) and len(tree.kernels) == 1
    busybox, changes = make_busybox(tmp_path), plan_changes(tree, WANTED)
    change_disks(places, changes, work=work, run=process.run, busybox=busybox)
    assert "root=/dev/xvda1" in read_ext(boot, "/grub/grub.cfg")


@pytest.mark.parametrize("target", ["/", "../../../../tmp", "/nowhere"])
def test_a_mount_point_that_is_a_link_is_inside_or_an_error(
    tmp_path: Path, work: Path, target: str
) -> None:
    whole = make_kvm(tmp_path / "tree")
    shutil.rmtree(whole / "boot")
    (whole / "boot").symlink_to(target)
    root = make_ext(whole, tmp_path / "root.img")
    places = [
        FileSystemAt(place=Place(disk=root), fs="ext4"),
        FileSystemAt(place=Place(disk=root), fs="ext4", mountpoint="/boot"),
    ]
    with pytest.raises(PipelineError):
        survey_disks(places, work=work, run=process.run)
    assert not list(work.iterdir())


def test_a_damaged_file_system_is_not_mounted_for_writing(tmp_path: Path, work: Path) -> None:
    image = make_ext(make_kvm(tmp_path / "tree"), tmp_path / "root.img")
    with open(image, "r+b") as stream:
        stream.seek(MIB)
        stream.write(os.urandom(8 * MIB))
    with pytest.raises(VerificationError, match="e2fsck"):
        change_disks(
            [FileSystemAt(place=Place(disk=image), fs="ext4")], [], work=work, run=process.run
        )


def make_tar(tree: Path, tar: Path) -> Path:
    subprocess.run(["tar", "-C", tree, "--sort=name", "-cf", tar, "."], check=True)
    return tar


def adopt(tar: Path, project: Project, work: Path) -> Path:
    work.mkdir(mode=0o711)
    bench = Bench(tar, project=project, work=work, run=process.run)
    adoption = bench.look("web1")
    refuse_unmendable(adoption)
    return bench.take_in(adoption, {"from": "a test"})


def test_an_adopted_tree_differs_in_what_was_said_and_in_nothing_else(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "needs root to compare owners")
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    kernels = project.store / "kernel/1"
    kernels.mkdir(parents=True)
    tree = make_kvm(tmp_path / "tree", drivers=("xen-blkfront",))
    tar = make_tar(tree, tmp_path / "tree.tar")
    folder = adopt(tar, project, tmp_path / "first")
    record = json.loads((folder / "record.json").read_text())
    assert (folder / "record.json").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "texts" not in record["survey"] and "$6$" not in json.dumps(record)
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-C", out, "-xpf", folder / "rootfs.tar"], check=True)
    before, after = take_picture(tree), take_picture(out)
    touched = {f"/{path}" for path in before.keys() | after if before.get(path) != after.get(path)}
    assert touched == {change["path"] for change in record["changes"]}
    assert (out / "etc/machine-id").read_text() == ""
    time.sleep(1.1)  # nothing of the second counts
    again = adopt(tar, project, tmp_path / "second")
    assert again == folder
    assert json.loads((again / "record.json").read_text())["tree"] == record["tree"]
