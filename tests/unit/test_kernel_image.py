"""Kernels and initrds are read from their bytes."""

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable

import lz4.block
import pytest
import zstandard

from pipeline.kernel.cpio import module_names, read_initrd
from pipeline.kernel.image import read_kernel

NOTES = [(1, struct.pack("<Q", 0xFFFFFFFF81000000)), (8, b"generic\0"), (18, b"\x50\x08\0\x01")]


def make_elf(notes: list[tuple[int, bytes]]) -> bytes:
    segment = b"".join(
        struct.pack("<III", 4, len(value), kind) + b"Xen\0" + value + b"\0" * (-len(value) % 4)
        for kind, value in notes
    )
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 62, 1)
    header += struct.pack("<QQQIHHHHHH", 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    program = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(segment), len(segment), 4)
    return header + program + segment


def make_bzimage(payload: bytes, *, protocol: int = 0x20F) -> bytes:
    setup = bytearray(1024)
    setup[0x1F1] = 1
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, protocol)
    struct.pack_into("<H", setup, 0x20E, 0x100)
    setup[0x300:0x320] = b"6.1.0-56-amd64 (x@y) #1 SMP\0".ljust(32, b"\0")
    struct.pack_into("<II", setup, 0x248, 16, len(payload))
    return bytes(setup) + bytes(16) + payload


def xz(content: bytes) -> bytes:
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6}]
    return lzma.compress(content, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)


@pytest.mark.parametrize(
    ("name", "pack", "trailer"),
    [
        ("gzip", gzip.compress, b""),
        ("bzip2", bz2.compress, b"size"),
        ("xz", xz, b"size"),
        ("lzma", lambda elf: lzma.compress(elf, lzma.FORMAT_ALONE), b"size"),
    ],
)
def test_the_notes_of_a_compressed_kernel_are_read(
    name: str, pack: Callable[[bytes], bytes], trailer: bytes
) -> None:
    kernel = read_kernel(make_bzimage(pack(make_elf(NOTES)) + trailer))
    assert kernel.compression == name
    assert kernel.release == "6.1.0-56-amd64"
    assert kernel.bits == 64
    assert kernel.elf_notes == {
        "ENTRY": "0xffffffff81000000",
        "LOADER": "generic",
        "PHYS32_ENTRY": "0x1000850",
    }


def test_the_size_after_an_lz4_payload_is_none_of_its_blocks() -> None:
    block = lz4.block.compress(make_elf(NOTES), store_size=False)
    stream = b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block
    kernel = read_kernel(make_bzimage(stream + b"size"))
    assert kernel.compression == "lz4"
    assert kernel.elf_notes is not None
    assert "PHYS32_ENTRY" in kernel.elf_notes


def test_an_lzo_kernel_cannot_be_unpacked_and_says_so() -> None:
    kernel = read_kernel(make_bzimage(b"\x89LZOstream" + b"size"))
    assert (kernel.compression, kernel.elf_notes) == ("lzo", None)
    assert "no decompressor for lzo" in kernel.unread


def test_a_gzipped_elf_kernel_of_the_2_6_18_days_is_read() -> None:
    kernel = read_kernel(gzip.compress(make_elf(NOTES)))
    assert (kernel.is_bzimage, kernel.compression) == (False, "gzip")
    assert kernel.elf_notes is not None


def test_a_damaged_payload_gives_no_notes_and_the_reason() -> None:
    kernel = read_kernel(make_bzimage(b"\xfd7zXZ\x00" + bytes(40)))
    assert kernel.elf_notes is None
    assert "damaged" in kernel.unread


@pytest.mark.parametrize("image", [b"", b"MZ" * 100, b"#!/bin/sh\n"])
def test_bytes_that_are_no_kernel_are_refused(image: bytes) -> None:
    with pytest.raises(ValueError, match="neither"):
        read_kernel(image)


def make_cpio(members: dict[str, bytes]) -> bytes:
    archive = b""
    for name, content in {**members, "TRAILER!!!": b""}.items():
        raw = name.encode() + b"\0"
        fields = [1, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + raw
        archive += head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)
    return archive + b"\0" * (-len(archive) % 512)


def test_an_initrd_with_microcode_before_a_compressed_archive_is_read_whole() -> None:
    early = make_cpio({"kernel/x86/microcode/GenuineIntel.bin": b"code"})
    late = make_cpio(
        {
            "usr/lib/modules/6.1/kernel/drivers/block/xen-blkfront.ko": b"\x7fELF",
            "./lib/modules/6.1/kernel/fs/ext4/ext4.ko.xz": b"x",
            "conf/initramfs.conf": b"MODULES=list\n",
        }
    )
    entries = read_initrd(early + gzip.compress(late))
    assert module_names(entries) == {"xen_blkfront", "ext4"}
    assert entries[0].path == "kernel/x86/microcode/GenuineIntel.bin"
    assert entries[-1].content == b"MODULES=list\n"


def test_a_zstd_initrd_is_read() -> None:
    entries = read_initrd(zstandard.compress(make_cpio({"a.ko": b"1"})))
    assert module_names(entries) == {"a"}


@pytest.mark.parametrize("image", [b"junk", b"070701" + b"z" * 200, make_cpio({"a": b"b"})[:130]])
def test_a_damaged_initrd_is_refused(image: bytes) -> None:
    with pytest.raises(ValueError, match=r"cpio|damaged"):
        read_initrd(image)


def spoil(at: int, form: str, *values: int | bytes) -> bytes:
    """An ELF file with other numbers in its header, program header or first note."""
    elf = bytearray(make_elf(NOTES))
    struct.pack_into(form, elf, at, *values)
    return bytes(elf)


@pytest.mark.parametrize(
    ("elf", "reason"),
    [
        (spoil(32, "<Q", 1 << 60), "damaged"),
        (spoil(32, "<Q", (1 << 64) - 1), "damaged"),
        (spoil(56, "<H", 0xFFFF), "more ELF segments"),
        (spoil(54, "<HH", 0, 64), "more ELF notes"),
        (spoil(64 + 32, "<Q", 1 << 40), "more ELF notes"),
        (spoil(120, "<III4s", 4, 0xFFFFFFFF, 5, b"GNU\0"), "damaged"),
    ],
)
def test_numbers_that_no_kernel_has_are_not_followed(elf: bytes, reason: str) -> None:
    kernel = read_kernel(elf)
    assert (kernel.bits, kernel.elf_notes) == (64, None)
    assert reason in kernel.unread
