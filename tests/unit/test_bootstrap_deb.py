"""Reading .deb files: what dpkg accepts is understood; tests/host has what is refused."""

import gzip
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from pipeline.bootstrap.database import read_control
from pipeline.bootstrap.deb import Archive, read_deb, read_members
from pipeline.errors import PipelineError
from tests.crafted_packages import ar_of, control_tar, entry, tar_of


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("tar_xz", lzma.compress),
        ("tar_gz", gzip.compress),
        ("tar_zst", zstandard.ZstdCompressor().compress),
        ("tar", bytes),
    ],
)
def test_every_compression_of_a_release_is_read(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    files = tar_of((entry("./usr/bin/hello", mode=0o755), b"hi"))
    parts = {"control_tar_gz": gzip.compress(control_tar())}
    (tmp_path / "hello.deb").write_bytes(ar_of(**parts, **{f"data_{suffix}": pack(files)}))
    archive = read_deb(tmp_path / "hello.deb", name="hello")
    assert archive.files == files
    (member,) = read_members(archive.files, name="hello")
    assert (member.path, member.kind, member.mode) == ("/usr/bin/hello", "0", 0o755)
    assert archive.files[member.start : member.start + member.size] == b"hi"


def test_a_damaged_package_is_refused_by_name_with_another_way(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"<html>")
    with pytest.raises(PipelineError, match="package hello: .*no ar archive") as caught:
        read_deb(tmp_path / "x.deb", name="hello")
    assert "bootstrap=mmdebstrap" in caught.value.hint


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_are_read_in_both_forms(form: int) -> None:
    name = "usr/" + "/".join(["folder-with-a-long-name"] * 8) + "/file"
    short = entry("./short", kind=tarfile.SYMTYPE, linkname="target")
    found = list(read_members(tar_of((entry(name), b"x"), (short, b""), form=form), name="x"))
    assert [member.path for member in found] == [f"/{name}", "/short"]
    assert found[1].target == "target"


def test_a_long_target_belongs_to_its_own_link_only() -> None:
    long = entry("./long", kind=tarfile.SYMTYPE, linkname="t" * 150)
    next_one = entry("./next", kind=tarfile.SYMTYPE, linkname="u")
    found = list(read_members(tar_of((long, b""), (next_one, b"")), name="x"))
    assert [member.target for member in found] == ["t" * 150, "u"]


def test_the_tree_itself_and_folders_have_the_paths_of_dpkgs_lists() -> None:
    folders = [entry(name, kind=tarfile.DIRTYPE, mode=0o2775) for name in ("./", "./var/mail/")]
    found = list(read_members(tar_of(*((one, b"") for one in folders)), name="x"))
    assert [member.path for member in found] == ["/.", "/var/mail"]
    assert found[1].mode == 0o2775


def test_an_owner_that_octal_cannot_hold_is_read() -> None:
    (found,) = read_members(tar_of((entry("./x", uid=3_000_000, gid=65534), b"")), name="x")
    assert (found.uid, found.gid) == (3_000_000, 65534)


def test_the_control_part_says_what_the_package_is() -> None:
    files = {"conffiles": b"/etc/a\nremove-on-upgrade /etc/b\n\n", "preinst": b"#!/bin/sh\ntrue\n"}
    control = read_control(Archive(control_tar(**files), b""), name="hello")
    assert (control.name, control.label) == ("hello", "hello:amd64")
    assert (control.conffiles, control.removed) == (("/etc/a",), ("/etc/b",))
    assert control.has_working_preinst
    assert sorted(control.files) == ["conffiles", "preinst"]
