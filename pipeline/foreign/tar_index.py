"""What a stranger's tar says: every path once, and where its bytes are; nothing is unpacked.

Members may stand in any order, twice, packed in any way. What tar(1) would make of them in an empty
folder is worked out from the headers alone: a later member of a name replaces the one before it, a
further name of a file is the same file. Refused is what leads out of the tree, stands below
something that is no folder, or has a name that no line can hold. Every number has a bound.
"""

import base64
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self, cast
from urllib.parse import unquote_to_bytes

import zstandard

from pipeline.compression import find_compression, open_packed
from pipeline.errors import PipelineError
from pipeline.walls.cage import IDS, TREE_FILE_KIB
from pipeline.walls.package_names import require_path

GIB = 1 << 30
MOST_BYTES = TREE_FILE_KIB << 10
MOST_ENTRIES = 2_000_000
_MOST_XATTRS = 1 << 16  # as the kernel's own bound, xattr(7)
_MOST_TIME = 2**34
_CHUNK = 1 << 20
_KEPT = ("SCHILY.xattr.", "SCHILY.acl.", "RHT.security.")
_LIBARCHIVE = "LIBARCHIVE.xattr."  # bsdtar's form: the name %-escaped, the value in base64
_MOST_HEADER = 1 << 20
_HEADERS = frozenset(b"LKNxgX")  # what stands before a member, or before all of them
_KINDS = {
    **dict.fromkeys(tarfile.REGULAR_TYPES, "file"),
    **dict.fromkeys([tarfile.DIRTYPE, b"D"], "folder"),
    **dict.fromkeys([tarfile.CHRTYPE, tarfile.BLKTYPE], "device"),
    tarfile.SYMTYPE: "link",
    tarfile.FIFOTYPE: "fifo",
}
_WHERE = "the tar"


@dataclass(kw_only=True)
class Node:
    """A file, folder, link, FIFO or device; several paths may have the same one."""

    kind: str
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    target: str = ""
    size: int = 0
    pieces: tuple[tuple[int, int, int], ...] = ()  # place in the file, place in the tar, bytes
    xattrs: dict[str, bytes] = field(default_factory=dict)


class _Member(tarfile.TarInfo):
    """What Python's tarfile takes for a number or for the end of the tar is looked at first."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the end mark
            raise PipelineError(f"{_WHERE} is damaged, or cut short: {error}") from error
        is_header = member.type[0] in _HEADERS
        if member.size < 0 or (is_header and member.size > _MOST_HEADER):
            raise PipelineError(f"{_WHERE} has a header of {member.size} bytes")
        return member


def read_index(stream: IO[bytes]) -> dict[str, Node]:
    """Every path, as /etc/fstab, and the tree itself, "/"; PipelineError for a tar that is hostile,
    damaged or beyond the bounds."""
    tree: dict[str, Node] = {"/": Node(kind="folder", mode=0o755)}
    count = total = 0
    length = stream.seek(0, 2)
    stream.seek(0)
    form: Any = {"mode": "r:", "errors": "surrogateescape", "tarinfo": _Member}
    last = -1
    try:
        archive: Any
        with tarfile.open(fileobj=stream, **form) as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # it would keep every one
                if archive.offset <= last:
                    raise PipelineError(f"{_WHERE} runs in a circle")
                last = archive.offset
                count, total = count + 1, total + _weigh(member)
                if count > MOST_ENTRIES or total > MOST_BYTES:
                    raise PipelineError(
                        f"more than {MOST_ENTRIES} files or {MOST_BYTES // GIB} GiB of them",
                        hint="without=PATH,PATH leaves out what the guest does not need",
                    )
                _place(tree, member, length)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError) as error:
        raise _unreadable(error) from error
    except RecursionError as error:
        raise _unreadable(error) from error
    if count == 0:
        raise PipelineError("no tar, or an empty one")
    _require_folders(tree)
    return tree


def _unreadable(error: Exception) -> PipelineError:
    return PipelineError(f"{_WHERE} cannot be read: {str(error)[:200] or type(error).__name__}")


def _weigh(member: tarfile.TarInfo) -> int:
    """The bytes that a member brings: holes count nothing."""
    places = _places_of(member)
    return sum(size for _, size in places) if places else member.size if member.isreg() else 0


def _places_of(member: tarfile.TarInfo) -> list[tuple[int, int]] | None:
    """The map of a sparse file, as tarfile keeps it."""
    places: list[tuple[int, int]] | None = cast(Any, member).sparse
    return places


def _place(tree: dict[str, Node], member: tarfile.TarInfo, length: int) -> None:
    if member.type == b"V":  # the label of a volume
        return
    path = plain_path(member.name)
    if member.islnk():
        target = plain_path(member.linkname)
        if target not in tree or tree[target].kind == "folder":
            raise PipelineError(
                f"{path} is a further name of {target}, which is no file of the tar"
            )
        node = tree[target]
    else:
        node = _read_node(path, member, length)
    if path == "/" and node.kind != "folder":
        raise PipelineError("the tree itself is no folder in the tar")
    tree[path] = node


def plain_path(name: str) -> str:
    """A member's name as an absolute path of the tree; PipelineError for one that cannot be."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    path = require_path("/" + "/".join(parts), where=_WHERE)
    if any(letter < " " or letter == "\x7f" for letter in path):
        raise PipelineError(
            f"{_WHERE}: {ascii(path)[:200]}: a name with control characters",
            hint="rename it at its source",
        )
    return path


def _read_node(path: str, member: tarfile.TarInfo, length: int) -> Node:
    kind = _KINDS.get(member.type, "")
    if not kind:
        raise PipelineError(
            f"{path}: a member of type {member.type!r}", hint="pack it with GNU tar"
        )
    for number in (member.uid, member.gid):
        if not 0 <= number < IDS - 1:
            raise PipelineError(
                f"{path} belongs to {number}, and a guest's tree has no owner above {IDS - 2}",
                hint="give it another owner at its source, or leave it out: without=PATH",
            )
    if kind == "link" and (not member.linkname or "\n" in member.linkname):
        raise PipelineError(f"{path} is a link to nothing")
    mtime = int(member.mtime)
    return Node(
        kind=kind,
        mode=member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        mtime=mtime if 0 <= mtime < _MOST_TIME else 0,
        target=member.linkname if kind == "link" else "",
        size=member.size if kind == "file" else 0,
        pieces=tuple(_read_pieces(path, member, length)) if kind == "file" else (),
        xattrs=_read_xattrs(path, member),
    )


def _read_pieces(path: str, member: tarfile.TarInfo, length: int) -> Iterator[tuple[int, int, int]]:
    """Where a file's bytes are; the map of a sparse one is what a stranger wrote."""
    written = _places_of(member)
    at, end = member.offset_data, 0
    for start, size in [(0, member.size)] if written is None else written:
        if size == 0:  # the end of the file; GNU's old form fills its table with them
            continue
        if start < end or size < 0 or start + size > member.size or at + size > length:
            raise PipelineError(f"{path}: the tar does not say where its bytes are")
        yield start, at, size
        at, end = at + size, start + size
    if not 0 <= member.size <= MOST_BYTES:
        raise PipelineError(
            f"{path} is longer than {MOST_BYTES // GIB} GiB", hint=f"leave it out: without={path}"
        )


def _read_xattrs(path: str, member: tarfile.TarInfo) -> dict[str, bytes]:
    """Extended attributes and ACLs as GNU tar's headers name them."""
    xattrs: dict[str, bytes] = {}
    for name, text in member.pax_headers.items():
        value = text.encode("utf-8", "surrogateescape")
        if name.startswith(_LIBARCHIVE):
            inner = unquote_to_bytes(name.removeprefix(_LIBARCHIVE)).decode("utf-8", "replace")
            name, value = f"{_KEPT[0]}{inner}", base64.b64decode(value + b"==")
        if name.startswith(_KEPT) and "=" not in name:
            xattrs.setdefault(name, value)
    if sum(map(len, xattrs.values())) > _MOST_XATTRS:
        raise PipelineError(f"{path}: more than {_MOST_XATTRS >> 10} KiB of attributes")
    return xattrs


def _require_folders(tree: dict[str, Node]) -> None:
    """Folders that no member names are made; what stands below anything else is refused."""
    for path in sorted(tree):
        parent = path.rpartition("/")[0]
        while parent and parent not in tree:
            tree[parent] = Node(kind="folder", mode=0o755)
            parent = parent.rpartition("/")[0]
        if parent and tree[parent].kind != "folder":
            raise PipelineError(
                f"{path} stands below {parent}, which is a {tree[parent].kind}",
                hint="unpack the tar with tar(1) and adopt the folder",
            )


def unpack_into(source: IO[bytes], target: Path) -> IO[bytes]:
    """A tar that is not packed: the source itself, or its bytes in a file of their own.

    Raises PipelineError for more than MOST_BYTES, and for what cannot be unpacked.
    """
    head = source.read(8)
    source.seek(0)
    compression = find_compression(head)
    if compression in ("unknown", "none"):
        return source
    if compression == "lzo":
        raise PipelineError("packed with lzo", hint="unpack it, and pack it with zstd or xz")
    try:
        plain = open_packed(source, compression)
        with open(target, "xb") as stream:
            total = 0
            while piece := plain.read(_CHUNK):
                total += len(piece)
                if total > MOST_BYTES:
                    raise PipelineError(f"it unpacks to more than {MOST_BYTES // GIB} GiB")
                stream.write(piece)
    except (EOFError, ValueError, MemoryError, RuntimeError) as error:
        raise _damaged(compression, error) from error
    except (zstandard.ZstdError, lzma.LZMAError, zlib.error) as error:
        raise _damaged(compression, error) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(compression, error) from error  # bz2 and gzip say it so
    return open(target, "rb")


def _damaged(compression: str, error: Exception) -> PipelineError:
    return PipelineError(f"the {compression} stream is damaged: {error or type(error).__name__}")
