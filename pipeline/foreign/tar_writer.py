"""A tree as one tar that depends on the tree alone: order, headers, holes; an errand in a cage.

Owners are numbers, times whole seconds, extended attributes GNU tar's records. A run of zeros of
1 MiB is a hole, whether its source had one there or not (GNU's sparse format 1.0, which tar(1) and
Python read).
"""

import json
import resource
import sys
import tarfile
from bisect import bisect
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from pipeline.errors import PipelineError
from pipeline.foreign.tar_index import Node, read_index, unpack_into
from pipeline.walls.errand import carry_out

MODULE = "pipeline.foreign.tar_writer"
TAR, SAID, PLAIN = "tree.tar", "said.json", "plain.tar"
STEP = "written MiB"
_STEP_MIB = 64
# what a start makes anew, or nobody may take over
MADE_ANEW = ("/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp")
_MEMORY = 3 << 30
_BLOCK, _PAGE, _HOLE = 512, 4096, 1 << 20
_SHORT, _MOST_OCTAL = 100, 0o77777777777
_NAMES = ("utf-8", "surrogateescape")
_SWAP_AT, _SWAP = 4086, b"SWAPSPACE2"  # mkswap(8), pages of 4 KiB
_KINDS = {"folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "fifo": tarfile.FIFOTYPE}
_MOST_TOLD = 50
_ROOTS = ({"/etc"}, {"/usr", "/bin"})


def fulfil(order: dict[str, Any]) -> None:
    """Read the tar of the open descriptor, write the same tree into the room."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    room = Path(order["room"])
    with open(order["file"], "rb", closefd=False) as source:
        plain = unpack_into(source, room / PLAIN)
        tree = read_index(plain)
        for some in _ROOTS:
            if not some & set(tree):
                raise PipelineError(
                    f"no root file system: it has no {' and no '.join(sorted(some))}",
                    hint="name the tar, folder or disk in which /etc and /usr are",
                )
        left = leave_out(tree, plain, order["without"])
        with open(room / TAR, "xb") as target:
            write_tar(tree, plain, target)
    (room / PLAIN).unlink(missing_ok=True)
    kinds = Counter(node.kind for node in tree.values())
    size = sum(node.size for node in {id(node): node for node in tree.values()}.values())
    said = {"left_out": left, "kinds": kinds, "bytes": size, "attributes": _count_attributes(tree)}
    (room / SAID).write_text(json.dumps(said))


def _count_attributes(tree: dict[str, Node]) -> dict[str, int]:
    """How many files have which extended attribute: what a plain copy would lose."""
    names = Counter(name for node in tree.values() for name in node.xattrs)
    return dict(sorted(names.items())[:_MOST_TOLD])


def leave_out(
    tree: dict[str, Node], plain: IO[bytes], without: Collection[str]
) -> list[dict[str, Any]]:
    """Take away what no guest gets, and say what it was: path, how much, why."""
    left: list[dict[str, Any]] = []

    def drop(paths: list[str], told: str, why: str) -> None:
        for path in paths:
            del tree[path]
        if paths:
            left.append({"path": told, "count": len(paths), "why": why})

    for folder in MADE_ANEW:
        drop(_below(tree, folder), f"{folder}/*", "made anew at each start")
    for path in without:
        drop([*_below(tree, path), *({path} & set(tree))], path, "without=")
    lost = [path for path in tree if path.endswith("/lost+found")]
    for path in lost:
        drop([path, *_below(tree, path)], path, "what fsck finds, of another file system")
    for path in [path for path, node in tree.items() if node.kind == "device"]:
        drop([path], path, "a device node outside of /dev")
    for path, node in list(tree.items()):
        if node.kind == "file" and _is_swap(node, plain):
            drop([path], path, "a swap file: the guest's swap is a disk of its own")
    return left


def _below(tree: dict[str, Node], folder: str) -> list[str]:
    if folder in tree and tree[folder].kind != "folder":
        return []
    return [path for path in tree if path.startswith(f"{folder}/")]


def _is_swap(node: Node, plain: IO[bytes]) -> bool:
    if node.size < _PAGE * 10 or not node.pieces or node.pieces[0][0] != 0:
        return False
    if node.pieces[0][2] < _PAGE or node.mode & 0o077:
        return False
    plain.seek(node.pieces[0][1] + _SWAP_AT)
    return plain.read(len(_SWAP)) == _SWAP


def write_tar(tree: dict[str, Node], plain: IO[bytes], target: IO[bytes]) -> None:
    """Every path in one order: a folder before what is in it, names by their bytes."""
    first: dict[int, str] = {}
    told = 0
    for path in sorted(tree, key=lambda path: path.encode(*_NAMES).split(b"/")):
        node = tree[path]
        name = f".{path}".rstrip("/")
        earlier = first.setdefault(id(node), name)
        if earlier != name:
            _write_header(target, name, node, tarfile.LNKTYPE, link=earlier)
        elif node.kind == "file":
            _write_file(target, name, node, plain)
            if target.tell() >> 20 >= told + _STEP_MIB:
                told += _STEP_MIB
                print(STEP, _STEP_MIB, flush=True)
        else:
            _write_header(target, name, node, _KINDS[node.kind], link=node.target)
    target.write(bytes(2 * _BLOCK))


def _write_file(target: IO[bytes], name: str, node: Node, plain: IO[bytes]) -> None:
    filled = list(_find_filled(node, plain))
    stored = sum(size for _, size in filled)
    if stored == node.size:
        _write_header(target, name, node, tarfile.REGTYPE, size=node.size)
    else:
        pairs = filled if filled and sum(filled[-1]) == node.size else [*filled, (node.size, 0)]
        numbers = [len(pairs), *(number for pair in pairs for number in pair)]
        places = "".join(f"{number}\n" for number in numbers).encode()
        places += bytes(-len(places) % _BLOCK)
        size = len(places) + stored
        _write_header(target, name, node, tarfile.REGTYPE, size=size, real_size=node.size)
        target.write(places)
    for start, size in filled:
        for at in range(start, start + size, _HOLE):
            target.write(_read(node, plain, at, min(_HOLE, start + size - at)))
    target.write(bytes(-target.tell() % _BLOCK))


def _find_filled(node: Node, plain: IO[bytes]) -> Iterator[tuple[int, int]]:
    """(start, bytes) of all but the whole MiB that are zeros; a small file has no holes."""
    start = 0
    for at in range(0, node.size, _HOLE) if node.size >= _HOLE else ():
        size = min(_HOLE, node.size - at)
        if _read(node, plain, at, size) == bytes(size):
            if at > start:
                yield start, at - start
            start = at + size
    if node.size > start:
        yield start, node.size - start


def _read(node: Node, plain: IO[bytes], start: int, size: int) -> bytes:
    """Bytes of a file as they are when it is unpacked: zeros where the tar has none."""
    content = bytearray(size)
    first = max(bisect(node.pieces, (start, 1 << 63, 0)) - 1, 0)
    for place, at, length in node.pieces[first:]:
        begin, end = max(place, start), min(place + length, start + size)
        if place >= start + size:
            break
        if begin < end:
            plain.seek(at + begin - place)
            piece = plain.read(end - begin)
            if len(piece) < end - begin:
                raise PipelineError("the tar is cut short")
            content[begin - start : end - start] = piece
    return bytes(content)


def _write_header(
    target: IO[bytes],
    name: str,
    node: Node,
    kind: bytes,
    *,
    size: int = 0,
    real_size: int | None = None,
    link: str = "",
) -> None:
    """One member's header, behind a pax header where it needs one: pax(1), GNU tar's own keys."""
    more: dict[str, bytes] = {}
    told, target_told = name.encode(*_NAMES), link.encode(*_NAMES)
    if real_size is not None:
        more["GNU.sparse.major"], more["GNU.sparse.minor"] = b"1", b"0"
        more["GNU.sparse.name"] = told
        more["GNU.sparse.realsize"] = str(real_size).encode()
    elif len(told) > _SHORT or not told.isascii():
        more["path"] = told
    if len(target_told) > _SHORT or not target_told.isascii():
        more["linkpath"] = target_told
    if size > _MOST_OCTAL:
        more["size"] = str(size).encode()
    more |= node.xattrs if kind != tarfile.LNKTYPE else {}
    if more:
        records = b"".join(_record(key, more[key]) for key in sorted(more))
        head = tarfile.TarInfo("././@PaxHeader")
        head.type, head.size = tarfile.XHDTYPE, len(records)
        target.write(head.tobuf(tarfile.USTAR_FORMAT))
        target.write(records + bytes(-len(records) % _BLOCK))
    info = tarfile.TarInfo("./@long" if more.keys() & {"path", "GNU.sparse.name"} else name)
    info.linkname = "./@long" if "linkpath" in more else link
    info.type, info.mode, info.size = kind, node.mode, min(size, _MOST_OCTAL)
    info.uid, info.gid, info.mtime = node.uid, node.gid, node.mtime
    target.write(info.tobuf(tarfile.USTAR_FORMAT, *_NAMES))


def _record(key: str, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE`, the length with its own digits."""
    rest = b" " + key.encode(*_NAMES) + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return str(length).encode() + rest


if __name__ == "__main__":
    sys.exit(carry_out(fulfil))
