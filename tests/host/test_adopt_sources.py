"""What `doit adopt` reads: tars, folders, disks of any form, a machine; the same bytes of each."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import (
    InUseError,
    PipelineError,
    UsageError,
    VerificationError,
)
from pipeline.foreign import sources
from pipeline.foreign.sources import Fetched, fetch
from pipeline.formats.xva import Source, write_xva
from pipeline.namespace import isolated
from pipeline.process import run
from pipeline.scratch import remove_abandoned
from tests.conftest import ROOT, require
from tests.patience import wait_for
from tests.unit.test_xva import MACHINE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
MIB = 1 << 20
PASSING = ("./proc/", "./dev/", "./run/")
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with owners, links, times, attributes, a hole and a FIFO."""
    require(os.geteuid() == 0, "only root makes files of several owners")
    tree = tmp_path_factory.mktemp("adopt") / "tree"
    for name in ("etc", "usr/bin", "boot", "var/lib", "dev", "proc", "tmp", "home/me", "srv"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/os-release").write_text("ID=other\nPRETTY_NAME=Other\n")
    (tree / "etc/fstab").write_text("/dev/vda1 / ext4 defaults 0 1\n")
    (tree / "etc/shadow").write_text("root:*:1::::::\n")
    os.chown(tree / "etc/shadow", 0, 42)
    (tree / "etc/shadow").chmod(0o640)
    (tree / "usr/bin/ping").write_bytes(b"\x7fELF" + bytes(range(256)))
    os.setxattr(tree / "usr/bin/ping", "security.capability", CAPABILITY)
    os.link(tree / "usr/bin/ping", tree / "usr/bin/pong")
    (tree / "bin").symlink_to("usr/bin")
    (tree / "boot/vmlinuz").write_bytes(b"a kernel")
    (tree / "var/lib/state").write_bytes(os.urandom(70_000))
    os.mkfifo(tree / "etc/initctl")
    os.chown(tree / "home/me", 1000, 1000)
    with open(tree / "home/me/hole", "wb") as stream:
        stream.seek(5 * MIB)
        stream.write(b"end")
    for path in sorted(tree.rglob("*"), reverse=True):
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    os.utime(tree, (1_600_000_000, 1_600_000_000))
    return tree


def bring(place: Path | str, scratch: Path, **more: object) -> Fetched:
    scratch.mkdir()
    source = sources.Source(place=place, **more)  # type: ignore[arg-type]
    return fetch(source, scratch, own=scratch.parent / "output", run=partial(run, log=None))


@pytest.fixture(scope="module")
def wanted(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Fetched:
    """What the tree is as a folder."""
    return bring(tree, tmp_path_factory.mktemp("wanted") / "scratch")


def test_a_folder_keeps_owners_links_times_attributes_and_holes(
    tree: Path, wanted: Fetched, tmp_path: Path
) -> None:
    run(["tar", "-C", tmp_path, "--xattrs", "--xattrs-include=*", "-xpf", wanted.tar])

    listed = r"%p %y %m %U %G %T@ %s %l %n\n"
    before, after = (
        sorted(run(["find", "."], cwd=folder).split() and _list(folder, listed))
        for folder in (tree, tmp_path)
    )
    assert before == after
    assert os.getxattr(tmp_path / "usr/bin/ping", "security.capability") == CAPABILITY
    assert (tmp_path / "home/me/hole").stat().st_blocks * 512 < 2 * MIB + 4096
    assert wanted.attributes == {"SCHILY.xattr.security.capability": 2}


def _list(folder: Path, form: str) -> list[str]:
    return run(["find", ".", "-printf", form], cwd=folder).splitlines()


@pytest.mark.parametrize("words", [["--sort=name"], ["--format=gnu", "-z"], ["-J"], ["--zstd"]])
def test_a_tar_of_it_is_the_same(
    tree: Path, wanted: Fetched, tmp_path: Path, words: list[str]
) -> None:
    tar, is_gnu = tmp_path / "x.tar", "--format=gnu" in words
    names = sorted(os.listdir(tree), reverse=True)
    keeping = [] if is_gnu else ["--xattrs", "--xattrs-include=*"]
    run(["tar", "-C", tree, "--sparse", "--numeric-owner", *keeping, *words, "-cf", tar, *names])

    again = bring(tar, tmp_path / "scratch")

    lost = {} if not is_gnu else wanted.attributes
    assert again.attributes == {} if lost else again.attributes == wanted.attributes
    assert again.count == wanted.count
    if not is_gnu:
        with_root = tmp_path / "root.tar"
        run(["tar", "-C", tree, *keeping, "--numeric-owner", "-cf", with_root, "."])
        assert bring(with_root, tmp_path / "again").sha256 == wanted.sha256


def test_what_is_mounted_in_a_folder_is_told_or_taken(tree: Path, tmp_path: Path) -> None:
    """In a namespace of its own, as /boot of a machine that adopts itself."""
    disk = tmp_path / "boot.img"
    run(["truncate", "-s", "16M", disk])
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/grub.cfg").write_text("menu\n")
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tmp_path / "boot", disk])
    mounts = [["mount", "-o", "loop,ro", disk, tree / "boot"]]
    mounts += [["mount", "-t", "tmpfs", "none", tree / "srv"]]
    told = {}
    for mounted in (0, 1):
        words = [sys.executable, "-c", PROGRAM, tree, tmp_path / f"scratch{mounted}", mounted]
        said = run(isolated(words, before=mounts), cwd=ROOT)
        told[mounted] = json.loads(said.splitlines()[-1])

    assert dict(told[0]["left_out"]) == {
        "/boot": "a mount; mounts=yes takes it",
        "/srv": "a mount of tmpfs",
    }
    assert told[1]["merged"] == ["/boot"]
    assert dict(told[1]["left_out"]) == {
        "/srv": "a mount of tmpfs",
        "/boot/lost+found": "what fsck finds, of another file system",
    }
    assert "./boot/grub.cfg" in run(["tar", "-tf", tmp_path / "scratch1/tree.tar"])


PROGRAM = """
import json, sys
from pathlib import Path
from pipeline.foreign.sources import Source, fetch
from pipeline.process import run
tree, scratch, mounts = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "1"
scratch.mkdir()
got = fetch(Source(place=tree, mounts=mounts), scratch, own=scratch.parent, run=run)
print(json.dumps({"left_out": [(one.path, one.why) for one in got.left_out], "merged": got.merged}))
"""


@dataclass(frozen=True)
class Disk:
    """A raw disk with an MBR: /, /boot, swap, and /var in xfs."""

    raw: Path

    def convert(self, form: str, target: Path) -> Path:
        if form.endswith("xva"):
            return put_in_xva(self.raw, target.with_suffix(".xva"), compress=form[:-3])
        run(["qemu-img", "convert", "-f", "raw", "-O", form, self.raw, target])
        return target


def put_in_xva(disk: Path, target: Path, *, compress: str = "") -> Path:
    """A machine of XCP-ng with a second disk, as `xe vm-export compress=` gives it."""
    more = make_disk(target.with_name("more"))
    with open(target, "wb") as stream:
        sources = [Source(disk, "root"), Source(more, "more")]
        write_xva(sources, stream, MACHINE, epoch=1, checksum="xxhash")
    if compress:
        run([compress, "-q", target])
        target.with_name(f"{target.name}.{'gz' if compress == 'gzip' else 'zst'}").rename(target)
    return target


def put_mbr(disk: Path, *parts: tuple[int, int]) -> None:
    """(start, size) in MiB, all of Linux' type."""
    sector = bytearray(512)
    sector[440:444] = b"\x01\x02\x03\x04"
    for place, (start, size) in enumerate(parts):
        place = 446 + 16 * place
        struct.pack_into("<4xB3xII", sector, place, 0x83, start * 2048, size * 2048)
    sector[510:] = b"\x55\xaa"
    with open(disk, "r+b") as stream:
        stream.write(sector)


def put_part(disk: Path, image: Path, start: int) -> None:
    run(["dd", f"if={image}", f"of={disk}", "bs=1M", f"seek={start}", "conv=notrunc,sparse"])


@pytest.fixture(scope="module")
def disk(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Disk:
    folder = tmp_path_factory.mktemp("disk")
    raw, copy = folder / "disk.raw", folder / "copy"
    run(["cp", "-a", tree, copy])
    (copy / "etc/fstab").write_text(
        "UUID=aaaaaaaa-0000-4000-8000-000000000001 / ext4 defaults 0 1\n"
        "LABEL=boot /boot ext4 defaults 0 2\n"
        "/dev/vda3 none swap sw 0 0\n"
        "PARTUUID=04030201-04 /var xfs defaults 0 2\n"
        "/dev/sdb1 /backup ext4 nofail 0 2\n"
        "tmpfs /tmp tmpfs defaults 0 0\n"
    )
    os.utime(copy / "etc/fstab", (1_600_000_000, 1_600_000_000))
    layout = ((1, 64), (65, 32), (97, 16), (113, 320))
    run(["truncate", "-s", "440M", raw])
    put_mbr(raw, *layout)
    run(["mv", copy / "boot", folder / "boot"])
    run(["mv", copy / "var", folder / "var"])
    for name in ("boot", "var"):
        (copy / name).mkdir()
    make = ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0"]
    own = ["-U", "aaaaaaaa-0000-4000-8000-000000000001"]
    run([*make, *own, "-d", copy, folder / "root.img", "64M"])
    run([*make, "-L", "boot", "-d", folder / "boot", folder / "boot.img", "32M"])
    run(["truncate", "-s", "320M", folder / "var.img"])
    run(["mkfs.xfs", "-q", folder / "var.img"])
    fill: list[list[object]] = [["mount", "-o", "loop", folder / "var.img", "/mnt"]]
    fill += [["cp", "-a", f"{folder}/var/.", "/mnt"]]
    run(isolated(["umount", "/mnt"], before=fill))
    for name, (start, _) in zip(("root", "boot", "", "var"), layout, strict=True):
        if name:
            put_part(raw, folder / f"{name}.img", start)
            (folder / f"{name}.img").unlink()
    return Disk(raw)


@pytest.mark.parametrize("form", ["raw", "qcow2", "vmdk", "vpc", "vhdx", "xva", "gzipxva"])
def test_a_disk_is_put_together_by_its_fstab_whatever_its_form(
    disk: Disk, tree: Path, form: str, tmp_path: Path
) -> None:
    path = disk.raw if form == "raw" else disk.convert(form, tmp_path / "disk")
    before = run(["sha256sum", path])

    got = bring(path, tmp_path / "scratch")

    assert got.kind == "disk"
    assert got.merged == ("/var", "/boot") or got.merged == ("/boot", "/var")
    left = {one.path: one.why for one in got.left_out}
    assert left["/backup"] == "/dev/sdb1 stays there"
    assert ("more" in left) == form.endswith("xva")
    assert run(["sha256sum", path]) == before
    names = run(["tar", "-tf", got.tar]).splitlines()
    assert {"./boot/vmlinuz", "./var/lib/state", "./usr/bin/pong"} <= set(names)
    state = run(["sh", "-c", f"tar -xOf {got.tar} ./var/lib/state | sha256sum"])
    assert state.split()[0] in run(["sha256sum", tree / "var/lib/state"])
    digest = disk.raw.with_name("digest")
    if not digest.exists():
        digest.write_text(got.sha256)
    assert got.sha256 == digest.read_text()


@pytest.mark.parametrize("fs", ["ext2", "ext4", "xfs", "btrfs"])
def test_a_bare_file_system_is_a_disk_too(
    tree: Path, wanted: Fetched, fs: str, tmp_path: Path
) -> None:
    image = tmp_path / "root.img"
    run(["truncate", "-s", "320M", image])
    mkfs = {"xfs": ["mkfs.xfs", "-q"], "btrfs": ["mkfs.btrfs", "-q"]}
    run([*mkfs.get(fs, ["mke2fs", "-q", "-F", "-t", fs]), image])
    fill: list[list[object]] = [
        ["mount", "-o", "loop", image, "/mnt"],
        ["cp", "-a", f"{tree}/.", "/mnt"],
    ]
    run(isolated(["umount", "/mnt"], before=fill))

    got = bring(image, tmp_path / "scratch")

    assert got.sha256 == wanted.sha256
    assert [one.path for one in got.left_out] == ([] if fs in ("xfs", "btrfs") else ["/lost+found"])


def with_mark(disk: Path, at: int, mark: bytes) -> Path:
    with open(disk, "r+b") as stream:
        stream.seek(at)
        stream.write(mark)
    return disk


def make_disk(path: Path, *, mib: int = 64) -> Path:
    run(["truncate", "-s", f"{mib}M", path])
    put_mbr(path, (1, mib - 2))
    return path


def test_lvm_is_refused_with_the_way_out(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "lvm")
    label = bytearray(512)
    label[:8], label[24:32] = b"LABELONE", b"LVM2 001"
    struct.pack_into("<Q", label, 8, 1)
    struct.pack_into("<I", label, 20, 32)
    label[32:64] = b"a" * 32
    struct.pack_into("<I", label, 16, _lvm_crc(bytes(label[20:])))
    with_mark(disk, MIB + 512, bytes(label))

    with pytest.raises(UsageError) as caught:
        bring(disk, tmp_path / "scratch")

    assert "no root file system that can be read here (partition 1: LVM2_member)" in str(
        caught.value
    )
    assert caught.value.hint.startswith("LVM: ")


def _lvm_crc(data: bytes) -> int:
    """LVM2's checksum: CRC-32 from another start, not inverted."""
    crc = 0xF597A6CF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc


def test_a_qcow2_that_rests_on_a_file_of_the_host_gets_none_of_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 100_000)
    disk = tmp_path / "disk.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, disk])

    with pytest.raises(UsageError) as caught:
        bring(disk, tmp_path / "scratch")

    assert "backing file" in str(caught.value)
    assert "qemu-img convert" in caught.value.hint


def test_an_xva_with_another_byte_is_refused_by_the_block(disk: Disk, tmp_path: Path) -> None:
    xva = put_in_xva(disk.raw, tmp_path / "web1.xva")
    with open(xva, "r+b") as stream:
        stream.seek(1 * MIB)  # within the first block
        stream.write(b"another")

    with pytest.raises(VerificationError, match="Ref:002/00000000: its checksum is another one"):
        bring(xva, tmp_path / "scratch")


def test_a_disk_that_is_open_elsewhere_is_refused(disk: Disk, tmp_path: Path) -> None:
    with open(disk.raw, "r+b") as stream:
        holder = subprocess.Popen(["sleep", "60"], stdin=stream)
    try:
        with pytest.raises(InUseError):
            bring(disk.raw, tmp_path / "scratch")
    finally:
        holder.kill()
        holder.wait()


def test_a_damaged_ext_is_never_mounted(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "root.img"
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, image, "64M"])
    inode_table = int(run(["dumpe2fs", image]).partition("Inode table at ")[2].partition("-")[0])
    block = 1024 if "Block size:               1024" in run(["dumpe2fs", "-h", image]) else 4096
    with_mark(image, inode_table * block, os.urandom(32 * 1024))

    with pytest.raises(PipelineError, match="e2fsck finds what it does not mend"):
        bring(image, tmp_path / "scratch")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "neither a tar nor a disk"),
        (os.urandom(9000), "neither a tar nor a disk"),
        (b"\x1f\x8b" + bytes(100), "the gzip stream is damaged"),
        (bytes(257) + b"ustar\x0000" + bytes(1000), "damaged, or cut short"),
        (b"QFI\xfb" + bytes(4096), ""),
        (b"conectix" + bytes(4096), ""),
    ],
    ids=["empty", "noise", "gzip", "tar", "qcow2", "vhd"],
)
def test_what_is_neither_is_told_in_a_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "file").write_bytes(content)

    with pytest.raises(PipelineError) as caught:
        bring(tmp_path / "file", tmp_path / "scratch")

    assert said in str(caught.value)


def test_a_bomb_ends_at_the_bound(tmp_path: Path) -> None:
    """17 GiB of zeros in a file of some KiB: refused by its header, before they are unpacked."""
    with open(tmp_path / "big", "wb") as stream:
        stream.truncate(17 << 30)
    (tmp_path / "etc").mkdir()
    begun = time.monotonic()
    run(["tar", "-C", tmp_path, "--sparse", "-czf", tmp_path / "x.tgz", "etc", "big"])

    with pytest.raises(PipelineError, match="longer than 16 GiB"):
        bring(tmp_path / "x.tgz", tmp_path / "scratch")

    assert time.monotonic() - begun < 120


def test_a_kill_leaves_nothing(disk: Disk, tmp_path: Path) -> None:
    room = tmp_path / "room"
    program = PROGRAM.replace("scratch.mkdir()\n", "").replace(
        "got = ",
        "from pipeline.scratch import scratch_folder\n"
        "with scratch_folder(scratch.parent, 'adopt') as scratch: got = ",
    )
    for delay in (0.4, 1.0, 2.0, 3.5):
        words = [sys.executable, "-c", program, str(disk.raw), str(room / "x"), "0"]
        child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        wait_for(partial(is_cleared, room), f"the end of what was killed after {delay} s")
    # mounts, loop devices and processes: the leak check around every integration test


def is_cleared(room: Path) -> bool:
    """Once nobody holds what lies there."""
    remove_abandoned(room)
    return not room.exists() or not list(room.iterdir())
