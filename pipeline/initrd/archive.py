"""A cpio archive in the kernel's `newc` form, the same bytes for the same content.

Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
import zlib
from dataclasses import dataclass, field


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
