"""Packages written byte by byte: right ones, and those that no tool would make."""

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

AGE = 1_600_000_000
CONTROL = b"Package: hello\nVersion: 1\nArchitecture: amd64\nMulti-Arch: same\nDescription: x\n y\n"
PLAIN = b"Package: evil\nVersion: 1\nArchitecture: amd64\nDescription: x\n"


def entry(name: str, kind: bytes = tarfile.REGTYPE, **facts: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.mode, made.mtime = kind, 0o644, AGE
    for key, value in facts.items():
        setattr(made, key, value)
    return made


def tar_of(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for made, content in entries:
            made.size = len(content)
            archive.addfile(made, io.BytesIO(content))
    return sink.getvalue()


def ar_of(**parts: bytes) -> bytes:
    """An ar archive with what every .deb begins with, and these parts; `_` is a dot."""
    named = {name.replace("_", "."): part for name, part in parts.items()}
    return ar_with(("debian-binary", b"2.0\n"), *named.items())


def ar_with(*parts: tuple[str, bytes]) -> bytes:
    content = b"!<arch>\n"
    for name, part in parts:
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode("latin-1")
        content += part + b"\n" * (len(part) % 2)
    return content


def control_tar(**files: bytes) -> bytes:
    files = {"control": CONTROL, **files}
    return tar_of(*((entry(f"./{name}"), content) for name, content in files.items()))


class Entry(NamedTuple):
    """An entry of a tar as its bytes; `raw` sets fields of the header by their offset."""

    name: bytes
    kind: bytes = b"0"
    content: bytes = b""
    target: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    raw: Mapping[int, bytes] = {}
    checksum: bytes = b""

    def __bytes__(self) -> bytes:
        size = len(self.content)
        fields = [
            *(self.name[:100].ljust(100, b"\0"), b"%07o\0" % self.mode),
            *(b"%07o\0" % self.uid, b"%07o\0" % self.gid, b"%011o\0" % size, b"%011o\0" % AGE),
            *(b" " * 8, self.kind, self.target[:100].ljust(100, b"\0"), b"ustar  \0"),
        ]
        header = bytearray(b"".join(fields).ljust(512, b"\0"))
        for offset, value in self.raw.items():
            header[offset : offset + len(value)] = value
        header[148:156] = self.checksum or b"%06o\0 " % sum(header)
        return bytes(header) + self.content.ljust((size + 511) // 512 * 512, b"\0")


END = b"\0" * 1024


def folder(name: bytes, mode: int = 0o755) -> Entry:
    return Entry(name, b"5", mode=mode)


def file(name: bytes, content: bytes = b"x", **facts: Any) -> Entry:
    return Entry(name, b"0", content, **facts)


def link(name: bytes, target: bytes) -> Entry:
    return Entry(name, b"2", target=target, mode=0o777)


def raw_tar(*entries: Entry, end: bytes = END) -> bytes:
    return b"".join(map(bytes, entries)) + end


def raw_control(control: bytes = PLAIN, *more: Entry, **files: bytes) -> bytes:
    entries = [Entry(f"./{name}".encode(), content=content) for name, content in files.items()]
    return raw_tar(folder(b"./"), Entry(b"./control", content=control), *entries, *more)


def deb(
    *entries: Entry,
    control: bytes = PLAIN,
    more: Sequence[Entry] = (),
    files: Mapping[str, bytes] | None = None,
) -> bytes:
    """A .deb of these entries, with the folders of a usual system before them."""
    usual = [folder(name) for name in (b"./", b"./etc/", b"./usr/", b"./usr/lib/")]
    return packed(raw_tar(*usual, *entries), control, more, files)


def packed(
    tar: bytes,
    control: bytes = PLAIN,
    more: Sequence[Entry] = (),
    files: Mapping[str, bytes] | None = None,
) -> bytes:
    head = raw_control(control, *more, **(files or {}))
    return ar_of(control_tar_gz=gzip.compress(head, 1), data_tar=tar)
