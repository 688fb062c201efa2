"""Guests whose root is an enemy: small file systems, each with one thing that a reader may trip on.

A case changes the tree before mke2fs takes it, the image by debugfs(8), or the image's bytes.
"""

import bz2
import gzip
import lzma
import os
import shutil
import stat
import struct
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lz4.block
import zstandard

from tests.damages import remove

ABI = "6.1.0-1-amd64"
OUTSIDE = "OUTSIDE"  # stands for a folder of the host
PLACEHOLDER = "PLACEHOLDER-0123"
_NO_CHECKSUMS = "^has_journal,^metadata_csum,^resize_inode"

Change = Callable[[Path], None]
Bytes = Callable[[bytearray], bytearray]


@dataclass(frozen=True)
class Case:
    """What is done to the guest, and what one of the lines must say about it ("" for nothing)."""

    says: str = ""
    tree: Change | None = None
    debugfs: tuple[str, ...] = ()
    image: Bytes | None = None
    features: str = "extents"


TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/sh\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/hostname": "evil\n",
    "etc/hosts": "127.0.0.1 evil localhost\n",
    "etc/fstab": "/dev/xvda1 / ext4 errors=remount-ro 0 1\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/timezone": "Etc/UTC\n",
    "etc/resolv.conf": "nameserver 192.0.2.1\n",
    "etc/ssh/sshd_config": "PasswordAuthentication no\nKbdInteractiveAuthentication no\n",
    "etc/apt/sources.list": "deb http://archive.example/debian bookworm main\n",
    "etc/apt/apt.conf.d/00x": "APT::Install-Recommends no;\n",
    "etc/systemd/network/10-card0.network": "[Match]\nName=eth0 enX0\n\n[Network]\nDHCP=yes\n",
    "etc/cron.d/job": "0 0 * * * root true\n",
    "boot/grub/grub.cfg": (
        f'menuentry "x" {{\n linux /boot/vmlinuz-{ABI} root=/dev/xvda1\n'
        f" initrd /boot/initrd.img-{ABI}\n}}\n"
    ),
    "boot/grub/menu.lst": f"title x\nkernel /boot/vmlinuz-{ABI} root=/dev/xvda1\n",
    f"boot/vmlinuz-{ABI}": "no kernel\n",
    f"boot/initrd.img-{ABI}": "no initrd\n",
    f"lib/modules/{ABI}/modules.dep": "kernel/drivers/net/xen-netfront.ko:\n",
    f"lib/modules/{ABI}/kernel/drivers/net/xen-netfront.ko": "",
    "var/lib/dpkg/status": (
        "Package: dpkg\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n"
    ),
    "var/cache/debconf/config.dat": "Name: debconf/priority\nValue: high\n",
    "root/.ssh/authorized_keys": "",
    "home/user/.ssh/authorized_keys": "",
}


def make_base(root: Path) -> None:
    """A guest that a check can read, and has little to say against."""
    for name, text in TEXTS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("dev", "proc", "sys", "run", "tmp", "usr/sbin", "var/cache/apt/archives"):
        (root / name).mkdir(parents=True, exist_ok=True)


def make_image(case: Case, base: Path, work: Path, image: Path) -> None:
    """The case's image; `base` is make_base's tree, `work` an empty folder."""
    tree = work / "tree"
    shutil.copytree(base, tree, symlinks=True)
    if case.tree:
        case.tree(tree)
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-N", "4096", "-d", str(tree)]
    features = f"{_NO_CHECKSUMS},{case.features}"
    subprocess.run([*argv, "-O", features, image, "12M"], check=True, capture_output=True)
    shutil.rmtree(tree)
    if case.debugfs:
        script = work / "script"
        script.write_text("".join(f"{line}\n" for line in case.debugfs))
        subprocess.run(["debugfs", "-w", "-f", script, image], check=True, capture_output=True)
    if case.image:
        image.write_bytes(case.image(bytearray(image.read_bytes())))


def named(folder: str, name: str | bytes, content: str = "x\n") -> Change:
    """A file of this name in a folder of the guest, and a folder of the same one below."""

    def change(tree: Path) -> None:
        place = os.fsencode(tree / folder)
        os.makedirs(place, exist_ok=True)
        raw = os.fsencode(name)
        with open(os.path.join(place, raw), "w") as stream:
            stream.write(content)
        os.makedirs(os.path.join(place, b"below", raw, raw), exist_ok=True)

    return change


def linked(path: str, target: str) -> Change:
    def change(tree: Path) -> None:
        remove(tree / path)
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to(target.replace(OUTSIDE, str(tree.parent.parent / "host")))

    return change


def made(path: str, kind: int) -> Change:
    """A pipe, socket or device where something else is expected."""

    def change(tree: Path) -> None:
        remove(tree / path)
        if kind == stat.S_IFDIR:
            (tree / path).mkdir()
        else:
            os.mknod(tree / path, kind | 0o666, os.makedev(1, 5))

    return change


def written(path: str, content: str | bytes) -> Change:
    def change(tree: Path) -> None:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def sparse(path: str, size: int) -> Change:
    def change(tree: Path) -> None:
        os.truncate(tree / path, size)

    return change


def all_of(*changes: Change) -> Change:
    def change(tree: Path) -> None:
        for one in changes:
            one(tree)

    return change


def chain(tree: Path) -> None:
    remove(tree / "etc/hostname")
    for number in range(100):
        (tree / f"etc/l{number}").symlink_to(f"l{number + 1}")
    (tree / "etc/hostname").symlink_to("l0")


def deep(tree: Path) -> None:
    os.makedirs(tree / "etc" / "/".join("d" * 300))


def many(folder: str, count: int, name: str = "f{}") -> Change:
    def change(tree: Path) -> None:
        (tree / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (tree / folder / name.format(number)).touch()

    return change


def many_folders(folder: str, count: int) -> Change:
    def change(tree: Path) -> None:
        for number in range(count):
            (tree / folder / f"6.{number}").mkdir(parents=True)

    return change


def replaced(old: str, new: str) -> Bytes:
    """A name in a folder's block becomes one that no kernel would take."""

    def change(image: bytearray) -> bytearray:
        assert len(old) == len(new)
        assert image.count(old.encode()) >= 1
        return bytearray(image.replace(old.encode(), new.encode()))

    return change


def poked(at: int, form: str, *values: int) -> Bytes:
    """Numbers written over a place of the image; 1024 on is the superblock."""

    def change(image: bytearray) -> bytearray:
        struct.pack_into(form, image, at, *values)
        return image

    return change


def cut(size: int) -> Bytes:
    return lambda image: image[:size]


def filled(byte: bytes, start: int = 0, end: int | None = None) -> Bytes:
    def change(image: bytearray) -> bytearray:
        stop = len(image) if end is None else end
        image[start:stop] = (byte * (stop - start))[: stop - start]
        return image

    return change


def first_entry(form: str, at: int, value: int) -> Bytes:
    """A field of the entry called PLACEHOLDER: 0 its inode, 4 its length, 6 its name's length."""

    def change(image: bytearray) -> bytearray:
        place = image.index(PLACEHOLDER.encode()) - 8
        struct.pack_into(form, image, place + at, value)
        return image

    return change


def bz_image(payload: bytes, *, setup: bytes = b"") -> bytes:
    """The least that is a bzImage with a payload (Documentation/arch/x86/boot.rst)."""
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)
    struct.pack_into("<II", head, 0x248, 0, len(payload) + 4)
    head[: len(setup)] = setup
    return bytes(head) + payload + bytes(4)


def elf(notes: int, size: int) -> bytes:
    """A 64-bit ELF file with many note segments, all of them the same."""
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<HH", head, 54, 0, notes)
    entry = bytearray(56)
    struct.pack_into("<I", entry, 0, 4)
    struct.pack_into("<Q", entry, 8, 0)
    struct.pack_into("<Q", entry, 32, size)
    return bytes(head + entry)


def cpio(size: str, name_size: str = "00000002") -> bytes:
    fields = ["00000000"] * 6 + [size] + ["00000000"] * 4 + [name_size, "00000000"]
    return b"070701" + "".join(fields).encode() + b"a\0"


BOMB = bytes(64 << 20)


def bomb(kind: str) -> bytes:
    """A few megabytes at most that unpack to more than half a gibibyte."""
    if kind == "lz4":
        block: bytes = lz4.block.compress(bytes(8 << 20), store_size=False)
        return b"\x02\x21\x4c\x18" + (struct.pack("<I", len(block)) + block) * 80
    packers: dict[str, Callable[[], Any]] = {
        "gzip": lambda: zlib.compressobj(1, wbits=31),
        "bzip2": bz2.BZ2Compressor,
        "xz": lambda: lzma.LZMACompressor(preset=0),
        "zstd": lambda: zstandard.ZstdCompressor(level=1).compressobj(),
    }
    packer = packers[kind]()
    return b"".join([*(packer.compress(BOMB) for _ in range(9)), packer.flush()])


def kernel(content: bytes) -> Change:
    return written(f"boot/vmlinuz-{ABI}", content)


def bombed(kind: str) -> Change:
    return lambda tree: kernel(bz_image(bomb(kind)))(tree)


def initrd(content: bytes) -> Change:
    sound = bz_image(gzip.compress(elf(1, 0)))
    return all_of(kernel(sound), written(f"boot/initrd.img-{ABI}", content))
