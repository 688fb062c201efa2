"""Reading a .deb: its two tar members, unpacked into memory, and what they hold.

The container is that of deb(5) and ar(5). Of tar only what dpkg itself accepts is understood: v7,
ustar and GNU's long names (dpkg's lib/dpkg/tarfn.c); anything else is refused. A package is what
strangers wrote: every number is checked where it is read, and nothing is unpacked beyond what its
index says of its size.
"""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.compression import SUFFIXES, TooLongError, unpack
from pipeline.console.terminal import printable
from pipeline.errors import EnvironmentFault, PipelineError
from pipeline.walls.package_names import require_path

BLOCK = 512
_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = re.compile(rb"([ -~]{16})[ -~]{32}([0-9]{1,10}) *`\n")
_AR_HEADER_SIZE = 60
_PARTS = ("debian-binary", "control.tar", "data.tar")
_LONG_NAME, _LONG_TARGET = b"L", b"K"
_LONG_MAX = 4096  # PATH_MAX
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_CHECKSUM = slice(148, 156)
_ID_MAX, _TIME_MAX = 2**32 - 2, 2**34
_ENTRIES_MAX = 200_000

_MIB = 1 << 20
CONTROL_MAX = 16 * _MIB
FILES_MAX = 512 * _MIB
_ROOM = 16 * _MIB  # Installed-Size counts no headers, an empty file as nothing
_SUFFIXES = ("", ".gz", ".bz2", ".lzma", ".xz", ".zst")
_ZSTD_WINDOW = 128 * _MIB  # what zstd itself takes without being asked


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a tar: `kind` is its type flag, `start` and `size` where its content is.

    `path` is absolute in the tree, without a slash at its end; the tree itself is "/.". So is
    `target` for a hard link; for a symbolic one it is as it stands.
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


def read_deb(source: Path | int, *, name: str, installed_kib: int | None = None) -> Archive:
    """Read a .deb, a file or an open one; raises PipelineError, naming it by `name`, for no .deb.

    `installed_kib` is its Installed-Size in the signed index: its files take twice that at most,
    and some MiB; without it, and in any case, FILES_MAX bytes.
    """
    room = FILES_MAX
    if installed_kib is not None:
        room = min(FILES_MAX, 2 * 1024 * installed_kib + _ROOM)
    try:
        with open(source, "rb") as stream:
            control, files = _find_parts(stream.read())
        return Archive(_unpack(*control, CONTROL_MAX), _unpack(*files, room))
    except (ValueError, OSError) as error:
        raise damaged(name, str(error)) from error


def damaged(name: str, reason: str) -> PipelineError:
    """The error for a package that cannot be read."""
    shown = printable(reason).replace("\n", "\\n")
    return PipelineError(
        f"package {name}: not a package that can be unpacked here ({shown})",
        hint="use bootstrap=mmdebstrap, which leaves unpacking to the release's own dpkg",
    )


def not_written(name: str, path: str, error: OSError) -> PipelineError:
    """The error for a file of a package that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentFault(
            f"no space left to unpack package {name}", hint="free some space, or some memory"
        )
    return damaged(name, f"{path}: {error.strerror}")


def _find_parts(content: bytes) -> list[tuple[str, memoryview]]:
    """The control and data parts; dpkg wants the three in this order, and ignores what follows."""
    members = (part for part in _ar_members(content) if not part[0].startswith("_"))
    found = []
    for wanted in _PARTS:
        name, part = next(members, ("", memoryview(b"")))
        if name != wanted and not name.startswith(f"{wanted}."):
            raise ValueError(f"a part is missing: {wanted}")
        found.append((name, part))
    if bytes(found[0][1][:2]) != b"2.":
        raise ValueError("a format other than 2.0")
    return found[1:]


def _ar_members(content: bytes) -> Iterator[tuple[str, memoryview]]:
    if not content.startswith(_AR_MAGIC):
        raise ValueError("no ar archive")
    at = len(_AR_MAGIC)
    while at < len(content):
        header = _AR_HEADER.fullmatch(content, at, at + _AR_HEADER_SIZE)
        if header is None:
            raise ValueError("an ar header is damaged")
        name, size = header[1].decode("ascii").rstrip(" /"), int(header[2])
        at += _AR_HEADER_SIZE
        if at + size > len(content):
            raise ValueError(f"{name} is cut short")
        yield name, memoryview(content)[at : at + size]
        at += size + size % 2


def _unpack(part: str, content: memoryview, limit: int) -> bytes:
    suffix = part.removeprefix("control.tar").removeprefix("data.tar")
    if suffix not in _SUFFIXES:
        raise ValueError(f"compressed as {suffix}")
    try:
        return unpack(content, SUFFIXES[suffix], limit=limit, window=_ZSTD_WINDOW)
    except TooLongError as error:
        raise ValueError(f"{part}: {error}, its Installed-Size is less") from None


def read_members(tar: bytes, *, name: str) -> Iterator[Member]:
    """The entries of a package's tar, in its order; raises PipelineError for unknown forms."""
    try:
        for count, member in enumerate(_members(tar, f"package {name}")):
            if count == _ENTRIES_MAX:
                raise ValueError(f"more than {_ENTRIES_MAX} entries")
            yield member
    except ValueError as error:
        raise damaged(name, str(error)) from error


def _members(tar: bytes, where: str) -> Iterator[Member]:
    at, long_name, long_target = 0, "", ""
    while True:
        header = tar[at : at + BLOCK]
        if len(header) < BLOCK:
            raise ValueError("its tar is cut short")
        if not header[0]:
            return
        _verify(header)
        kind = header[156:157]
        size, start = _number(header[124:136], len(tar)), at + BLOCK
        at = start + (size + BLOCK - 1) // BLOCK * BLOCK
        if start + size > len(tar):
            raise ValueError("its tar is cut short")
        if kind in (_LONG_NAME, _LONG_TARGET):
            if size > _LONG_MAX:
                raise ValueError(f"a name of {size} bytes")
            text = _text(tar[start : start + size])
            if kind == _LONG_NAME:
                long_name = text
            else:
                long_target = text
        elif kind in b"\x0001234567":
            path = _absolute(long_name or _name(header), where)
            if path == "/." and kind != b"5":
                raise ValueError("an entry without a name")
            yield _member(header, path, long_target or _text(header[157:257]), start, size, where)
            long_name = long_target = ""
        else:
            raise ValueError(f"tar entry of type {kind!r}")


def _member(header: bytes, path: str, target: str, start: int, size: int, where: str) -> Member:
    kind = header[156:157].decode("ascii").replace("\0", "0").replace("7", "0")
    if kind == "1":
        target = _absolute(target, where)
    elif kind == "2" and not target:
        raise ValueError(f"{path} is a link to nothing")
    return Member(
        path=path,
        kind=kind,
        mode=_number(header[100:108], 0o177777) & 0o7777,
        uid=_number(header[108:116], _ID_MAX),
        gid=_number(header[116:124], _ID_MAX),
        mtime=_number(header[136:148], _TIME_MAX),
        start=start,
        size=size,
        target=target,
    )


def _verify(header: bytes) -> None:
    """The header's own sum, its field counted as blanks; dpkg takes the unsigned sum alone."""
    total = sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" ")
    if _number(header[_CHECKSUM], 1 << 20) != total:
        raise ValueError("a tar header's checksum is wrong")


def _name(header: bytes) -> str:
    name = _text(header[:100])
    # GNU's own magic is "ustar " and has other things in the place of the prefix
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _absolute(path: str, where: str) -> str:
    """A path of a tar as one of the tree; PipelineError when it is none."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return require_path("/" + "/".join(parts), where=where) if parts else "/."


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes, limit: int) -> int:
    if field[0] & 0x80:  # base 256, for what octal cannot hold; a negative one is beyond any limit
        number = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    else:
        octal = _OCTAL.fullmatch(field)
        if octal is None:
            raise ValueError(f"{field!r} is not an octal number")
        number = int(octal[1] or b"0", 8)
    if number > limit:
        raise ValueError(f"{number} is too large a number")
    return number
