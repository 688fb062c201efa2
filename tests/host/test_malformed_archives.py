"""Archives that are signed by the right key and badly made: used where they can be, else one line.

On e44a75a 5 of 45 such archives were tracebacks, and a packed index of a few MiB took all memory.
"""

import lzma
import os
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from pipeline.artifact.record import describe_package_changes
from pipeline.errors import PipelineError
from pipeline.lockfile import _find_packages
from pipeline.mirror.apt_lists import write_lists, write_selected_lists
from pipeline.mirror.relay import Relay
from pipeline.mirror.snapshot import read_snapshot
from pipeline.project import Cache
from pipeline.walls.cage import Window
from tests.host.archives import Change
from tests.host.bad_mirror import serve
from tests.host.mirror_bench import INRELEASE, Bench
from tests.host.test_http_faults import memory

pytestmark = pytest.mark.integration

MOST_MEMORY = 200 << 20
UNUSABLE = "not a Release file that can be used ("
INDEX = "package hello"
BOMB_BYTES = 300 << 20


def swap(old: bytes, new: bytes) -> Change:
    """Every match of a pattern replaced."""

    def change(text: bytes) -> bytes:
        changed = re.sub(old, lambda _: new, text, flags=re.MULTILINE)
        assert changed != text, text
        return changed

    return change


def more(text: bytes) -> Change:
    return lambda content: content + text


def listed(digest: bytes, size: bytes, name: bytes) -> Change:
    """One more file in the Release's list."""
    return swap(rb"^SHA256:\n", b"SHA256:\n " + digest + b" " + size + b" " + name + b"\n")


def bomb(_packed: bytes) -> bytes:
    packer = lzma.LZMACompressor(preset=1)
    piece = bytes(1 << 20)
    return b"".join(packer.compress(piece) for _ in range(BOMB_BYTES >> 20)) + packer.flush()


def hungry(_packed: bytes) -> bytes:
    """Little, but by a dictionary of 1.5 GiB in its head (xz(1), LZMA2)."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    packed = bytearray(lzma.compress(b"x" * 100, filters=filters))
    at = packed.index(b"\x21\x01") + 2
    packed[at] = 40  # 4 GiB - 1
    head = packed[12 : 12 + (packed[12] + 1) * 4 - 4]
    packed[12 + len(head) : 12 + len(head) + 4] = zlib.crc32(head).to_bytes(4, "little")
    return bytes(packed)


D = b"a" * 64
# name -> what is changed, what is said; "" where the archive is used all the same
RELEASES: dict[str, tuple[Change, str]] = {
    "no Date": (swap(rb"^Date:.*\n", b""), "has no date"),
    "an empty Date": (swap(rb"^Date:.*$", b"Date:"), "date ''"),
    "a Date of words": (swap(rb"^Date:.*$", b"Date: yesterday, about noon"), "date 'yest"),
    "a Date in the year 99999": (
        swap(rb"^Date:.*$", b"Date: Sat, 01 Jan 99999 0:0:0 UTC"),
        "date '",
    ),
    "a Date at the start of time": (
        swap(rb"^Date:.*$", b"Date: Mon, 01 Jan 1000 00:00:00 +2359"),
        "date '",
    ),
    "a Date before there was Debian": (
        swap(rb"^Date:.*$", b"Date: Fri, 01 Jan 1960 00:00:00 UTC"),
        "date '",
    ),
    "a zone that is none": (
        swap(rb"^(Date:.*) UTC$", b"Date: Sat, 1 Jan 2000 1:1:1 +99999999"),
        "date '",
    ),
    "two Dates": (lambda text: b"Date: Sat, 01 Jan 2000 00:00:00 UTC\n" + text, "line 'Date"),
    "a Valid-Until of words": (swap(rb"^Valid-Until:.*$", b"Valid-Until: doomsday"), "date 'doom"),
    "no SHA256": (swap(rb"^SHA256:\n( .*\n)*", b""), "has no sha256"),
    "no files": (swap(rb"^SHA256:\n( .*\n)*", b"SHA256:\n"), "has no component"),
    "a file of two words": (swap(rb"^SHA256:\n", b"SHA256:\n " + D + b" 12\n"), "SHA256 '"),
    "a file of four words": (listed(D, b"1", b"main/a b"), "SHA256 '"),
    "a digest that is not hex": (listed(b"g" * 64, b"1", b"main/a"), "SHA256 '"),
    "a digest of 63": (listed(D[1:], b"1", b"main/a"), "SHA256 '"),
    "a digest that is a path": (listed(b"../" * 21 + b"a", b"1", b"main/a"), "SHA256 '"),
    "a negative size": (listed(D, b"-1", b"main/a"), "SHA256 '"),
    "a size of letters": (listed(D, b"many", b"main/a"), "SHA256 '"),
    "a size of 5000 digits": (listed(D, b"9" * 5000, b"main/a"), "SHA256 '"),
    "an absolute name": (listed(D, b"1", b"/etc/passwd"), "SHA256 '"),
    "a name that leads out": (listed(D, b"1", b"main/../../../etc/passwd"), "SHA256 '"),
    "a name with an escape": (listed(D, b"1", b"main/\x1b[2J"), "SHA256 '"),
    "a name twice": (lambda t: listed(D, b"2", b"a")(listed(D, b"1", b"a")(t)), "of a twice"),
    "a line without a colon": (more(b"what is this\n"), "line 'what"),
    "a further line first": (lambda text: b" further\n" + text, ""),
    "a Codename of 1 MB": (swap(rb"^Codename:.*$", b"Codename: " + b"b" * (1 << 20)), "codename '"),
    "a Codename with an escape": (swap(rb"^Codename:.*$", b"Codename: \x1b]0;x\x07"), "codename '"),
    "an Origin with NUL": (swap(rb"^Origin:.*$", b"Origin: \x00"), ""),
    "an Origin that is Latin-1": (swap(rb"^Origin:.*$", b"Origin: caf\xe9"), ""),
    "100 000 more files": (
        swap(
            rb"^SHA256:\n", b"SHA256:\n" + b"".join(b" %s 1 %d\n" % (D, i) for i in range(99_999))
        ),
        "",
    ),
    "By-Hash: perhaps": (swap(rb"^Acquire-By-Hash:.*$", b"Acquire-By-Hash: perhaps"), ""),
    "an index of 10 TB": (
        swap(
            rb" [0-9]+ main/binary-amd64/Packages.xz$",
            b" 9999999999999 main/binary-amd64/Packages.xz",
        ),
        "wrong bytes (",
    ),
    "an index of 1 byte": (
        swap(rb" [0-9]+ main/binary-amd64/Packages.xz$", b" 1 main/binary-amd64/Packages.xz"),
        "wrong bytes (",
    ),
    "an unpacked index of 1 byte": (
        swap(rb" [0-9]+ main/binary-amd64/Packages$", b" 1 main/binary-amd64/Packages"),
        "unpacks to more than 1 bytes",
    ),
    "nothing at all": (lambda _text: b"\n", "has no date"),
}
INDEXES: dict[str, tuple[Change, str]] = {
    "no SHA256": (swap(rb"^SHA256:.*\n", b""), INDEX),
    "a short SHA256": (swap(rb"^SHA256:.*$", b"SHA256: abc"), INDEX),
    "a SHA256 that is a path": (swap(rb"^SHA256:.*$", b"SHA256: ../../../host/shadow"), INDEX),
    "no Size": (swap(rb"^Size:.*\n", b""), "is no Size"),
    "a negative Size": (swap(rb"^Size:.*$", b"Size: -60"), "is no Size"),
    "a Size of 0": (swap(rb"^Size:.*$", b"Size: 0"), "is no Size"),
    "a Size of words": (swap(rb"^Size:.*$", b"Size: large"), "is no Size"),
    "a Size of 30 digits": (swap(rb"^Size:.*$", b"Size: " + b"9" * 30), "is no Size"),
    "a Size of 5000 digits": (swap(rb"^Size:.*$", b"Size: " + b"9" * 5000), "is no Size"),
    "no Filename": (swap(rb"^Filename:.*\n", b""), "is no Filename"),
    "a Filename that leads out": (
        swap(rb"^Filename:.*$", b"Filename: pool/../../../etc/passwd"),
        "is no Filename",
    ),
    "an absolute Filename": (swap(rb"^Filename:.*$", b"Filename: /etc/passwd"), "is no Filename"),
    "a Filename with an escape": (swap(rb"^Filename:.*$", b"Filename: a\x1b[2J"), "is no Filename"),
    "a Filename of 5 KB": (swap(rb"^Filename:.*$", b"Filename: " + b"a" * 5000), "is no Filename"),
    "no Version": (swap(rb"^Version:.*\n", b""), INDEX),
    "a Version with a slash": (swap(rb"^Version:.*$", b"Version: 1/../../0"), INDEX),
    "a Version with blanks": (swap(rb"^Version:.*$", b"Version: 1 0"), INDEX),
    "an Architecture that is a path": (swap(rb"^Architecture:.*$", b"Architecture: ../x"), INDEX),
    "no Architecture": (swap(rb"^Architecture:.*\n", b""), INDEX),
    "no Package": (swap(rb"^Package:.*\n", b""), "not in this suite"),
    "another case": (swap(rb"^Package:", b"package:"), "not in this suite"),
    "every stanza twice": (lambda text: text + b"\n" + text, ""),
    "a Description that is no text": (swap(rb"^Description:.*$", b"Description: \xff\xfe\x00"), ""),
    "no end of the last line": (lambda text: text.rstrip(b"\n"), ""),
    "a stanza without lines": (more(b"\n\nPackage: x"), ""),
    "no stanza": (lambda _text: b"", "not in this suite"),
    "blank lines": (lambda _text: b"\n" * 9999, "not in this suite"),
    "other line ends": (lambda text: text.replace(b"\n", b"\r\n"), "not in this suite"),
    "a line of 5 MB": (more(b"\nPackage: y\nDepends: " + b"a, " * (5 << 18) + b"b\n"), ""),
    "zeros": (lambda _text: bytes(5 << 20), "not in this suite"),
}
PACKED: dict[str, tuple[Change, str]] = {
    "a bomb": (bomb, "unpacks to more than"),
    "xz that wants 4 GiB": (hungry, "the xz stream is damaged: Memory usage limit exceeded)"),
    "xz cut short": (lambda packed: packed[:-20], "(the xz stream is cut short)"),
    "xz with another byte": (
        lambda packed: packed[:60] + bytes([packed[60] ^ 1]) + packed[61:],
        "cannot be unpacked (",
    ),
    "xz, then something else": (more(b"something else"), "cannot be unpacked ("),
    "xz, then padding": (more(bytes(8)), ""),
    "no xz": (lambda _packed: b"PK\x03\x04" * 99, "cannot be unpacked ("),
    "nothing": (lambda _packed: b"", "cannot be unpacked (the xz stream is cut short)"),
}


def consume(bench: Bench, folder: Path, *, mirror: str = "") -> None:
    """Everything that reads a snapshot, on one with a package hello 1.0."""
    keys: dict[str, Any] = {"updates": False, "security": False}
    state = bench.build(**keys | ({"mirror": mirror} if mirror else {}))
    snapshot = read_snapshot(state.folder)
    write_lists(snapshot, "amd64", folder / "lists")
    write_selected_lists(snapshot, "amd64", ["hello"], folder / "selected")
    describe_package_changes("hello 0.9 amd64\n", snapshot)
    root, name = snapshot.index_files[0]
    text = (snapshot.folder / name).read_bytes()
    locked = dict(_find_packages(text, root, {("hello", "1.0")}))
    hello = snapshot.packages.find("hello", "1.0")
    assert list(locked.values()) == [hello.url]
    relay = Relay(snapshot, Window(), cache=Cache(folder / "cache"))
    deb = relay.find(unquote(f"/main{hello.url.removeprefix(root)}"))
    assert deb.stat().st_size == hello.size


def cases() -> Iterator[Any]:
    for which, table in (("release", RELEASES), ("index", INDEXES), ("packed", PACKED)):
        for name, (change, reason) in table.items():
            yield pytest.param(which, change, reason, id=f"{which}: {name}")


@pytest.mark.parametrize(("which", "change", "reason"), list(cases()))
def test_a_signed_archive_that_is_badly_made_is_used_or_one_line(
    bench: Bench, tmp_path: Path, which: str, change: Change, reason: str
) -> None:
    changes: dict[str, Any] = {f"change_{which}": change}
    bench.publish(**changes, has_by_hash=which != "packed")
    Path("/proc/self/clear_refs").write_text("5")
    begun, before = time.monotonic(), memory("VmRSS")
    try:
        consume(bench, tmp_path)
    except PipelineError as error:
        assert reason and reason in error.brief, error.brief
        is_absent = reason in ("not in this suite", "has no component")
        assert error.exit_code == (1 if is_absent else 5)
        assert "\n" not in error.brief and len(error.brief) < 400 and error.hint
    else:
        assert not reason
    assert memory("VmHWM") - before < MOST_MEMORY
    assert time.monotonic() - begun < 20
    assert not list(bench.project.output.glob("scratch/*"))
    assert not list(bench.project.output.glob("cache/*/.*"))


def test_what_is_packed_and_not_signed_does_not_get_to_gpgv(bench: Bench, keys: Any) -> None:
    """An OpenPGP message of 16 GiB of zeros has 16 MiB: gpgv would write them all."""
    plain = bench.root / "plain"
    bench.root.mkdir(exist_ok=True)
    plain.write_bytes(bytes(64 << 20))
    packed = bench.root / "packed"
    keys._gpg(["--compress-algo", "zlib", "--output", str(packed), "--store", str(plain)])
    bench.mirror.faults[INRELEASE] = serve(packed.read_bytes())
    error = bench.refuse()
    assert (error.exit_code, "not signed" in error.brief) == (5, True)


@pytest.mark.parametrize("age_h", [-11.0, -0.1])
def test_a_snapshot_from_the_future_is_looked_at_again(bench: Bench, age_h: float) -> None:
    state = bench.build()
    future = time.time() - age_h * 3600
    os.utime(state.folder / "snapshot.json", (future, future))
    asked = bench.mirror.asked(INRELEASE)
    bench.build()
    assert bench.mirror.asked(INRELEASE) == asked + 1
    bench.build()
    assert bench.mirror.asked(INRELEASE) == asked + 1
    os.utime(bench.build().folder / "snapshot.json", (future, future))
    bench.build(snapshot_max_age="0")
    bench.build(snapshot_max_age="0")
    assert bench.mirror.asked(INRELEASE) == asked + 3


def test_a_folder_with_odd_names_is_a_mirror(bench: Bench, tmp_path: Path) -> None:
    """apt prints %2b for +, and a name may hold blanks: both are in the folder as they are."""
    pool = bench.mirror.root / "debian/pool/main"
    deb = pool / "hello_1.0_amd64.deb"
    deb.rename(pool / "hello with blanks_1.0+deb12u1_amd64.deb")
    bench.publish()
    consume(bench, tmp_path, mirror=f"file:{bench.mirror.root}/debian")
