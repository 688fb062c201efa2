"""A proof's own key, put into file systems and disks of every kind by a real test host."""

import re
import shutil
from pathlib import Path

import pytest

from pipeline.process import run
from pipeline.proof import ephemeral_key, machine
from pipeline.proof.artifact import read_foreign
from pipeline.proof.handover import plug_disks
from pipeline.proof.testhost import ensure_host
from tests.boot.conftest import Prover
from tests.conftest import require
from tests.specs import make_spec
from tests.turns import in_turn

pytestmark = [
    pytest.mark.integration,
    pytest.mark.build,
    pytest.mark.timeout(1800),
    in_turn("boot", "a proof's key in every disk"),
]
LINE = "ssh-ed25519 AAAA of one proof alone"
# a guest each: the disks of one configuration, by their numbers in DISKS
DISKS = (
    ("root.img", "raw", "xvda1"),
    ("home.img", "raw", "xvda2"),
    ("cow.qcow2", "qcow2", "xvdb1"),
    ("disk.vhd", "vhd", "xvdc1"),
    ("strange.img", "raw", "xvdd1"),
)


def make_tree(folder: Path, fstab: str, keys: str = "") -> Path:
    """The files of a guest that the key is put in by."""
    (folder / "etc/ssh").mkdir(parents=True)
    (folder / "root/.ssh").mkdir(parents=True, mode=0o700)
    (folder / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (folder / "etc/fstab").write_text(f"# comment\n{fstab}\n")
    (folder / "etc/ssh/sshd_config").write_text("PermitRootLogin prohibit-password\n")
    if keys:
        (folder / "root/.ssh/authorized_keys").write_text(keys)
    return folder


def make_disks(folder: Path) -> None:
    """ext4 with /root on an xfs of its own; ext3 copy on write with keys; btrfs in a VHD.

    And an ext4 with a feature that no Linux writes.
    """
    tree = make_tree(folder / "a", "/dev/xvda1 / ext4 x 0 1\n/dev/xvda2 /root xfs x 0 0")
    run(["mke2fs", "-q", "-t", "ext4", "-d", tree, folder / "root.img", "32M"])
    run(["truncate", "-s", "320M", folder / "home.img"])
    run(["mkfs.xfs", "-q", folder / "home.img"])
    tree = make_tree(folder / "b", "UUID=none / ext3 x 0 1", "ssh-ed25519 BBBB me")
    run(["mke2fs", "-q", "-t", "ext3", "-d", tree, folder / "golden.img", "32M"])
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "golden.img"]
    run([*words, folder / "cow.qcow2"])
    tree = make_tree(folder / "c", "/dev/xvdc1 / btrfs x 0 0")
    run(["truncate", "-s", "192M", folder / "btrfs.img"])
    run(["mkfs.btrfs", "-q", "--rootdir", tree, folder / "btrfs.img"])
    run(["mke2fs", "-q", "-t", "ext4", "-d", tree, folder / "strange.img", "16M"])
    run(["debugfs", "-w", "-R", "feature shared_blocks", folder / "strange.img"])
    words = ["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on"]
    run([*words, folder / "btrfs.img", folder / "disk.vhd"])


def test_it_is_put_into_every_kind_of_disk_and_no_disk_changes(
    prover: Prover, tmp_path: Path
) -> None:
    require(shutil.which("mkfs.xfs") is not None, "xfsprogs is not installed")
    require(shutil.which("mkfs.btrfs") is not None, "btrfs-progs is not installed")
    folder = tmp_path / "guest"
    folder.mkdir()
    make_disks(folder)
    listed = ", ".join(f"'format={f},vdev={v},target={folder}/{n}'" for n, f, v in DISKS)
    configuration = folder / "web1.cfg"
    configuration.write_text(f'name = "web1"\nbootloader = "pygrub"\ndisk = [ {listed} ]\n')
    artifact = read_foreign(configuration, tmp_path)
    before = artifact.digests()
    host = ensure_host(prover.recipe, make_spec(name="any"))
    log = tmp_path / "log"

    with machine.resume(host.folder, tmp_path, host.accelerator, log=log) as running:
        plug_disks(running, [artifact], tmp_path)
        answers = {}
        for number in (0, 2, 3, 4):
            order = {**ephemeral_key._describe_disks(artifact), "line": LINE, "root": ""}
            order["disks"] = order["disks"][number : number + 1 + (number == 0)]
            answers[number] = ephemeral_key._carry_out(running.agent, order)
        read = "mkdir -p /mnt; mount -r {} /mnt; cat /mnt/{}; stat -c %a:%u:%g /mnt/{}; umount /mnt"
        seen = "until [ -e /sys/block/nbd9/pid ]; do sleep 0.2; done"
        show = "qemu-nbd -r -f {} -c /dev/nbd9 {} & " + seen + "; {}; qemu-nbd -d /dev/nbd9; wait"
        kept = "root/.ssh/authorized_keys"
        ext3 = read.format("/dev/nbd9", kept, kept)
        told = [
            running.agent.demand(["sh", "-c", script], timeout_s=120).splitlines()[:3]
            for script in (
                read.format(folder / "home.img", ".ssh/authorized_keys", ".ssh/authorized_keys"),
                show.format("qcow2", folder / "cow.qcow2", ext3),
                show.format("vpc", folder / "disk.vhd", ext3),
            )
        ]

    path = f"/{kept}"
    assert answers[0] == {"path": path, "disk": 1}
    assert answers[2] == answers[3] == {"path": path, "disk": 0}
    assert re.fullmatch(
        r"no root file system that can be written: xvdd1: Linux \S+ cannot write its ext4",
        answers[4].get("why", ""),
    )
    assert told[0][:2] == told[2][:2] == [LINE, "600:0:0"]
    assert told[1] == ["ssh-ed25519 BBBB me", LINE, "644:0:0"]
    assert artifact.digests() == before
