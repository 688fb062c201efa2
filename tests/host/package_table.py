"""Crafted packages for the unpacker: for each what has to come of it.

`RIGHT` packages give a tree, `WRONG` ones an error that matches. A maker gets the path of the
witness: a folder of the host that no case may change.
"""

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import zstandard

from tests.crafted_packages import (
    END,
    PLAIN,
    Entry,
    ar_of,
    ar_with,
    deb,
    file,
    folder,
    link,
    packed,
    raw_control,
    raw_tar,
)

MIB = 1 << 20
Make = Callable[[bytes], bytes]


def on(*entries: Entry) -> Make:
    return lambda _host: deb(*entries)


def to(make: Callable[[bytes], tuple[Entry, ...]]) -> Make:
    return lambda host: deb(*make(host))


def through(*entries: Entry) -> Make:
    """Behind a link, /etc/l, to the witness."""
    return lambda host: deb(link(b"./etc/l", host), *entries)


def long(kind: bytes, name: bytes, *entries: Entry) -> Make:
    """A name (L) or a target (K) of GNU tar that stands before the entry it is for."""
    return on(Entry(b"././@LongLink", kind, name), *entries)


def tar(content: bytes) -> Make:
    return lambda _host: packed(content)


def ar(content: bytes) -> Make:
    return lambda _host: content


def parts(*members: tuple[str, bytes]) -> Make:
    return ar(ar_with(*members))


def said(text: bytes, **files: bytes) -> Make:
    return lambda _host: deb(control=text, files=files)


def with_control(**files: bytes) -> Make:
    return lambda _host: deb(files=files)


def more(*entries: Entry) -> Make:
    return lambda _host: deb(more=entries)


def with_data(suffix: str, make: Callable[[], bytes]) -> Make:
    return lambda _host: ar_of(
        **{"control_tar": raw_control(), f"data_tar{suffix and '_'}{suffix}": make()}
    )


def hard(name: bytes, target: bytes) -> Entry:
    return Entry(name, b"1", target=target)


def numbered(offset: int, value: bytes) -> Make:
    return on(Entry(b"./etc/n", content=b"x", raw={offset: value}))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "xz": lzma.compress,
    "gz": partial(gzip.compress, compresslevel=1),
    "bz2": bz2.compress,
    "lzma": partial(lzma.compress, format=lzma.FORMAT_ALONE),
    "zst": lambda content: zstandard.ZstdCompressor().compress(content),
}


@cache
def bomb(suffix: str, times: int = 96) -> bytes:
    """Files of zeros, 16 MiB a stream: 1.5 GiB in less than a MiB where streams can be joined."""
    head = bytes(Entry(b"./etc/bomb", raw={124: b"%011o\0" % (16 * MIB * times)}))
    return PACKERS[suffix](head) + PACKERS[suffix](b"\0" * (16 * MIB)) * times


def one_stream(suffix: str) -> bytes:
    return PACKERS[suffix](raw_tar(Entry(b"./etc/bomb", content=b"\0" * (48 * MIB))))


def cut_short(pack: Callable[[bytes], bytes]) -> bytes:
    return pack(SMALL)[:-12]


SMALL = raw_tar(folder(b"./etc/"), file(b"./etc/x", b"abc"))
LARGE_WINDOW = zstandard.ZstdCompressor(
    compression_params=zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=False)
)


def large_window() -> bytes:
    sink = io.BytesIO()
    with LARGE_WINDOW.stream_writer(sink, closefd=False) as stream:
        stream.write(SMALL)
    return sink.getvalue()


def huge_dictionary() -> bytes:
    """An .lzma file whose header asks for a dictionary of 2 GiB."""
    packed_small = PACKERS["lzma"](SMALL)
    return packed_small[:1] + (1 << 31).to_bytes(4, "little") + packed_small[5:]


def ar_sized(field: bytes) -> bytes:
    content = ar_with(FORMAT, CONTROL)
    at = content.index(b"control.tar")
    return content[: at + 48] + field.ljust(10) + content[at + 58 :]


FORMAT, CONTROL = ("debian-binary", b"2.0\n"), ("control.tar", raw_control())
DATA = ("data.tar", SMALL)
DEEP = b"./" + b"d/" * 1500
NAMES = b"\xff\xfe-\xc3\xbc"


def is_file(path: str, content: bytes) -> Callable[[Path], bool]:
    return lambda tree: (
        (tree / os.fsencode(path).decode("utf-8", "surrogateescape")).read_bytes() == content
    )


# each of these has etc/x all the same
HARMLESS: dict[str, Make] = {
    "an absolute name": on(file(b"/etc/x", b"abc")),
    "slashes and dots": on(file(b".//etc/.//x", b"abc")),
    "a file with a slash at its end": on(file(b"./etc/x/", b"abc")),
    "a contiguous file": on(Entry(b"./etc/x", b"7", b"abc")),
    "type zero": on(Entry(b"./etc/x", b"\0", b"abc")),
    "bytes after the end": tar(SMALL + b"x" * 999),
    "a part after data": parts(FORMAT, CONTROL, DATA, ("evil.tar", b"x")),
    "a part of a later format": parts(("debian-binary", b"2.1\n"), ("_new", b"x"), CONTROL, DATA),
    "names with a slash": parts(
        ("debian-binary/", b"2.0\n"), ("control.tar/", raw_control()), ("data.tar/", SMALL)
    ),
    "two streams": with_data("xz", lambda: lzma.compress(SMALL[:512]) + lzma.compress(SMALL[512:])),
    "two frames": with_data(
        "zst", lambda: PACKERS["zst"](SMALL[:512]) + PACKERS["zst"](SMALL[512:])
    ),
    "xz with its padding": with_data("xz", lambda: lzma.compress(SMALL) + b"\0" * 8),
}
# with a path and what has to stand there
FILES: dict[str, tuple[Make, str, bytes]] = {
    "a name of dots": (on(file(b"./etc/...", b"abc")), "etc/...", b"abc"),
    "an escape sequence": (on(file(b"./etc/\x1b[2J")), "etc/\x1b[2J", b"x"),
    "a link up, which ends at the root": (
        on(link(b"./etc/u", b"../../../../../usr"), file(b"./etc/u/x")),
        "usr/x",
        b"x",
    ),
    "an absolute link": (on(link(b"./etc/u", b"/usr/lib"), file(b"./etc/u/x")), "usr/lib/x", b"x"),
    "a hard link": (on(file(b"./etc/x", b"abc"), hard(b"./usr/y", b"./etc/x")), "usr/y", b"abc"),
    "a hard link to a conffile": (
        lambda _host: deb(
            file(b"./etc/x", b"abc"), hard(b"./usr/y", b"etc/x"), files={"conffiles": b"/etc/x\n"}
        ),
        "usr/y",
        b"abc",
    ),
    "a link with content": (
        on(Entry(b"./etc/l", b"2", b"abc", b"x"), file(b"./etc/y")),
        "etc/y",
        b"x",
    ),
    "blanks in numbers": (numbered(100, b"   644 \0"), "etc/n", b"x"),
    "a mode in base 256": (numbered(100, b"\x80\0\0\0\0\0\x01\xa4"), "etc/n", b"x"),
    "a long name": (long(b"L", b"./etc/long\0", file(b"./etc/short", b"abc")), "etc/long", b"abc"),
    "a long name that is empty": (
        long(b"L", b"\0", file(b"./etc/short", b"abc")),
        "etc/short",
        b"abc",
    ),
    "a control file of any name": (
        with_control(sh=b"#!/bin/sh\n"),
        "var/lib/dpkg/info/evil.sh",
        b"#!/bin/sh\n",
    ),
    "a trigger with a path": (
        with_control(triggers=b"interest /usr/../etc\n"),
        "var/lib/dpkg/triggers/File",
        b"/usr/../etc evil\n",
    ),
}
RIGHT: dict[str, tuple[Make, Callable[[Path], object]]] = {
    **{name: (make, is_file("etc/x", b"abc")) for name, make in HARMLESS.items()},
    **{name: (make, is_file(path, content)) for name, (make, path, content) in FILES.items()},
    "nothing": (on(), lambda tree: (tree / "usr/lib").is_dir()),
    "not UTF-8": (
        on(file(b"./etc/" + NAMES, b"abc")),
        lambda tree: NAMES in os.listdir(os.fsencode(tree / "etc")),
    ),
    "the root, without a mode": (
        on(folder(b"./", 0)),
        lambda tree: tree.stat().st_mode & 0o7777 == 0o755,
    ),
    "setuid": (
        on(file(b"./usr/lib/su", mode=0o4755)),
        lambda tree: (tree / "usr/lib/su").stat().st_mode & 0o7777 == 0o4755,
    ),
    "48 folders deep": (
        on(*(folder(b"./" + b"d/" * depth) for depth in range(1, 49))),
        lambda tree: (tree / ("d/" * 48)).is_dir(),
    ),
    "a link out": (
        through(link(b"./etc/u", b"../../../..")),
        lambda tree: (tree / "etc/u").is_symlink(),
    ),
    "a link out, linked": (
        through(hard(b"./etc/m", b"./etc/l")),
        lambda tree: (tree / "etc/m").is_symlink(),
    ),
    "a long name for nothing": (
        long(b"L", b"./etc/long\0"),
        lambda tree: os.listdir(tree / "usr/lib") == [],
    ),
    "a description that is not UTF-8": (
        said(PLAIN + b" \xff\xfe\n"),
        lambda tree: b" \xff\xfe\n" in (tree / "var/lib/dpkg/status").read_bytes(),
    ),
    "md5sums that lead out": (
        with_control(md5sums=b"0" * 32 + b"  ../../../etc/shadow\n"),
        lambda tree: (tree / "var/lib/dpkg/info/evil.md5sums").is_file(),
    ),
    "a conffile that is not UTF-8": (
        with_control(conffiles=b"/etc/" + NAMES + b"\n"),
        lambda tree: NAMES in (tree / "var/lib/dpkg/status").read_bytes(),
    ),
    **{
        f"as .{suffix}": (with_data(suffix, partial(pack, SMALL)), is_file("etc/x", b"abc"))
        for suffix, pack in PACKERS.items()
    },
}

PATH, KIND, NUMBER, CUT = "is not a path inside", "tar entry of type", "number", "cut short"
AWAY = "leads out of the tree|without its folder|another one ships|to nothing"
PATHS: dict[str, Make] = {
    "a name with dots": on(file(b"../x")),
    "dots in between": on(file(b"./usr/../../x")),
    "dots at the end": on(folder(b"./usr/..")),
    "dots after a slash": on(file(b"/../x")),
    "a line in a name": on(file(b"./etc/x\n/etc/shadow")),
    "1500 folders deep": on(
        *(
            Entry(b"././@LongLink", b"L", DEEP[: 2 * n + 2]) if odd else folder(b"x")
            for n in range(1, 1500, 50)
            for odd in (1, 0)
        )
    ),
    "a hard link with dots": on(hard(b"./etc/s", b"../../../etc/shadow")),
    "a hard link with dots inside": on(hard(b"./etc/s", b"./usr/../../etc/shadow")),
    "a hard link to a line": on(hard(b"./etc/s", b"./etc/x\ny")),
    "a control file with dots": more(file(b"../evil")),
}
LEADING_AWAY: dict[str, Make] = {
    "a file through a link out": through(file(b"./etc/l/new")),
    "a file over a link out": to(
        lambda host: (link(b"./etc/l", host + b"/shadow"), file(b"./etc/l"))
    ),
    "a file over a file outside, through a link": through(file(b"./etc/l/shadow")),
    "a folder through a link out": through(folder(b"./etc/l/new")),
    "a folder over a link out": through(folder(b"./etc/l/", 0o777)),
    "a link through a link out": through(link(b"./etc/l/new", b"x")),
    "a hard link through a link out": through(hard(b"./etc/s", b"./etc/l/shadow")),
    "a conffile through a link out": lambda host: deb(
        link(b"./etc/l", host), file(b"./etc/l/c"), files={"conffiles": b"/etc/l/c\n"}
    ),
    "through a relative link out": to(
        lambda host: (
            link(b"./etc/l", b"../../../../../../../../.." + host[:60]),
            file(b"./etc/l/new"),
        )
    ),
    "through a link in two steps": to(
        lambda host: (link(b"./etc/a", b"b"), link(b"./etc/b", host), file(b"./etc/a/new"))
    ),
    "through /proc": on(link(b"./etc/l", b"/proc/self/root"), file(b"./etc/l/tmp/new")),
    "links in a circle": on(link(b"./etc/a", b"b"), link(b"./etc/b", b"a"), file(b"./etc/a/x")),
    "a link to itself": on(link(b"./etc/a", b"a"), folder(b"./etc/a/")),
    "41 links": on(
        *(link(b"./etc/%d" % n, b"%d" % (n + 1)) for n in range(45)), file(b"./etc/0/x")
    ),
    "a hard link out": to(lambda host: (hard(b"./etc/s", host + b"/shadow"),)),
    "a hard link to nothing": on(hard(b"./etc/s", b"./etc/none")),
    "a hard link to itself": on(hard(b"./etc/s", b"./etc/s")),
}
WRONG: dict[str, tuple[Make, str]] = {
    **{name: (make, PATH) for name, make in PATHS.items()},
    **{name: (make, AWAY) for name, make in LEADING_AWAY.items()},
    # names
    "a name of 300 bytes": (long(b"L", b"./etc/" + b"x" * 300, file(b"x")), "File name too long"),
    "a path of 5000 bytes": (long(b"L", b"./etc/" + b"x/" * 2500, file(b"x")), "a name of 5006"),
    "a file that is the root": (on(file(b"./")), "without a name"),
    "a link that is the root": (on(link(b"./", b"/etc")), "without a name"),
    "below a file": (on(file(b"./etc/x"), file(b"./etc/x/y")), "Not a directory"),
    "a file twice": (on(file(b"./etc/x"), file(b"./etc/x")), "another one ships"),
    "a file without its folder": (on(file(b"./opt/x")), "without its folder"),
    # symbolic links, and what comes through them
    "an empty link": (on(link(b"./etc/l", b"")), "a link to nothing"),
    "a link of 4096 bytes": (long(b"K", b"x" * 4096, link(b"./etc/l", b"x")), "File name too long"),
    "a link of 9000 bytes": (long(b"K", b"x" * 9000, link(b"./etc/l", b"x")), "a name of 9000"),
    "a link twice, to other places": (
        on(link(b"./etc/l", b"a"), link(b"./etc/l", b"b")),
        "another one ships",
    ),
    # hard links
    "a hard link to a folder": (on(hard(b"./etc/s", b"./usr/lib")), "Operation not permitted"),
    "a hard link to the root": (on(hard(b"./etc/s", b"./")), "not the name|leads out"),
    # kinds
    "a character device": (on(Entry(b"./etc/d", b"3")), "device or a pipe"),
    "a block device": (on(Entry(b"./etc/d", b"4")), "device or a pipe"),
    "a pipe": (on(Entry(b"./etc/d", b"6")), "device or a pipe"),
    **{f"type {kind}": (on(Entry(b"./etc/d", kind.encode())), KIND) for kind in "xgSVMDNA89"},
    "type newline": (on(Entry(b"./etc/d", b"\n")), KIND),
    # numbers and sums
    "a size in hexadecimal": (numbered(124, b"0x10"), NUMBER),
    "a size with an underscore": (numbered(124, b"0000_1\0"), NUMBER),
    "a size with a sign": (numbered(124, b"+0000001\0"), NUMBER),
    "a negative size": (numbered(124, b"-0000060\0"), NUMBER),
    "a negative size in base 256": (numbered(124, b"\xff" * 12), NUMBER),
    "a huge size in base 256": (numbered(124, b"\x80" + b"\x7f" * 11), NUMBER),
    "a size of eights": (numbered(124, b"00000000008\0"), NUMBER),
    "a size beyond the end": (numbered(124, b"00000100000\0"), f"{NUMBER}|{CUT}"),
    "a mode that is none": (numbered(100, b"rw-r--r-"), NUMBER),
    "an owner over 32 bits": (numbered(108, b"\x80\0\0\x02\0\0\0\0"), NUMBER),
    "an owner of minus one": (numbered(108, b"\x80\0\0\0\xff\xff\xff\xff"), NUMBER),
    "a group that is none": (numbered(116, b"root\0\0\0\0"), NUMBER),
    "a time before 1970": (numbered(136, b"\xff" * 12), NUMBER),
    "a time of the far future": (numbered(136, b"\x80\0\0\0\x7f" + b"\xff" * 7), NUMBER),
    "a wrong checksum": (on(Entry(b"./etc/x", checksum=b"000001\0 ")), "checksum"),
    "a blank checksum": (on(Entry(b"./etc/x", checksum=b" " * 8)), "checksum"),
    "cut in a header": (tar(SMALL[:700]), CUT),
    "cut in a file": (tar(bytes(file(b"./x", b"y" * 2000))[:1024]), f"{NUMBER}|{CUT}"),
    "without an end": (tar(SMALL[: -len(END)]), CUT),
    "no tar": (tar(b"x" * 4096), "octal|checksum"),
    "random bytes": (tar(bytes(range(1, 256)) * 16), "number|checksum|cut short"),
    "300 000 entries": (
        with_data("xz", lambda: lzma.compress(bytes(file(b"./etc/x", b"")) * 300_000, preset=0)),
        "more than",
    ),
    # ar
    "an empty file": (ar(b""), "no ar archive"),
    "a page of a portal": (ar(b"<html>Log in</html>"), "no ar archive"),
    "an ar of nothing": (ar(b"!<arch>\n"), "a part is missing: debian-binary"),
    **{
        f"an ar size of {size!r}": (
            ar(ar_sized(size.encode())),
            "header is damaged|control.tar is cut",
        )
        for size in ("-60", "-1", "+1", "1_0", "0x1", "", "9999999999", "99999999", "x")
    },
    "an ar header without its end": (
        ar(ar_of(control_tar=raw_control()).replace(b"`\n", b"xx")),
        "header is damaged",
    ),
    "an ar name that is not ASCII": (parts(("debian-bin\xe9", b"2.0\n")), "header is damaged"),
    "format 3.0": (parts(("debian-binary", b"3.0\n"), CONTROL, DATA), "format"),
    "without a format": (parts(CONTROL, DATA), "a part is missing: debian-binary"),
    "control twice": (parts(FORMAT, CONTROL, ("control.tar.gz", b"")), "missing: data"),
    "data before control": (parts(FORMAT, DATA, CONTROL), "missing: control"),
    "without data": (ar(ar_of(control_tar=raw_control())), "missing: data"),
    "cut in its data": (ar(ar_of(control_tar=raw_control(), data_tar=SMALL)[:-700]), CUT),
    # compression
    **{
        f"a bomb of .{suffix}": (with_data(suffix, partial(bomb, suffix)), "more than")
        for suffix in ("xz", "gz", "bz2", "zst")
    },
    **{
        f"a bomb in one stream of .{suffix}": (
            with_data(suffix, partial(one_stream, suffix)),
            "more than",
        )
        for suffix in PACKERS
    },
    "a bomb of control": (
        lambda _host: ar_of(control_tar_gz=bomb("gz"), data_tar=SMALL),
        "more than 16 MiB",
    ),
    **{
        f"cut .{suffix}": (
            with_data(suffix, partial(cut_short, pack)),
            f"{CUT}|checksum|sequence|corrupt",
        )
        for suffix, pack in PACKERS.items()
    },
    **{
        f"garbage as .{suffix}": (with_data(suffix, lambda: b"garbage " * 99), "package evil")
        for suffix in PACKERS
    },
    **{f"nothing as .{suffix}": (with_data(suffix, lambda: b""), CUT) for suffix in PACKERS},
    "a wrong sum in .gz": (
        with_data("gz", lambda: gzip.compress(SMALL)[:-8] + b"\0" * 8),
        "incorrect",
    ),
    "bytes after .xz": (with_data("xz", lambda: lzma.compress(SMALL) + b"garbage"), "package evil"),
    "a window of 2 GiB": (with_data("zst", large_window), "memory|window|Frame"),
    "a dictionary of 2 GiB": (with_data("lzma", huge_dictionary), "[Mm]emory"),
    "compressed as .lz4": (with_data("lz4", lambda: b"x"), "compressed as .lz4"),
    "compressed as .Z": (with_data("Z", lambda: b"x"), "compressed as .Z"),
    # what it says of itself
    "no control file": (
        lambda _host: ar_of(control_tar=raw_tar(folder(b"./")), data_tar=SMALL),
        "no control file",
    ),
    "control with 2000 dots": (
        said(PLAIN.replace(b"evil", b"../" * 2000 + b"x")),
        "the index evil",
    ),
    "the name leads out": (
        said(PLAIN.replace(b"evil", b"../../../../../host/evil"), sh=b"#!/bin/sh\n"),
        "the index evil",
    ),
    "another name": (said(PLAIN.replace(b"evil", b"good")), "says Package: 'good', the index evil"),
    "another version": (said(PLAIN.replace(b": 1", b": 2")), "says Version: '2', the index 1"),
    "another architecture": (said(PLAIN.replace(b"amd64", b"../../x")), "Architecture: '../../x'"),
    "no version": (said(PLAIN.replace(b"Version: 1\n", b"")), "says Version: ''"),
    "two stanzas": (
        said(PLAIN + b"\nPackage: libc6\nStatus: install ok installed\n"),
        "one stanza",
    ),
    "a line without a field": (said(PLAIN + b"nothing\n"), "not one stanza"),
    "no fields": (said(b"\n\n"), "not one stanza"),
    "bytes as a stanza": (said(bytes(range(256))), "not one stanza"),
    **{
        f"a control file {name!r}": (more(file(b"./" + name)), "the name of a control file")
        for name in (b"a.b", b".x", b"list", b"x" * 60, b"x/y", b"x y", b"\xff")
    },
    "control twice in one": (more(file(b"./control")), "twice"),
    "a control file as a link": (more(link(b"./preinst", b"/etc/shadow")), "not as a file"),
    "a control file as a pipe": (more(Entry(b"./preinst", b"6")), "not as a file"),
    "a control file as a hard link": (more(hard(b"./preinst", b"./control")), "not as a file"),
    "a folder in control": (more(folder(b"./preinst")), "not as a file"),
    **{
        f"a conffile {path!r}": (with_control(conffiles=path + b"\n"), PATH)
        for path in (
            b"etc/x",
            b"/etc/../../x",
            b"remove-on-upgrade ../x",
            b"/etc/\0x",
            b"unknown /etc/x",
            b"/d" * 101,
        )
    },
    **{
        f"a trigger {name!r}": (with_control(triggers=b"interest " + name + b"\n"), "trigger")
        for name in (
            b"../../../../etc/x",
            b"a/b",
            b"File",
            b"Unincorp",
            b"a_b",
            b"/a//b",
            b"-x",
            b".x",
            b"a b",
            b"\xff",
            b"",
            b"x\x7f",
            b"x" * 300,
        )
    },
    "an unknown trigger word": (with_control(triggers=b"interesting x\n"), "no trigger"),
    "an activated trigger that leads out": (with_control(triggers=b"activate ../x\n"), "trigger"),
}
