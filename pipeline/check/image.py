"""Reading a finished image without mounting it: debugfs(8), dumpe2fs(8), e2fsck(8), read only."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.check.tree import Node, Tree
from pipeline.command import run
from pipeline.errors import VerificationError

_LISTED = (
    *("/", "/root", "/root/.ssh", "/boot", "/boot/grub", "/usr/sbin", "/sbin", "/lib/modules"),
    *("/lib/systemd", "/lib/systemd/system", "/lib/systemd/system/sysinit.target.wants"),
    *("/usr/lib/systemd", "/usr/lib/systemd/system"),
    *("/var/lib/apt/lists", "/var/lib/apt/lists/partial"),
    *("/var/cache/apt", "/var/cache/apt/archives", "/var/cache/apt/archives/partial"),
    *("/dev", "/tmp", "/run"),
)
_READ = ("/var/lib/dpkg/status", "/var/cache/debconf/config.dat")
_INDEXES = ("modules.dep", "modules.builtin")
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
_COMMAND = re.compile(r"^debugfs: (.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class FileSystem:
    """What the superblock says and e2fsck finds. `faults` is "" for a clean file system."""

    features: frozenset[str]
    uuid: str
    size: int
    faults: str


class ImageReader:
    """Reads one ext2, ext3 or ext4 image; `work` is a private folder for what is taken out."""

    def __init__(self, image: Path, work: Path) -> None:
        self._image = image
        self._work = work
        self._nodes: dict[str, Node] = {}
        self._taken = 0

    def read_tree(self, zones: Iterable[str]) -> Tree:
        """/etc with contents, and names, owners and modes of what else the checks ask for.

        `zones` are further folders to list.
        """
        self._work.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._run([f'rdump "/etc" "{self._work}"'])
        taken = self._work / "etc"
        if not taken.is_dir():
            raise VerificationError(f"{self._image}: no /etc in it, so no guest", hint=_REBUILD)
        folders = ["/etc", *(f"/etc/{folder}" for folder in _folders_below(taken))]
        self._list([*_LISTED, *zones, *folders])
        for path in self._below("/etc/"):
            node = self._nodes[path]
            found = taken / path.removeprefix("/etc/")
            if node.kind == "file" and found.is_file():
                self._nodes[path] = _with_content(node, found.read_bytes())
            elif node.kind == "link" and found.is_symlink():
                self._nodes[path] = _with_target(node, os.readlink(found))
        self._read([*_READ, *self._below("/root/.ssh/"), *self._below("/boot/grub/")])
        self._read_homes()
        self._read_modules()
        return Tree(self._nodes)

    def read_files(self, paths: Iterable[str]) -> None:
        """Add the contents of these files to the tree."""
        self._read(paths)

    def _read_homes(self) -> None:
        """The .ssh folders of everybody but root."""
        passwd = Tree(self._nodes).text("/etc/passwd")
        homes = {line.split(":")[5].rstrip("/") for line in passwd.splitlines() if _is_entry(line)}
        folders = sorted(f"{home}/.ssh" for home in homes - {"/root", ""} if '"' not in home)
        self._list(folders)
        self._read(path for folder in folders for path in self._below(f"{folder}/"))

    def _read_modules(self) -> None:
        """The indexes of each kernel's modules, and the names in every folder they mention."""
        kernels = [path for path in self._below("/lib/modules/") if self._is_folder(path)]
        self._list(kernels)
        self._read(f"{kernel}/{name}" for kernel in kernels for name in _INDEXES)
        folders: set[str] = set()
        for kernel in kernels:
            index = self._nodes.get(f"{kernel}/modules.dep")
            for line in ((index.content if index else None) or b"").decode().splitlines():
                path = line.partition(":")[0].removeprefix(f"{kernel}/")  # old ones begin at /
                folders.add(f"{kernel}/{path.rpartition('/')[0]}")
        self._list(sorted(folders))

    def _is_folder(self, path: str) -> bool:
        return self._nodes[path].kind == "folder"

    def _below(self, start: str) -> list[str]:
        return sorted(path for path in self._nodes if path.startswith(start))

    def _list(self, folders: Iterable[str]) -> None:
        wanted = list(dict.fromkeys(folders))
        parts = self._run(f'ls -p "{folder}"' for folder in wanted)
        for folder, part in zip(wanted, parts, strict=True):
            for line in part.splitlines():
                fields = line.split("/")
                # /inode/mode/owner/group/name/size/
                if len(fields) == 8 and fields[5] not in (".", "..", ""):
                    path = f"{folder.rstrip('/')}/{fields[5]}"
                    self._nodes.setdefault(path, _make_node(fields))

    def _read(self, paths: Iterable[str]) -> None:
        wanted = {}
        for path in dict.fromkeys(paths):
            if '"' not in path:
                wanted[path] = self._work / f"taken-{self._taken}"
                self._taken += 1
        self._run(f'dump "{path}" "{target}"' for path, target in wanted.items())
        for path, target in wanted.items():
            if target.is_file():
                node = self._nodes.get(path, Node("file"))
                if node.kind != "folder":
                    self._nodes[path] = _with_content(node, target.read_bytes())

    def _run(self, commands: Iterable[str]) -> list[str]:
        """The output of each command; debugfs says in words, not by its status, what failed."""
        lines = list(commands)
        if not lines:
            return []
        script = self._work / "script"
        script.write_text("".join(f"{line}\n" for line in lines))
        output = run(["debugfs", "-f", script, self._image])
        parts = _COMMAND.split(output)[2::2]
        if len(parts) != len(lines):
            raise VerificationError(
                f"{self._image}: debugfs cannot read it", details=output[-2000:], hint=_REBUILD
            )
        return parts


_REBUILD = "build the guest again, with replace=yes"


def read_file_system(image: Path) -> FileSystem:
    """The superblock's facts, and e2fsck's opinion of the whole (-n: it changes nothing)."""
    header = run(["dumpe2fs", "-h", image], accept=(0, 1))
    fields = dict(re.findall(r"^([^:\n]+):[ \t]+(.*)$", header, re.MULTILINE))
    if "Block count" not in fields:
        return FileSystem(features=frozenset(), uuid="", size=0, faults="no ext file system")
    words = run(["e2fsck", "-f", "-n", image], accept=tuple(range(16)))
    faults = [line for line in words.splitlines() if _is_fault(line)]
    return FileSystem(
        features=frozenset(fields["Filesystem features"].split()),
        uuid=fields["Filesystem UUID"],
        size=int(fields["Block count"]) * int(fields["Block size"]),
        faults="; ".join(faults[:3]),
    )


def _is_fault(line: str) -> bool:
    """e2fsck's report of a clean file system is its name, five passes and the counts."""
    line = line.strip()
    return bool(line) and not re.match(r"e2fsck \d|Pass \d|.*: \d+/\d+ files \(", line)


def _make_node(fields: list[str]) -> Node:
    mode = int(fields[2], 8)
    kind = _KINDS.get(stat.S_IFMT(mode), "other")
    return Node(kind, stat.S_IMODE(mode), int(fields[3]), int(fields[4]))


def _with_content(node: Node, content: bytes) -> Node:
    return Node(node.kind, node.mode, node.owner, node.group, content)


def _with_target(node: Node, target: str) -> Node:
    return Node(node.kind, node.mode, node.owner, node.group, None, target)


def _folders_below(root: Path) -> list[str]:
    found = []
    for folder, names, _files in os.walk(root):
        here = Path(folder)
        found += [
            (here / name).relative_to(root).as_posix()
            for name in names
            if not (here / name).is_symlink()
        ]
    return sorted(found)


def _is_entry(line: str) -> bool:
    return line.count(":") == 6
