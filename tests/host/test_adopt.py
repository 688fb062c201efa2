"""`doit adopt` as a user types it: what it says, changes and nothing else, what it refuses."""

import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline.process import run
from tests.adopted import announced_paths, changed_paths
from tests.conftest import require
from tests.workshop import Outcome, Workshop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
FILES = {
    "etc/os-release": 'ID=strange\nVERSION_ID=7\nPRETTY_NAME="Strange Linux 7"\n',
    "etc/fstab": "UUID=0b0b0b0b-0000-4000-8000-000000000001 / ext4 defaults 0 1\n"
    "/dev/vdb1 /srv xfs defaults 0 2\n",
    "etc/hostname": "old\n",
    "etc/inittab": "::sysinit:/etc/rc\ntty1::respawn:/sbin/getty 38400 tty1\n",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
    "etc/shadow": "root:$6$salt$hash:19000:0:99999:7:::\n",
    "etc/network/interfaces": "auto ens3\niface ens3 inet dhcp\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/ssh/ssh_host_ed25519_key": "a secret\n",
    "boot/loader/entries/strange.conf": "title Strange\nlinux /boot/vmlinuz-ABI\n"
    "initrd /boot/initrd-ABI\noptions root=/dev/vda1 ro console=ttyS0\n",
    "lib/modules/ABI/modules.builtin": "kernel/drivers/block/xen-blkfront.ko\n"
    "kernel/drivers/net/xen-netfront.ko\nkernel/fs/ext4/ext4.ko\n",
    "boot/initrd-ABI": "",
    "root/notes": "kept as they are\n",
    "usr/bin/tool": "#!/bin/sh\n",
}


def abi_of(kernel: Path) -> str:
    """What a bzImage says that it is (Documentation/arch/x86/boot.rst, kernel_version)."""
    content = kernel.read_bytes()
    return content[int.from_bytes(content[0x20E:0x210], "little") + 512 :].split()[0].decode()


@pytest.fixture(scope="module")
def tree(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system that is nobody's: BusyBox' init, BLS entries, no dpkg, a real kernel."""
    require(os.geteuid() == 0, "only root makes files of several owners")
    tree = tmp_path_factory.mktemp("strange") / "tree"
    kernel = workshop.built("test-drbd") / "vmlinuz"
    abi = abi_of(kernel)
    for template, told in FILES.items():
        name, text = template.replace("ABI", abi), told.replace("ABI", abi)
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    for name in ("dev", "proc", "sys", "run", "tmp", "sbin", "bin", "var/lib"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/true", tree / "bin/busybox")
    (tree / "sbin/init").symlink_to("/bin/busybox")
    shutil.copy(kernel, tree / f"boot/vmlinuz-{abi}")
    (tree / "etc/shadow").chmod(0o640)
    os.chown(tree / "etc/shadow", 0, 42)
    return tree


@pytest.fixture
def shop(workshop: Workshop, tmp_path: Path) -> Workshop:
    return Workshop(workshop.output, tmp_path / "guests")


def adopt(shop: Workshop, *words: str) -> Outcome:
    return shop.doit("adopt", *words)


def test_dry_says_all_and_keeps_nothing(shop: Workshop, tree: Path) -> None:
    outcome = adopt(shop, "name=strange1", f"from={tree}", "dry=yes")

    assert outcome.code == 0, outcome.said
    for said in (
        f"strange1: Strange Linux 7, busybox, {next((tree / 'lib/modules').iterdir()).name}",
        "in the guest: /etc/fstab: ",
        "+hvc0::respawn:/sbin/getty",
        "in the guest: /boot/loader/entries/strange.conf",
        "-UUID=0b0b0b0b-0000-4000-8000-000000000001 / ext4 defaults 0 1",
        "/dev/xvda1 / ext4",
    ):
        assert said in outcome.said, outcome.said
    assert "$6$salt" not in outcome.said
    assert not (shop.output / "adopted/strange1").exists()
    assert not shop.guests.exists() or not list(shop.guests.iterdir())
    assert not list((shop.output / "scratch").glob("adopt-*"))


def test_what_it_names_is_changed_and_nothing_else(
    shop: Workshop, tree: Path, tmp_path: Path
) -> None:
    tar = tmp_path / "strange.tar.zst"
    run(["tar", "-C", tree, "--zstd", "-cf", tar, "."])
    folder = shop.output / "adopted/strange2"
    shutil.rmtree(folder, ignore_errors=True)  # of a workshop that is kept

    outcome = adopt(shop, "name=strange2", f"from={tar}")

    assert outcome.code == 0, outcome.said
    plain = tmp_path / "plain.tar"
    run(["tar", "-C", tree, "-cf", plain, "."])
    announced = announced_paths(folder)
    assert changed_paths(plain, folder / "rootfs.tar", announced) == announced
    record = json.loads((folder / "record.json").read_text())
    assert record["origin"]["from"] == str(tar)
    assert 'adopted = "strange2"' in (shop.guests / "strange2.toml").read_text()
    first = (folder / "rootfs.tar").read_bytes()
    again = adopt(shop, "name=strange2", f"from={tree}", "replace=yes")
    assert again.code == 0, again.said
    assert (folder / "rootfs.tar").read_bytes() == first


def test_a_name_that_is_taken_is_refused_before_anything_is_read(
    shop: Workshop, tmp_path: Path
) -> None:
    shop.guests.mkdir()
    (shop.guests / "strange3.toml").write_text('suite = "bookworm"\n')

    outcome = adopt(shop, "name=strange3", f"from={tmp_path}/nowhere")

    assert outcome.code == 2
    assert "strange3 is there already" in outcome.said
    assert "replace=yes" in outcome.said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["from=/nowhere"], 2, "there is nothing of that name"),
        (["from=ssh://root@"], 2, "is no machine"),
        (["from=ssh://-oProxyCommand=x"], 2, "is no machine"),
        (["from=/etc/hostname"], 2, "neither a tar nor a disk"),
        (["from=/dev/zero"], 2, "neither a file nor a block device"),
        (["from=/proc/self/mem"], 2, "/proc/self/mem: "),
        (["from=/etc"], 1, "no root file system: it has no"),
        (["from=/etc", "without=etc"], 2, "is not a path of a guest"),
        (["from=/etc", "part=0"], 2, "part"),
        ([], 2, "from where?"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    shop: Workshop, words: list[str], code: int, said: str
) -> None:
    outcome = adopt(shop, "name=strange4", "dry=yes", *words)

    assert (outcome.code, said in outcome.said) == (code, True), outcome.said
    assert "Traceback" not in outcome.said


def test_programs_are_told_the_same_as_json(shop: Workshop, tree: Path) -> None:
    outcome = adopt(shop, "name=strange5", f"from={tree}", "dry=yes", "json=yes")

    told = json.loads(outcome.said[outcome.said.index("{") :])
    assert outcome.code == 0
    assert {"/etc/fstab", "/etc/inittab"} <= {change["path"] for change in told["changes"]}
    assert told["origin"]["kind"] == "folder"
