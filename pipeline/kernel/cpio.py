"""Initial RAM disks: cpio archives in the newc format, one after another, some compressed.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
"""

import re
import stat
import zlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pipeline.compression import find_compression, unpack


@dataclass(frozen=True)
class Member:
    """One name in the archive; `device` is (major, minor) of a character device."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


@dataclass
class Archive:
    """Members in the order they are added; parents of a file are added when missing."""

    members: list[Member] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def add_folder(self, name: str) -> None:
        """A directory, mode 0755."""
        self._add_parents(name)
        self._add(Member(name, stat.S_IFDIR | 0o755))

    def add_file(self, name: str, content: bytes, *, mode: int = 0o644) -> None:
        """A regular file."""
        self._add_parents(name)
        self._add(Member(name, stat.S_IFREG | mode, content))

    def add_console(self) -> None:
        """/dev/console, which the kernel opens before anything is mounted."""
        self.add_folder("dev")
        self._add(Member("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))

    def pack(self) -> bytes:
        """The archive, uncompressed."""
        parts = [_pack(member, number) for number, member in enumerate(self.members, start=1)]
        parts.append(_pack(Member("TRAILER!!!", 0), 0))
        return b"".join(parts)

    def _add(self, member: Member) -> None:
        if member.name not in self.names:
            self.names.add(member.name)
            self.members.append(member)

    def _add_parents(self, name: str) -> None:
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            self._add(Member("/".join(parts[:depth]), stat.S_IFDIR | 0o755))


def _pack(member: Member, number: int) -> bytes:
    name = member.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(member.mode) else 1
    fields = (
        number,
        member.mode,
        0,  # uid
        0,  # gid
        links,
        0,  # mtime
        len(member.content),
        0,
        0,
        *member.device,
        len(name),
        0,  # checksum, unused in newc
    )
    head = b"070701" + b"".join(b"%08X" % value for value in fields)
    return _pad(head + name) + _pad(member.content)


def _pad(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


def compress(content: bytes) -> bytes:
    """gzip without name or time: every kernel with an initrd reads it (RFC 1952)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(content) + packer.flush()


_HEADER = 110
_DIGITS = re.compile(rb"[0-9A-Fa-f]{104}")
_MOST_ARCHIVES, _MOST_ENTRIES = 16, 200_000
_TRAILER = "TRAILER!!!"
_MODULE_SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz", ".ko.lz4")


@dataclass(frozen=True)
class Entry:
    """A member of the archive: its path without leading slash, its mode and its content."""

    path: str
    mode: int
    content: bytes


def read_initrd(image: bytes) -> list[Entry]:
    """All members of every archive in an initrd, microcode first when it has some.

    Raises ValueError for damaged archives and for compressions that nobody can unpack.
    """
    entries: list[Entry] = []
    rest = image.lstrip(b"\0")
    is_packed = False
    for _ in range(_MOST_ARCHIVES):
        if rest[:6] in (b"070701", b"070702"):
            members, rest = _read_archive(rest)
            entries += members
        elif rest and not is_packed:
            compression = find_compression(rest)
            if compression in ("unknown", "none"):
                raise ValueError("an initrd that is neither cpio nor compressed cpio")
            rest = unpack(rest, compression, is_first_enough=True)
            is_packed = True
        elif rest:
            raise ValueError("an initrd that is packed more than once")
        rest = rest.lstrip(b"\0")
        if not rest:
            return entries
    raise ValueError(f"an initrd of more than {_MOST_ARCHIVES} archives")


def module_names(entries: list[Entry]) -> frozenset[str]:
    """Names of the kernel modules inside, with underscores as lsmod shows them (xen_blkfront)."""
    names = set()
    for entry in entries:
        name = PurePosixPath(entry.path).name
        if name.endswith(_MODULE_SUFFIXES):
            names.add(name.split(".ko")[0].replace("-", "_"))
    return frozenset(names)


def _read_archive(image: bytes) -> tuple[list[Entry], bytes]:
    entries: list[Entry] = []
    at = 0
    while True:
        header = image[at : at + _HEADER]
        if len(header) < _HEADER or header[:6] not in (b"070701", b"070702"):
            raise ValueError(f"damaged cpio archive at byte {at}")
        if not _DIGITS.fullmatch(header, 6):  # int() would take signs, and the loop go back
            raise ValueError(f"damaged cpio header at byte {at}")
        if len(entries) > _MOST_ENTRIES:
            raise ValueError(f"a cpio archive of more than {_MOST_ENTRIES} files")
        fields = [int(header[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name_at = at + _HEADER
        name = image[name_at : name_at + max(name_size - 1, 0)].decode("utf-8", "surrogateescape")
        content_at = _align(name_at + name_size)
        at = _align(content_at + size)
        if name == _TRAILER:
            return entries, image[at:]
        if content_at + size > len(image):
            raise ValueError(f"cpio member {name!r} ends behind the archive")
        path = name.removeprefix("./").lstrip("/")
        entries.append(Entry(path, mode, image[content_at : content_at + size]))


def _align(offset: int) -> int:
    return offset + 3 & ~3
