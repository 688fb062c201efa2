"""Making file systems that hold a tree: ext by mke2fs -d, xfs and btrfs by mounting.

An ext file system needs no mount and no root. The kernel alone writes the other two: they are
mounted from a loop device in the command's own mount namespace, where both die with it.
"""

import base64
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentFault, PipelineError
from pipeline.locks import locked
from pipeline.namespace import Mount
from pipeline.process import require_tools
from pipeline.spec import Spec
from pipeline.storage.ext import IdentityFile
from pipeline.storage.root_place import Place
from pipeline.walls.beneath import Beneath, Escape
from pipeline.walls.cage import caged_reader
from pipeline.walls.errand import carry_out, send
from pipeline.walls.privacy import make_private

MIB = 1 << 20
JOURNAL_MIB, SLACK_MIB = 64, 96
MOUNTED = ("xfs", "btrfs")
TOOLS = {
    "xfs": {"mkfs.xfs": "xfsprogs", "xfs_growfs": "xfsprogs", "xfs_admin": "xfsprogs"},
    "btrfs": {"mkfs.btrfs": "btrfs-progs", "btrfstune": "btrfs-progs", "btrfs": "btrfs-progs"},
}
_EXTENDED = "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=1,nodiscard"
# what mkfs.xfs makes by default, and the kernel that can mount it (mkfs.xfs(8), LWN on each)
_XFS_SINCE = (
    ((5, 19), "-i", "nrext64=0"),
    ((5, 10), "-m", "bigtime=0,inobtcount=0"),
    ((4, 9), "-m", "reflink=0"),
    ((4, 2), "-i", "sparse=0"),
    ((3, 16), "-m", "finobt=0"),
)
_BYTES_PER_INODE, _INODE = 8192, 512
_BTRFS_LOCK = Path("/run/lock/domu-btrfs.lock")
_LEAST_MIB = {"xfs": 320, "btrfs": 192}

Command = list[object]
_INERT = "nosuid,nodev,noexec"
# never written to when it is only looked at, its journal neither
_READ_ONLY = {"xfs": "ro,norecovery", "btrfs": "ro,rescue=nologreplay"}
_WRITABLE = {"xfs": "rw,nouuid", "btrfs": "rw"}
EXT = ("ext2", "ext3", "ext4")


@dataclass(frozen=True)
class Content:
    """What of the tree one file system holds: its mount point, megabytes, its folder's mode.

    `files` are its inodes, `block_mib` what they take in blocks of 4 KiB.
    """

    mountpoint: str
    fs: str
    mib: int
    mode: int = 0o755
    files: int = 0
    block_mib: int = 0

    @property
    def size_mib(self) -> int:
        """Big enough for the content with its rounding to blocks, the inodes and the journal."""
        usual = self.mib * 5 // 4 + JOURNAL_MIB + SLACK_MIB
        least = (
            self.block_mib * 21 // 20 + self.files * _INODE // MIB + JOURNAL_MIB + SLACK_MIB // 2
        )
        return max((max(usual, least) + 63) // 64 * 64, _LEAST_MIB.get(self.fs, 0))

    @property
    def inodes(self) -> int:
        """How many inodes to ask for; 0 where one for every 8 KiB are enough."""
        usual = self.size_mib * MIB // _BYTES_PER_INODE
        return self.files * 5 // 4 if self.files * 11 // 10 + 1000 > usual else 0


@dataclass(frozen=True, kw_only=True)
class FileSystemAt:
    """A file system of the guest, and where it is mounted in it."""

    place: Place
    fs: str
    mountpoint: str = "/"

    def mount_argv(self, *, writable: bool) -> list[str]:
        """mount(8) of it, but for its target."""
        options = [_INERT]
        if self.fs in EXT:
            options.append("rw,errors=remount-ro" if writable else "ro,errors=remount-ro")
            if not writable and self.fs != "ext2":
                options.append("noload")
        else:
            options.append((_WRITABLE if writable else _READ_ONLY)[self.fs])
            options += ["nouuid"] if self.fs == "xfs" and not writable else []
        options += self.place.mount_options
        return ["mount", "-t", self.fs, "-o", ",".join(options), str(self.place.disk)]


def require_mounting(kinds: Iterable[str]) -> None:
    """Raises EnvironmentFault for a file system that only root can fill, or without its tools."""
    for kind in sorted(set(kinds) & set(MOUNTED)):
        if os.geteuid() != 0:
            raise EnvironmentFault(
                f"fs={kind}: only root can mount it, and it is filled or read in no other way",
                hint="start as root, or write fs = 'ext4'",
            )
        if not Path("/dev/loop-control").exists():
            raise EnvironmentFault(
                f"fs={kind}: there is no /dev/loop-control", hint="modprobe loop, or fs = 'ext4'"
            )
        require_tools(TOOLS[kind])


@contextmanager
def one_at_a_time(kinds: Iterable[str]) -> Iterator[None]:
    """For btrfs a lock of the machine: the kernel takes images with one UUID for one file system.

    The golden image of the same tree has the same UUID in every output folder.
    """
    with locked(_BTRFS_LOCK) if "btrfs" in kinds else nullcontext():
        yield


def make_commands(
    content: Content, *, spec: Spec, tree: Path, image: Path, uuid: str
) -> list[Command]:
    """The commands that make an image of a folder, the last of them the one that ends it."""
    if content.fs in MOUNTED:
        return _mounted_commands(content, spec=spec, tree=tree, image=image, uuid=uuid)
    return [_mke2fs(content, spec=spec, tree=tree, image=image, uuid=uuid)]


def _mke2fs(content: Content, *, spec: Spec, tree: Path, image: Path, uuid: str) -> Command:
    suite = spec.suite_facts
    argv: Command = ["mke2fs", "-q", "-F", "-t", content.fs]
    argv += ["-O", spec.mke2fs_features(content.fs), "-b", "4096", "-i", _BYTES_PER_INODE]
    argv += ["-N", content.inodes] if content.inodes else []
    argv += ["-I", suite.inode_size, "-U", uuid, "-L", label(content), "-m", "1", "-d", tree]
    argv += ["-J", f"size={JOURNAL_MIB}"] if content.fs != "ext2" else []
    return [*argv, "-E", f"hash_seed={uuid},{_EXTENDED}", image, f"{content.size_mib}M"]


def _mounted_commands(
    content: Content, *, spec: Spec, tree: Path, image: Path, uuid: str
) -> list[Command]:
    mount_point = image.with_suffix(".mnt")
    if content.fs == "xfs":
        make: Command = ["mkfs.xfs", "-q", "-m", f"uuid={uuid}", "-L", label(content)]
        make += [word for since, *words in _XFS_SINCE if spec.linux < since for word in words]
    else:
        make = ["mkfs.btrfs", "-q", "-U", uuid, "-L", label(content)]
        make += ["-O", "^free-space-tree"] if spec.linux < (4, 9) else []
    return [
        ["truncate", "-s", f"{content.size_mib}M", image],
        [*make, image],
        ["mkdir", "-p", mount_point],
        ["mount", "-o", "loop", image, mount_point],
        ["cp", "-a", f"{tree}/.", mount_point],
        ["umount", mount_point],
        ["rmdir", mount_point],
    ]


def label(content: Content) -> str:
    """root, or the mount point's letters; xfs has room for 12."""
    name = content.mountpoint.strip("/").replace("/", "-") or "root"
    return name[:12]


def measure_tree(names: str, layout: Sequence[tuple[str, str]], total_mib: int) -> list[Content]:
    """What each file system of a layout will hold, by `tar -tv`'s listing of the whole tree.

    With a single file system `total_mib` is its size: that of the tar. Raises PipelineError for a
    mount point that a link in the tree leads to.
    """
    sizes = dict.fromkeys((mountpoint for mountpoint, _ in layout), 0)
    modes = dict.fromkeys(sizes, 0o755)
    files, folders = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0)
    nearest = sorted(sizes, key=len, reverse=True)
    for mode, size, path in _LISTED.findall(names):
        absolute = "/" + path.removeprefix("./").rstrip("/")
        if mode[0] == "l" and any(f"{point}/".startswith(f"{absolute}/") for point in sizes):
            raise PipelineError(
                f"a partition below {absolute}, which is a link in the guest's tree",
                hint="name the folder itself, or mend the element that made the link",
            )
        if absolute in modes:
            modes[absolute] = _read_mode(mode)
        home = next(one for one in nearest if one == "/" or f"{absolute}/".startswith(f"{one}/"))
        sizes[home] += (int(size) + 4095) // 4096 * 4096
        files[home] += mode[0] != "h"  # a further name of a file
        folders[home] += mode[0] == "d"
    is_single = len(layout) == 1
    return [
        Content(
            *(mountpoint, fs, total_mib if is_single else sizes[mountpoint] // MIB + 1),
            mode=0o755 if is_single else modes[mountpoint],
            files=files[mountpoint],
            block_mib=(sizes[mountpoint] + 4096 * folders[mountpoint]) // MIB + 1,
        )
        for mountpoint, fs in layout
    ]


# drwxr-xr-x 0/0  0 2026-01-01 00:00 ./var
_LISTED = re.compile(r"^([-dlhcbps][rwxsStT-]{9})\S* \S+ +([\d,]+) \S+ \S+ (\S+)", re.MULTILINE)


def _read_mode(text: str) -> int:
    """The permission bits of ls's letters."""
    bits = sum(1 << (8 - at) for at, letter in enumerate(text[1:]) if letter in "rwxst")
    special = {3: 0o4000, 6: 0o2000, 9: 0o1000}
    return bits | sum(bit for at, bit in special.items() if text[at] in "sStT")


Run = Callable[..., str]
_SHADOW_GROUP = 42  # fixed in base-passwd
_WRITER = (
    *("setpriv", "--no-new-privs", "--inh-caps=-all"),
    *("--bounding-set=-all,+chown,+dac_override,+fowner", "--"),
)


def make_own_mounted(
    run: Run,
    disk: Path,
    *,
    fs: str,
    uuid: str,
    files: Iterable[IdentityFile],
    work: Path,
    epoch: int,
    size_bytes: int,
) -> None:
    """Give a file or device its UUID, the guest's own files and its size; check it afterwards.

    Links of the guest are followed inside it. Raises PipelineError for what leads nowhere.
    """
    require_mounting([fs])
    if disk.is_file():
        with open(disk, "r+b") as stream:
            stream.truncate(size_bytes)
    new_uuid: dict[str, list[object]] = {
        "xfs": ["xfs_admin", "-U", uuid, disk],
        "btrfs": ["btrfstune", "-f", "-U", uuid, disk],
    }
    order = [_describe(file, epoch) for file in files]
    room = disk.parent if disk.is_file() else work
    with one_at_a_time([fs]):
        run(caged_reader(new_uuid[fs], writable=[disk]))
        _write_and_grow(run, disk, fs, order, room=room, work=work)
        check_mounted(run, disk, fs)


def _write_and_grow(
    run: Run, disk: Path, fs: str, files: list[dict[str, Any]], *, room: Path, work: Path
) -> None:
    """One mount for both, in a cage that sees `room` and, for a device, the machine's devices."""
    point, file = work / "mounted", make_private(work / "own.json")
    point.mkdir(exist_ok=True)
    grow: dict[str, list[object]] = {
        "xfs": ["xfs_growfs", "-d", point],
        "btrfs": ["btrfs", "filesystem", "resize", "max", point],
    }
    options = f"loop,{_INERT}" if disk.is_file() else _INERT
    send(
        "pipeline.storage.filesystems",
        {"point": str(point), "files": files},
        file=file,
        room=room,
        run=run,
        mounts=[Mount(point, fs, str(disk), options)],
        rights=_WRITER,
        after=[grow[fs], ["umount", point]],
        mounts_files=True,
    )
    file.unlink()
    point.rmdir()


def check_mounted(run: Run, disk: Path, fs: str) -> None:
    """Raises CommandFailed when the file system is not sound; nothing is repaired."""
    check: dict[str, list[object]] = {
        "xfs": ["xfs_repair", "-n", *(["-f"] if disk.is_file() else []), disk],
        "btrfs": ["btrfs", "check", "--readonly", disk],
    }
    run(caged_reader(check[fs], readable=[disk]))


def _describe(file: IdentityFile, epoch: int) -> dict[str, Any]:
    content = base64.b64encode(file.content).decode()
    group = _SHADOW_GROUP if file.path == "/etc/shadow" else 0
    return {
        **{"path": file.path, "content": content, "mode": file.mode},
        **{"link": file.link, "group": group, "epoch": epoch},
    }


def write_own(order: dict[str, Any]) -> None:
    """Write the files as ext.write_files does: owner root, one time for all."""
    with Beneath(Path(order["point"])) as tree:
        for file in order["files"]:
            path = str(file["path"])
            parent = path.rpartition("/")[0]
            if parent.endswith("/.ssh"):
                tree.make_folders(parent.removesuffix("/.ssh"))
                if not tree.exists(parent):
                    tree.make_folder(parent, mode=0o700)
            tree.make_folders(parent)
            if tree.exists(path) and stat.S_ISDIR(tree.stat(path).st_mode):
                raise Escape(f"the guest's {path} is a folder", hint="an element left it so")
            if file["link"]:
                tree.unlink(path, missing_ok=True)
                tree.symlink(file["link"], path, mtime_s=file["epoch"])
            else:
                tree.write(
                    *(path, base64.b64decode(file["content"])),
                    mode=file["mode"],
                    gid=file["group"],
                    mtime_s=file["epoch"],
                    replace=True,
                )


if __name__ == "__main__":
    sys.exit(carry_out(write_own))
