"""A stranger's tar: what tar(1) would make of it, the same bytes for a tree, or a refusal."""

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import zstandard

from pipeline.errors import PipelineError
from pipeline.foreign.tar_index import MOST_BYTES, read_index, unpack_into
from pipeline.foreign.tar_writer import leave_out, write_tar

CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
HOLE = 1 << 20


def entry(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mtime = kind, 1_700_000_000
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in more.items():
        setattr(info, key, value)
    return info


Entry = tuple[tarfile.TarInfo, bytes]


def usual() -> list[Entry]:
    """A tree with all that a tar can hold."""
    said = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape")}
    return [
        (entry("./", tarfile.DIRTYPE), b""),
        (entry("./etc", tarfile.DIRTYPE), b""),
        (entry("./etc/shadow", mode=0o640, gid=42), b"root:*:1::::::\n"),
        (entry("./usr", tarfile.DIRTYPE), b""),
        (entry("./usr/ping", mode=0o4755, pax_headers=said), b"\x7fELF"),
        (entry("./usr/pong", tarfile.LNKTYPE, linkname="./usr/ping"), b""),
        (entry("./bin", tarfile.SYMTYPE, linkname="usr"), b""),
        (entry("./etc/initctl", tarfile.FIFOTYPE), b""),
        (entry(f"./usr/{'long' * 60}", uid=1000), b"x"),
        (entry("./usr/caf\udce9"), b"latin-1"),
        (entry("./usr/gross"), b"a" * 100 + bytes(3 * HOLE) + b"b" * 5000),
    ]


def pack(entries: list[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        for info, content in entries:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def normal(tar: bytes) -> bytes:
    source, target = io.BytesIO(tar), io.BytesIO()
    write_tar(read_index(source), source, target)
    return target.getvalue()


def read_back(tar: bytes) -> dict[str, tuple[object, ...]]:
    archive: Any
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {
            info.name: (
                *(info.type, info.mode, info.uid, info.gid, info.mtime, info.linkname),
                archive.extractfile(info).read() if info.isreg() else b"",
                info.pax_headers.get("SCHILY.xattr.security.capability"),
            )
            for info in archive
        }


def test_order_and_form_do_not_matter() -> None:
    first = normal(pack(usual()))

    for seed in range(5):
        entries = usual()
        rest = [one for one in entries if one[0].type != tarfile.LNKTYPE]
        random.Random(seed).shuffle(rest)
        links = [one for one in entries if one[0].type == tarfile.LNKTYPE]
        assert normal(pack([*rest, *links])) == first
    assert normal(first) == first


def test_nothing_of_the_tree_is_lost() -> None:
    before, after = read_back(pack(usual())), read_back(normal(pack(usual())))

    assert after.pop(".")[1] == 0o755
    before.pop(".")
    assert {name.removeprefix("./") for name in after} == {
        name.removeprefix("./") for name in before
    }
    for name, told in before.items():
        if told[0] != tarfile.LNKTYPE:
            assert after[name] == told, name
    assert after["./usr/pong"][5] == "./usr/ping"


def test_zeros_are_holes_whether_they_were_or_not() -> None:
    tar = normal(pack(usual()))

    assert len(tar) < HOLE * 5 // 2
    archive: Any
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        member = archive.getmember("./usr/gross")
        assert member.sparse is not None
        assert member.size == 3 * HOLE + 5100


def test_a_later_member_replaces_the_one_before_and_its_links_stay() -> None:
    entries = [*usual(), (entry("./usr/ping", mode=0o600), b"new")]

    after = read_back(normal(pack(entries)))

    assert after["./usr/ping"][6] == b"new"
    assert after["./usr/pong"][6] == b"\x7fELF"


def test_folders_that_nobody_named_are_there() -> None:
    after = read_back(normal(pack([(entry("etc/a/b"), b"x")])))

    assert list(after) == [".", "./etc", "./etc/a", "./etc/a/b"]


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Entry:
    return entry(name, kind, linkname=target), b""


def gnu_header(name: bytes, size: int, kind: bytes) -> bytes:
    info = entry(name.decode(), kind, size=0)
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = b"\x80" + size.to_bytes(11, "big") if size >= 0 else b"\xff" * 12
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


END = bytes(1024)
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "up": (lambda: pack([(entry("../etc/passwd"), b"x")]), "not a path inside a tree"),
    "up within": (lambda: pack([(entry("etc/../../x"), b"x")]), "not a path inside a tree"),
    "below a link": (
        lambda: pack([link("etc/cron.d", "/etc/cron.d"), (entry("etc/cron.d/x"), b"x")]),
        "stands below /etc/cron.d, which is a link",
    ),
    "a link after what is below it": (
        lambda: pack([(entry("etc/cron.d/x"), b"x"), link("etc/cron.d", "/etc/cron.d")]),
        "stands below /etc/cron.d, which is a link",
    ),
    "a name for what is outside": (
        lambda: pack([link("x", "../../etc/shadow", tarfile.LNKTYPE)]),
        "not a path inside a tree",
    ),
    "a name for nothing": (
        lambda: pack([link("x", "etc/shadow", tarfile.LNKTYPE)]),
        "which is no file of the tar",
    ),
    "a name for itself": (
        lambda: pack([link("x", "x", tarfile.LNKTYPE)]),
        "which is no file of the tar",
    ),
    "letters that move a cursor": (
        lambda: pack([(entry("etc/\x1b[2Jx"), b"x")]),
        "control characters",
    ),
    "a name of two lines": (lambda: pack([(entry("etc/a\nb"), b"x")]), "not a path inside a tree"),
    "deep": (lambda: pack([(entry("a/" * 200 + "x"), b"x")]), "not a path inside a tree"),
    "the root as a file": (lambda: pack([(entry("./."), b"x")]), "the tree itself is no folder"),
    "an owner that is none": (
        lambda: pack([(entry("x", uid=4_000_000), b"x")]),
        "belongs to 4000000",
    ),
    "cut short": (lambda: pack([(entry("x"), b"x" * 2000)])[:1500], "where its bytes are"),
    "cut in a header": (lambda: pack([(entry("x"), b"x" * 300)])[: 1024 + 100], "cut short"),
    "without its end": (lambda: pack([(entry("x"), b"x" * 300)])[:1024], "cut short"),
    "a damaged header": (lambda: pack([(entry("x"), b"")])[:512] + b"\xff" * 512 + END, "damaged"),
    "a size below zero": (lambda: gnu_header(b"x", -1, b"0") + END, "a header of -1 bytes"),
    "a long name without end": (
        lambda: gnu_header(b"x", 1 << 40, b"L") + END,
        "a header of 1099511627776 bytes",
    ),
    "a pax header that leads back": (
        lambda: pack([(entry("y", pax_headers={"size": "-5000"}), b"x"), (entry("z"), b"z")]),
        "",
    ),
    "a kind that nobody knows": (lambda: gnu_header(b"x", 0, b"Q") + END, "a member of type"),
    "nothing": (lambda: END, "no tar, or an empty one"),
    "no tar": (lambda: os.urandom(4096), ""),
    "an hour that is none": (
        lambda: pack([(entry("y", pax_headers={"mtime": "nan"}), b"x")]),
        "cannot be read",
    ),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_is_refused(name: str) -> None:
    make, said = HOSTILE[name]

    with pytest.raises(PipelineError) as caught:
        read_index(io.BytesIO(make()))

    assert said in str(caught.value)


def test_more_than_a_tree_may_have_is_refused_before_it_is_read() -> None:
    maps = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "big",
        "GNU.sparse.realsize": str(MOST_BYTES + 1),
    }
    places = b"1\n0\n1\n".ljust(512, b"\0") + b"x"
    tar = pack([(entry("GNUSparseFile.0/big", pax_headers=maps), places)])

    with pytest.raises(PipelineError, match="big is longer than 16 GiB"):
        read_index(io.BytesIO(tar))


@pytest.mark.parametrize("places", [b"2\n0\n9\n3\n9\n", b"1\n0\n99999999\n", b"1\n-5\n3\n"])
def test_a_map_of_holes_that_lies_is_refused(places: bytes) -> None:
    maps = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "20"}
    tar = pack([(entry("a", pax_headers=maps), places.ljust(512, b"\0") + b"x" * 18)])

    with pytest.raises(PipelineError, match="where its bytes are|cannot be read"):
        read_index(io.BytesIO(tar))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": lambda content: zstandard.ZstdCompressor().compress(content),
    "lz4": lz4.frame.compress,
}


@pytest.mark.parametrize("form", PACKERS)
def test_it_may_be_packed(form: str, tmp_path: Path) -> None:
    tar = pack(usual())

    plain = unpack_into(io.BytesIO(PACKERS[form](tar)), tmp_path / "plain")

    assert plain.read() == tar
    plain.close()


@pytest.mark.parametrize("form", PACKERS)
def test_a_packed_one_that_is_cut_short_is_refused(form: str, tmp_path: Path) -> None:
    packed = PACKERS[form](pack(usual()))[:-20]

    with pytest.raises(PipelineError, match="damaged|cut short|where its bytes"):
        read_index(unpack_into(io.BytesIO(packed), tmp_path / "plain"))


def test_what_no_guest_gets_is_left_out_and_told() -> None:
    swap = bytearray(81920)
    swap[4086:4096] = b"SWAPSPACE2"
    more = [
        (entry("dev/sda", tarfile.BLKTYPE), b""),
        (entry("dev/pts", tarfile.DIRTYPE), b""),
        (entry("proc/1/x"), b"x"),
        (entry("tmp/a"), b"x"),
        (entry("srv/null", tarfile.CHRTYPE), b""),
        (entry("lost+found/#12"), b"x"),
        (entry("swapfile", mode=0o600), bytes(swap)),
        (entry("home/big/one"), b"x"),
    ]
    source = io.BytesIO(pack([*usual(), *more]))
    tree = read_index(source)

    left = leave_out(tree, source, ["/home/big"])

    assert {one["path"]: one["count"] for one in left} == {
        "/dev/*": 2,
        "/proc/*": 2,
        "/tmp/*": 1,
        "/home/big": 2,
        "/lost+found": 2,
        "/srv/null": 1,
        "/swapfile": 1,
    }
    assert {"/dev", "/proc", "/tmp", "/srv", "/home"} <= set(tree)
    assert not {"/dev/sda", "/srv/null", "/swapfile", "/lost+found", "/home/big"} & set(tree)
