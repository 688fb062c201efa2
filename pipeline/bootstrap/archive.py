"""Reading a .deb: its two tar members, unpacked into memory, and what they hold.

The container is that of deb(5) and ar(5). Of tar only what dpkg itself accepts is understood: v7,
ustar and GNU's long names (dpkg's lib/dpkg/tarfn.c); anything else is refused.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError

BLOCK = 512
_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
_LONG_NAME, _LONG_TARGET = b"L", b"K"


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a tar: `kind` is its type flag, `start` and `size` where its content is.

    `path` is absolute in the tree, without a slash at its end; the tree itself is "/.".
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    start: int
    size: int
    target: str


@dataclass(frozen=True, slots=True)
class Archive:
    """The two tars of a .deb, uncompressed."""

    control: bytes
    files: bytes


def read_deb(path: Path, *, name: str) -> Archive:
    """Read a .deb; raises PipelineError, naming it by `name`, for what is not one."""
    try:
        parts = dict(_ar_members(path.read_bytes()))
        control = next(_unpack(part, parts[part]) for part in parts if part.startswith("control."))
        files = next(_unpack(part, parts[part]) for part in parts if part.startswith("data."))
    except (ValueError, StopIteration, EOFError, OSError, lzma.LZMAError) as error:
        raise damaged(name, str(error) or "a part is missing") from error
    return Archive(control, files)


def damaged(name: str, reason: str) -> PipelineError:
    """The error for a package that cannot be read."""
    return PipelineError(
        f"package {name}: not a package that can be unpacked here ({reason})",
        hint="use bootstrap=mmdebstrap, which leaves unpacking to the release's own dpkg",
    )


def _ar_members(content: bytes) -> Iterator[tuple[str, bytes]]:
    if not content.startswith(_AR_MAGIC):
        raise ValueError("no ar archive")
    at = len(_AR_MAGIC)
    while at + _AR_HEADER <= len(content):
        header = content[at : at + _AR_HEADER]
        size = int(header[48:58])
        at += _AR_HEADER
        yield header[:16].decode("ascii").rstrip(" /"), content[at : at + size]
        at += size + size % 2


def _unpack(part: str, content: bytes) -> bytes:
    openers: dict[str, Callable[[bytes], bytes]] = {
        "xz": lzma.decompress,
        "zst": _unpack_zstd,
        "gz": gzip.decompress,
        "bz2": bz2.decompress,
        "lzma": lzma.decompress,
        "tar": bytes,
    }
    suffix = part.rpartition(".")[2]
    if suffix not in openers:
        raise ValueError(f"compressed as .{suffix}")
    return openers[suffix](content)


def _unpack_zstd(content: bytes) -> bytes:
    import zstandard  # only Ubuntu's packages need it

    return zstandard.ZstdDecompressor().decompressobj().decompress(content)


def read_members(tar: bytes, *, name: str) -> Iterator[Member]:
    """The entries of a package's tar, in its order; raises PipelineError for unknown forms."""
    at, long_name, long_target = 0, "", ""
    while at + BLOCK <= len(tar) and tar[at] != 0:
        header = tar[at : at + BLOCK]
        kind = header[156:157]
        size, start = _number(header[124:136]), at + BLOCK
        at = start + (size + BLOCK - 1) // BLOCK * BLOCK
        if kind == _LONG_NAME:
            long_name = _text(tar[start : start + size])
        elif kind == _LONG_TARGET:
            long_target = _text(tar[start : start + size])
        elif kind in b"\x0001234567":
            path = long_name or _name(header)
            target = long_target or _text(header[157:257])
            yield _member(header, _absolute(path, name), target, start, size)
            long_name = long_target = ""
        else:
            raise damaged(name, f"tar entry of type {kind!r}")


def _member(header: bytes, path: str, target: str, start: int, size: int) -> Member:
    return Member(
        path=path,
        kind=header[156:157].decode("ascii").replace("\0", "0").replace("7", "0"),
        mode=_number(header[100:108]) & 0o7777,
        uid=_number(header[108:116]),
        gid=_number(header[116:124]),
        mtime=_number(header[136:148]),
        start=start,
        size=size,
        target=target,
    )


def _name(header: bytes) -> str:
    name = _text(header[:100])
    # GNU's own magic is "ustar " and has other things in the place of the prefix
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _absolute(path: str, name: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise damaged(name, f"it has a path outside the tree: {path}")
    return "/" + "/".join(parts) if parts else "/."


def _text(field: bytes) -> str:
    return os.fsdecode(field.partition(b"\0")[0])


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base 256, for what octal cannot hold
        return int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    return int(field.strip(b" \0") or b"0", 8)
