"""An ext2, ext3 or ext4 file system that is not mounted: read by ourselves, written by debugfs(8).

Whoever was root in the guest chose every byte of it. So nothing that is read is passed on to a
shell or a script, links are followed inside the image alone, and every loop has a bound. Layout:
Documentation/filesystems/ext4/ of Linux.
"""

import os
import re
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Self

from pipeline.errors import PipelineError, VerificationError
from pipeline.walls.cage import caged_reader
from pipeline.walls.privacy import make_private

Run = Callable[..., str]
MOST_FILE = 16 << 20
_PLAIN = re.compile(r"[A-Za-z0-9/._+@:,=~-]+")  # what a script may hold
_HINT = "an element left it so: look into its scripts"
ROOT = 2
MOST_LINKS = 40  # as the kernel's own bound, path_resolution(7)
MOST_PATH = 4096
MOST_FOLDER = 8 << 20
MOST_ENTRIES = 500_000  # in all folders together; a usual guest has 30 000 files
_MOST_NOTES = 20
_MAGIC, _EXTENT_MAGIC = 0xEF53, 0xF30A
_MOST_DEPTH = 5
_NEEDS_64BIT, _HAS_CSUM_SEED = 0x80, 0x2000
# filetype, recover, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data,
# encrypt, casefold: whatever else is set changes where things are
_UNDERSTOOD = 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x38000
_EXTENTS, _ENCRYPTED, _INLINE = 0x80000, 0x800, 0x10000000
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


@dataclass(frozen=True)
class IdentityFile:
    """One file in the guest: absolute path, content, permission bits; a link when `link` is set."""

    path: str
    content: bytes = b""
    mode: int = 0o644
    link: str = ""


class DamagedImage(VerificationError):
    """The file system, or a part of it, is not what it should be (exit code 5)."""


@dataclass(frozen=True)
class Inode:
    """One inode; `mode` has the type's bits too, `size` is in bytes."""

    number: int
    mode: int
    owner: int
    group: int
    size: int
    flags: int
    block: bytes

    @property
    def kind(self) -> str:
        """file, folder, link or other."""
        return _KINDS.get(stat.S_IFMT(self.mode), "other")


class ExtImage:
    """Reads one image, a file or a device, from `offset` on; close it, or use it as a context.

    Whatever cannot be read raises DamagedImage.
    """

    def __init__(self, path: Path, *, offset: int = 0) -> None:
        self._name, self._start = path.name, offset
        self._folders: dict[int, dict[str, int]] = {}
        self._room = MOST_ENTRIES
        self.odd_names: set[str] = set()
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            kind = os.fstat(self._handle).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
                raise self._damaged("neither a file nor a block device")
            self._read_superblock()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the image go."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _read_superblock(self) -> None:
        block = self._pread(1024, 1024)
        word = struct.unpack_from("<26I", block)
        self._inodes, self._first_block = word[0], word[5]
        self._inodes_per_group = word[10]
        incompatible = struct.unpack_from("<I", block, 0x60)[0]
        revision, inode_size = word[19], struct.unpack_from("<H", block, 0x58)[0]
        self._inode_size = inode_size if revision else 128
        size = struct.unpack_from("<H", block, 0xFE)[0] if incompatible & _NEEDS_64BIT else 32
        self._descriptor_size = size
        self._is_64bit = bool(incompatible & _NEEDS_64BIT)
        magic = struct.unpack_from("<H", block, 0x38)[0]
        if magic != _MAGIC or word[6] > 6 or not self._inodes_per_group:
            raise self._damaged("no ext2, ext3 or ext4 file system")
        if not 128 <= self._inode_size <= 1024 << word[6] or not 32 <= size <= 1024:
            raise self._damaged("its superblock is damaged")
        if strange := incompatible & ~_UNDERSTOOD:
            raise self._damaged(f"its features {strange:#x} are not understood here")
        self.block_size: int = 1024 << word[6]

    def inode(self, number: int) -> Inode:
        """An inode by its number."""
        if not 0 < number <= self._inodes:
            raise self._damaged(f"there is no inode {number}")
        group, index = divmod(number - 1, self._inodes_per_group)
        start = (self._first_block + 1) * self.block_size + group * self._descriptor_size
        descriptor = self._pread(start, self._descriptor_size)
        table = struct.unpack_from("<I", descriptor, 8)[0]
        if self._is_64bit and self._descriptor_size >= 64:
            table |= struct.unpack_from("<I", descriptor, 0x28)[0] << 32
        raw = self._pread(table * self.block_size + index * self._inode_size, 128)
        mode, owner, size, _, _, _, _, group_id = struct.unpack_from("<HHI4IH", raw)
        owner_high, group_high = struct.unpack_from("<HH", raw, 0x78)
        flags, size_high = (struct.unpack_from("<I", raw, at)[0] for at in (0x20, 0x6C))
        return Inode(
            number,
            mode,
            owner | owner_high << 16,
            group_id | group_high << 16,
            size | size_high << 32,
            flags,
            raw[0x28:0x64],
        )

    def find(self, path: str, *, follow_last: bool = True) -> Inode | None:
        """Where an absolute path leads, links followed inside the image; None for nowhere."""
        found = self.resolve(path, follow_last=follow_last)
        return found[1] if found else None

    def resolve(self, path: str, *, follow_last: bool = True) -> tuple[str, Inode] | None:
        """The same, and the path of it that goes through no link."""
        waiting = [part for part in path.split("/") if part][::-1]
        above = [("", ROOT)]
        links = 0
        while waiting:
            part = waiting.pop()
            if part in (".", ".."):
                above = (above[:-1] or above) if part == ".." else above
                continue
            number = self.entries(above[-1][1]).get(part)
            if number is None:
                return None
            found = self.inode(number)
            if found.kind == "link" and (waiting or follow_last):
                target = self.read_link(found)
                links += 1
                if links > MOST_LINKS or len(target) > MOST_PATH:
                    return None
                waiting += [part for part in target.split("/") if part][::-1]
                above = above[:1] if target.startswith("/") else above
            elif found.kind == "folder":
                above.append((part, number))
            elif waiting:
                return None
            else:
                return "/".join([*(name for name, _ in above), part]), found
        return "/".join(name for name, _ in above) or "/", self.inode(above[-1][1])

    def entries(self, folder: int) -> dict[str, int]:
        """Name to inode of a folder, without . and ..; what is no name is noted in `odd_names`."""
        if folder not in self._folders:
            found = self.inode(folder)
            if found.kind != "folder":
                return {}
            content = self.read(found, limit=MOST_FOLDER)
            self._folders[folder] = dict(islice(self._parse_folder(content), self._room))
            self._room -= len(self._folders[folder])
            if not self._room:
                raise self._damaged(f"more than {MOST_ENTRIES} names in its folders")
        return self._folders[folder]

    def _parse_folder(self, content: bytes) -> Iterator[tuple[str, int]]:
        for start in range(0, len(content), self.block_size):
            block = content[start : start + self.block_size]
            at = 0
            while at + 8 <= len(block):
                inode, length, name_size = struct.unpack_from("<IHH", block, at)
                length = length if self.block_size < 1 << 16 or length % 65535 else self.block_size
                name_size &= 0xFF
                if length < 8 or at + length > len(block) or name_size + 8 > length:
                    self._note("a damaged folder")
                    break
                name = block[at + 8 : at + 8 + name_size].decode("utf-8", "surrogateescape")
                at += length
                if not inode or name in (".", ".."):
                    continue
                if not name or "/" in name or "\0" in name:
                    self._note(f"an entry named {name!r}")
                else:
                    yield name, inode

    def _note(self, what: str) -> None:
        if len(self.odd_names) < _MOST_NOTES:
            self.odd_names.add(what)

    def read_link(self, inode: Inode) -> str:
        """The target of a symbolic link."""
        if inode.size < len(inode.block):
            content = inode.block[: inode.size]
        else:
            content = self.read(inode, limit=MOST_PATH)
        return content.partition(b"\0")[0].decode("utf-8", "surrogateescape")

    def read(self, inode: Inode, *, limit: int) -> bytes:
        """What a file, a folder or a link holds; at most `limit` bytes."""
        if inode.size > limit:
            raise self._damaged(f"{inode.size} bytes, more than the {limit} that are read")
        if inode.flags & (_ENCRYPTED | _INLINE):
            raise self._damaged("it is encrypted or lies in its inode")
        content = bytearray(inode.size)
        position = 0
        for logical, physical, count in self._mapped(inode):
            # one after the other: what overlaps could be read without end
            if logical < position:
                raise self._damaged("its blocks overlap")
            position = logical + count
            start = logical * self.block_size
            size = min(count * self.block_size, inode.size - start)
            if size <= 0:
                break
            content[start : start + size] = self._pread(physical * self.block_size, size)
        return bytes(content)

    def _mapped(self, inode: Inode) -> Iterator[tuple[int, int, int]]:
        """(first block of the file, first on the disk, how many) of what is no hole, in order."""
        if inode.flags & _EXTENTS:
            yield from self._extents(inode.block, _MOST_DEPTH, [self._most_nodes(inode)])
            return
        pointers = struct.unpack("<15I", inode.block)
        wanted, at = -(-inode.size // self.block_size), 0
        for depth, pointer in [*((0, one) for one in pointers[:12]), *enumerate(pointers[12:], 1)]:
            if at < wanted:
                yield from self._indirect(pointer, depth, at, wanted)
            at += int((self.block_size // 4) ** depth)

    def _most_nodes(self, inode: Inode) -> int:
        return 16 + inode.size // self.block_size

    def _extents(
        self, node: bytes, most_depth: int, left: list[int]
    ) -> Iterator[tuple[int, int, int]]:
        magic, entries, _, depth = struct.unpack_from("<4H", node)
        left[0] -= 1
        is_sound = magic == _EXTENT_MAGIC and depth <= most_depth and left[0] >= 0
        if not is_sound or 12 + 12 * entries > len(node):
            raise self._damaged("its extents are damaged")
        for at in range(12, 12 + 12 * entries, 12):
            if depth:
                _, low, high = struct.unpack_from("<IIH", node, at)
                place = (low | high << 32) * self.block_size
                yield from self._extents(self._pread(place, self.block_size), depth - 1, left)
                continue
            logical, count, high, low = struct.unpack_from("<IHHI", node, at)
            if count <= 1 << 15:  # more is space that was allocated and never written
                yield logical, low | high << 32, count

    def _indirect(
        self, pointer: int, depth: int, at: int, wanted: int
    ) -> Iterator[tuple[int, int, int]]:
        if not pointer:
            return
        if not depth:
            yield at, pointer, 1
            return
        step = (self.block_size // 4) ** (depth - 1)
        content = self._pread(pointer * self.block_size, self.block_size)
        for (below,) in struct.iter_unpack("<I", content):
            if at >= wanted:
                return
            yield from self._indirect(below, depth - 1, at, wanted)
            at += step

    def _pread(self, at: int, size: int) -> bytes:
        content = b""
        if at < 1 << 62:
            content = os.pread(self._handle, size, self._start + at)
        if len(content) < size:
            raise self._damaged(f"it names byte {at}, which is behind its end")
        return content

    def _damaged(self, what: str) -> DamagedImage:
        return DamagedImage(f"{self._name}: {what}")


def size_in_superblock(path: Path, *, offset: int = 0) -> int:
    """Bytes that an ext file system in this file, or from there on, says it has; 0 for none."""
    with open(path, "rb") as stream:
        stream.seek(offset)
        block = stream.read(2048)[1024:]
    if len(block) < 1024 or struct.unpack_from("<H", block, 0x38)[0] != _MAGIC:
        return 0
    count, shift = (struct.unpack_from("<I", block, at)[0] for at in (4, 24))
    return int(count) * (1024 << shift) if shift <= 6 else 0


def fixed_clock(epoch: int) -> dict[str, str]:
    """The environment under which e2fsprogs writes no time of its own."""
    return {"SOURCE_DATE_EPOCH": str(epoch), "E2FSPROGS_FAKE_TIME": str(epoch)}


def run_debugfs(run: Run, image: Path, script: Path, epoch: int) -> None:
    """Apply a debugfs script, in its folder; its words count: it ends with 0 after a failure."""
    argv = ["debugfs", "-w", "-f", script, image]
    folder = script.parent
    walled = caged_reader(argv, readable=[folder], writable=[image], folder=folder)
    output = run(walled, env=fixed_clock(epoch))
    refuse_complaints(output, image.name)


def refuse_complaints(output: str, name: str) -> None:
    """Raises PipelineError when debugfs said anything but what it did."""
    for line in output.splitlines():
        if line and not line.startswith(("debugfs", "Allocated inode:")):
            raise PipelineError(f"{name}: debugfs says: {line}")


def read_text(image: Path, path: str) -> str:
    """The content of one file in the image; raises PipelineError when it is not there."""
    return read_bytes(image, path).decode("utf-8", "replace")


def read_bytes(image: Path, path: str) -> bytes:
    """The same of any file of at most 16 MiB."""
    with ExtImage(image) as tree:
        found = tree.find(path)
        if found is None or found.kind != "file":
            raise PipelineError(f"{image.name}: no {path} in it", hint=_HINT)
        return tree.read(found, limit=MOST_FILE)


@dataclass(frozen=True)
class Places:
    """Where paths lead in an image: each folder's own path, and which files are there."""

    folders: dict[str, str]
    present: frozenset[str]

    def of(self, path: str) -> str:
        """A path whose folder goes through no link: debugfs does not follow every one."""
        parent, _, name = path.rpartition("/")
        return f"{self.folders.get(parent, parent)}/{name}"


def find_places(image: Path, parents: Iterable[str], paths: Iterable[str]) -> Places:
    """Which of these folders and files exist, and where, links followed inside the image.

    Raises PipelineError where an element left something else: a folder that is a file or a link to
    nowhere, a file that is a folder.
    """
    folders: dict[str, str] = {}
    present: set[str] = set()
    with ExtImage(image) as tree:
        for path in parents:
            found = tree.resolve(path)
            if found is not None and found[1].kind == "folder":
                if not _PLAIN.fullmatch(found[0]):
                    raise PipelineError(f"the guest's {path} leads to {found[0]!r}", hint=_HINT)
                folders[path] = found[0]
            elif found is not None or tree.find(path, follow_last=False) is not None:
                what = "is no folder" if found else "is a link to what is not there"
                raise PipelineError(f"the guest's {path} {what}", hint=_HINT)
        for path in paths:
            last = tree.find(path, follow_last=False)
            if last is not None and last.kind == "folder":
                raise PipelineError(f"the guest's {path} is a folder", hint=_HINT)
            present |= {path} if last else set()
    return Places(folders, frozenset(present))


def write_files(
    run: Run, image: Path, files: Iterable[IdentityFile], *, work: Path, epoch: int
) -> None:
    """Write files with root as owner, `epoch` as every time; missing parents are made, mode 0755.

    /root/.ssh is made with mode 0700. Raises PipelineError with debugfs's own words.
    """
    run_debugfs(run, image, plan_writing(image, files, work=work, epoch=epoch), epoch)


def plan_writing(image: Path, files: Iterable[IdentityFile], *, work: Path, epoch: int) -> Path:
    """The debugfs script, to be run in `work`, that writes these files into such an image."""
    entries = list(files)
    script = work / "script"
    parents = sorted({str(parent) for entry in entries for parent in _parents(entry.path)})
    places = find_places(image, parents, (entry.path for entry in entries))
    lines: list[str] = []
    for parent in parents:
        if parent not in places.folders:
            mode = 0o700 if parent.endswith("/.ssh") else 0o755
            path = places.of(parent)
            lines += [f'mkdir "{path}"', *_attributes(path, stat.S_IFDIR | mode, epoch)]
    for number, entry in enumerate(entries):
        path = places.of(entry.path)
        if entry.path in places.present:
            lines.append(f'rm "{path}"')
        if entry.link:
            lines.append(f'symlink "{path}" "{entry.link}"')
            continue
        source = work / f"file-{number}"
        make_private(source).write_bytes(entry.content)
        lines.append(f'write {source.name} "{path}"')
        lines += _attributes(path, stat.S_IFREG | entry.mode, epoch)
    script.write_text("\n".join(lines) + "\n")
    return script


def _parents(path: str) -> list[PurePosixPath]:
    return [parent for parent in PurePosixPath(path).parents if str(parent) != "/"]


def _attributes(path: str, mode: int, epoch: int) -> list[str]:
    group = 42 if path.endswith("/shadow") else 0  # shadow's group id is fixed in base-passwd
    values = {"mode": f"0{mode:o}", "uid": "0", "gid": str(group)}
    values |= dict.fromkeys(("atime", "ctime", "mtime", "crtime"), f"@{epoch}")
    return [f'sif "{path}" {name} {value}' for name, value in values.items()]
