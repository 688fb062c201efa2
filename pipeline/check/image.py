"""Reading a finished image without mounting it, by storage.ext.

Whoever was root in the guest chose every name and every byte. What cannot be read, or is more than
any guest needs, is noted as a fault of the image and left out.
"""

import stat
from collections.abc import Iterable
from dataclasses import replace

from pipeline.check.tree import Node, Tree
from pipeline.errors import VerificationError
from pipeline.storage.ext import DamagedImage, ExtImage, Inode

MIB = 1 << 20
MOST_NODES = 200_000
MOST_DEPTH = 50
MOST_FILE, MOST_BYTES = 16 * MIB, 64 * MIB  # of one file and of all, but for kernel and initrd
_MOST_FOLDERS = 20_000  # of modules; a kernel's are 600
_MOST_FAULTS = 20
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
_REBUILD = "build the guest again, with replace=yes"


class ImageReader:
    """Reads what the checks ask for out of a guest's tree."""

    def __init__(self, image: ExtImage) -> None:
        self._image = image
        self._nodes: dict[str, Node] = {}
        self._faults: list[str] = []
        self._room = MOST_BYTES

    def read_tree(self, zones: Iterable[str]) -> Tree:
        """/etc with contents, and names, owners and modes of what else the checks ask for.

        `zones` are further folders to list. Raises VerificationError where there is no /etc.
        """
        etc = self._find("/etc")
        if etc is None or etc.kind != "folder":
            raise VerificationError("the disk has no /etc in it, so no guest", hint=_REBUILD)
        self._list([*_LISTED, *zones])
        self._walk("/etc", etc)
        self.read_files([*_READ, *self._below("/root/.ssh/"), *self._below("/boot/grub/")])
        self._read_homes()
        self._read_modules()
        return Tree(self._nodes)

    def read_files(self, paths: Iterable[str], *, limit: int = MOST_FILE) -> None:
        """Add the contents of these files to the tree; links are followed inside the guest."""
        for path in dict.fromkeys(paths):
            inode = self._find(path)
            if inode is not None and inode.kind == "file":
                node = self._nodes.get(path) or _make_node(inode)
                self._nodes[path] = replace(node, content=self._read(path, inode, limit))

    @property
    def faults(self) -> list[str]:
        """What could not be read, and why; names that are none."""
        return [*self._faults, *sorted(self._image.odd_names)]

    def _walk(self, top: str, folder: Inode) -> None:
        """All below a folder, file contents and targets of links too, each folder once."""
        seen = {folder.number}
        waiting = [(top, folder.number, 0)]
        while waiting:
            path, number, depth = waiting.pop()
            for name, inode in self._entries(path, number):
                inside = f"{path}/{name}"
                node = self._nodes.setdefault(inside, _make_node(inode))
                if inode.kind == "folder" and depth >= MOST_DEPTH:
                    self._note(f"{path}: folders deeper than {MOST_DEPTH}")
                elif inode.kind == "folder" and inode.number in seen:
                    self._note(f"{inside}: a folder that stands in several places")
                elif inode.kind == "folder":
                    seen.add(inode.number)
                    waiting.append((inside, inode.number, depth + 1))
                elif inode.kind == "file":
                    content = self._read(inside, inode, MOST_FILE)
                    self._nodes[inside] = replace(node, content=content)
                elif inode.kind == "link":
                    self._nodes[inside] = replace(node, target=self._target(inside, inode))

    def _read_homes(self) -> None:
        """The .ssh folders of everybody but root."""
        passwd = Tree(self._nodes).text("/etc/passwd")
        homes = {line.split(":")[5].rstrip("/") for line in passwd.splitlines() if _is_entry(line)}
        folders = sorted(f"{home}/.ssh" for home in homes - {"/root", ""})
        self._list(folders)
        self.read_files(path for folder in folders for path in self._below(f"{folder}/"))

    def _read_modules(self) -> None:
        """The indexes of each kernel's modules, and the names in every folder they mention."""
        below = self._below("/lib/modules/")
        kernels = [path for path in below if self._nodes[path].kind == "folder"]
        self._list(kernels)
        self.read_files(f"{kernel}/{name}" for kernel in kernels for name in _INDEXES)
        folders: set[str] = set()
        for kernel in kernels:
            index = Tree(self._nodes).text(f"{kernel}/modules.dep", limit=MOST_FILE)
            for line in index.splitlines():
                path = line.partition(":")[0].removeprefix(f"{kernel}/")  # old ones begin at /
                folders.add(f"{kernel}/{path.rpartition('/')[0]}")
        if len(folders) > _MOST_FOLDERS:
            self._note(f"modules.dep: it names {len(folders)} folders")
        self._list(sorted(folders)[:_MOST_FOLDERS])

    def _below(self, start: str) -> list[str]:
        return sorted(path for path in self._nodes if path.startswith(start))

    def _list(self, folders: Iterable[str]) -> None:
        for folder in dict.fromkeys(folders):
            inode = self._find(folder)
            if inode is not None and inode.kind == "folder":
                for name, inside in self._entries(folder, inode.number):
                    self._nodes.setdefault(f"{folder.rstrip('/')}/{name}", _make_node(inside))

    def _entries(self, path: str, folder: int) -> Iterable[tuple[str, Inode]]:
        """Name and inode of what a folder holds and can be read."""
        try:
            entries = self._image.entries(folder)
        except DamagedImage as fault:
            self._note(f"{path}: {fault}")
            return
        for name, number in entries.items():
            if len(self._nodes) >= MOST_NODES:
                self._note(f"{path}: more than {MOST_NODES} files: the rest is not read")
                return
            try:
                yield name, self._image.inode(number)
            except DamagedImage as fault:
                self._note(f"{path}/{name}: {fault}")

    def _find(self, path: str) -> Inode | None:
        try:
            return self._image.find(path)
        except DamagedImage as fault:
            self._note(f"{path}: {fault}")
            return None

    def _read(self, path: str, inode: Inode, limit: int) -> bytes | None:
        is_usual = limit <= MOST_FILE
        try:
            content = self._image.read(inode, limit=min(limit, self._room) if is_usual else limit)
        except DamagedImage as fault:
            self._note(f"{path}: {fault}")
            return None
        self._room -= len(content) if is_usual else 0
        return content

    def _target(self, path: str, inode: Inode) -> str:
        try:
            return self._image.read_link(inode)
        except DamagedImage as fault:
            self._note(f"{path}: {fault}")
            return ""

    def _note(self, fault: str) -> None:
        if len(self._faults) < _MOST_FAULTS and fault not in self._faults:
            self._faults.append(fault)


def _make_node(inode: Inode) -> Node:
    return Node(inode.kind, stat.S_IMODE(inode.mode), inode.owner, inode.group)


def _is_entry(line: str) -> bool:
    return line.count(":") == 6
