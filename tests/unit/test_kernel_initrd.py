"""The initrd: which modules it takes, and that the same content gives the same bytes."""

import gzip
import lzma
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.kernel.cpio import Archive, module_names, read_initrd
from pipeline.kernel.initrd import build_initrd
from pipeline.kernel.modules import ModuleFolder, name_of

BUSYBOX = b"\x7fELF static"
DEP = """kernel/drivers/block/xen-blkfront.ko.xz:
kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/fs/mbcache.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A /lib/modules/ABI after depmod, modules compressed as in trixie."""
    (tmp_path / "modules.dep").write_text(DEP)
    for line in DEP.splitlines():
        path = tmp_path / line.partition(":")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress(path.name.encode()))
    return tmp_path


def test_modules_come_with_what_they_need_and_decompressed(folder: Path) -> None:
    made = build_initrd(BUSYBOX, ModuleFolder(folder), "6.12-test", file_system="ext4")
    assert made.modules == ("crc32c_generic", "ext4", "jbd2", "mbcache", "xen_blkfront")
    content = gzip.decompress(made.content)
    assert b"lib/modules/6.12-test/kernel/fs/ext4/ext4.ko\0" in content
    assert b"ext4.ko.xz" in content  # the module's own content, decompressed
    assert b"kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko\n" in content
    assert set(made.modules) <= {name_of(name) for name in module_names(read_initrd(made.content))}


def test_the_same_content_gives_the_same_bytes(folder: Path) -> None:
    one = build_initrd(BUSYBOX, ModuleFolder(folder), "6.12", file_system="ext4")
    assert one == build_initrd(BUSYBOX, ModuleFolder(folder), "6.12", file_system="ext4")


def test_what_is_built_in_is_not_sought(folder: Path) -> None:
    (folder / "modules.builtin").write_text(
        "kernel/fs/ext4/ext4.ko\nkernel/drivers/xen-blkfront.ko\n"
    )
    asked, files = ModuleFolder(folder).select("ext4")
    assert asked == ["crc32c_generic"]
    assert [module.name for module in files] == ["crc32c_generic"]


def test_ext3_is_driven_by_ext4_where_it_has_no_module(folder: Path) -> None:
    asked, _ = ModuleFolder(folder).select("ext3")
    assert asked == ["xen-blkfront", "ext4"]


def test_a_kernel_without_the_file_system_is_refused(folder: Path) -> None:
    with pytest.raises(PipelineError, match="no xfs"):
        ModuleFolder(folder).select("xfs")


def test_a_busybox_that_is_no_program_is_refused(folder: Path) -> None:
    with pytest.raises(PipelineError, match="busybox"):
        build_initrd(b"#!/bin/sh\n", ModuleFolder(folder), "6.12", file_system="ext4")


def test_parents_are_made_once_and_the_console_is_a_device() -> None:
    archive = Archive()
    archive.add_file("a/b/one", b"1")
    archive.add_file("a/b/two", b"2")
    archive.add_console()
    assert [
        member.name for member in archive.members
    ] == "a a/b a/b/one a/b/two dev dev/console".split()
    assert len(archive.pack()) % 4 == 0
