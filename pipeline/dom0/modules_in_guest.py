"""A program: changes the modules in a guest whose file system is mounted, by openat2 beneath it.

    inside.py FOLDER-DESCRIPTOR put ABI ARCHIVE | back ABI | drop ABI...

No chroot, and nothing of the guest is ever looked for by a name: every module of Python is loaded
before the descriptor is used, no link of the guest is followed, no FIFO or device opened. It runs
in a cage that holds nothing but programs (`guest_root`). New modules are unpacked aside and take
their place in one exchange; those that were there before under the same name are kept as
.ABI.previous, which is what `back` returns to.
"""

import os
import stat
import sys
import tarfile
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from pipeline.errors import PipelineError
from pipeline.walls.beneath import Beneath, Escape

SPARE_BYTES = 8 << 20
NO_SPACE, REFUSED = 3, 5  # statuses, those of docs/reference/exit-codes.md
_OVERHEAD_BYTES = 4096
_FRESH = ".domu-fresh"  # in modules that took their place and may have to go back
_MERGED = ("usr/lib", "/usr/lib", "./usr/lib")


class NoSpace(PipelineError):
    """The guest's file system has no room."""


def main(words: list[str]) -> int:
    """Status 0, or another with a line that says why."""
    folder, what, *rest = words
    with ExitStack() as stack:
        if what == "put":
            archive = stack.enter_context(tarfile.open(rest[1], mode="r:"))
            members = archive.getmembers()
        os.fchdir(int(folder))
        tree = stack.enter_context(Beneath(Path("."), follow=False))
        os.chdir("/")
        try:
            modules = Modules(tree)
            if what == "put":
                modules.put(rest[0], archive, members)
            elif what == "back":
                modules.go_back(rest[0])
            else:
                for abi in rest:
                    modules.drop(abi)
        except NoSpace as error:
            print(error)
            return NO_SPACE
        except (PipelineError, OSError) as error:
            print(str(error).replace("./", "/", 1))
            return REFUSED if isinstance(error, Escape) else 1
    os.sync()
    return 0


class Modules:
    """/lib/modules of a guest, which may be /usr/lib/modules and nothing else."""

    def __init__(self, tree: Beneath) -> None:
        self._tree = tree
        lib = "lib"
        if tree.exists(lib) and stat.S_ISLNK(tree.stat(lib).st_mode):
            target = tree.readlink(lib).rstrip("/")
            if target not in _MERGED:
                raise Escape(f"/lib is a link to {target!r}, where no modules are written")
            lib = "usr/lib"
        self._root = f"{lib}/modules"

    def put(self, abi: str, archive: tarfile.TarFile, members: list[tarfile.TarInfo]) -> None:
        """Unpack the modules of an ABI and make them the ones that are used."""
        tree, (new, current, previous) = self._tree, self._paths(abi)
        tree.make_folders(self._root, uid=0, gid=0)
        tree.remove(new, missing_ok=True)
        self._refuse_full(members)
        if self._is_plain(current):
            tree.unlink(f"{current}/{_FRESH}", missing_ok=True)
        tree.make_folder(new, uid=0, gid=0)
        tree.write(f"{new}/{_FRESH}", b"", mode=0o644, uid=0, gid=0)
        for member in members:
            self._extract(archive, member, abi, new)
        if tree.exists(current):
            tree.remove(previous, missing_ok=True)
            tree.exchange(new, current)
            tree.rename(new, previous)
        else:
            tree.rename(new, current)
        tree.unlink(f"{current}/{_FRESH}")

    def go_back(self, abi: str) -> None:
        """Use the modules again that were there before; those of now are removed."""
        tree, (new, current, previous) = self._tree, self._paths(abi)
        is_exchanged = self._is_plain(current) and tree.exists(f"{current}/{_FRESH}")
        older = previous if tree.exists(previous) else new
        if tree.exists(older) and (older == previous or is_exchanged):
            tree.exchange(older, current)
        for path in (new, previous):
            tree.remove(path, missing_ok=True)

    def drop(self, abi: str) -> None:
        """Remove the modules of an ABI; "-previous" after it means only those kept for `back`."""
        name = abi.removesuffix("-previous")
        new, current, previous = self._paths(name)
        for path in (new, previous) if name != abi else (new, current, previous):
            self._tree.remove(path, missing_ok=True)

    def _paths(self, abi: str) -> tuple[str, str, str]:
        if "/" in abi or not abi or abi.startswith("."):
            raise Escape(f"{abi!r} is no ABI")
        return f"{self._root}/.{abi}.new", f"{self._root}/{abi}", f"{self._root}/.{abi}.previous"

    def _is_plain(self, path: str) -> bool:
        """Whether there is a folder, no link to one."""
        return self._tree.exists(path) and stat.S_ISDIR(self._tree.stat(path).st_mode)

    def _refuse_full(self, members: list[tarfile.TarInfo]) -> None:
        need = sum(member.size + _OVERHEAD_BYTES for member in members) + SPARE_BYTES
        folder = self._tree.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        state = os.fstatvfs(folder)
        os.close(folder)
        free = state.f_bavail * state.f_frsize
        if free < need:
            raise NoSpace(f"no space: {need >> 20} MiB needed, {free >> 20} MiB free in the guest")

    def _extract(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, abi: str, new: str
    ) -> None:
        inside = PurePosixPath(member.name.removeprefix("./")).relative_to(f"lib/modules/{abi}")
        if ".." in inside.parts:
            raise Escape(f"{member.name} leads out of the archive")
        target, mode = f"{new}/{inside}", member.mode & 0o755 | 0o200
        if member.isdir():
            self._tree.make_folders(target, mode=mode, uid=0, gid=0)
            return
        self._tree.make_folders(str(PurePosixPath(target).parent), uid=0, gid=0)
        time_s = int(member.mtime)
        if member.issym():
            self._tree.symlink(member.linkname, target, uid=0, gid=0, mtime_s=time_s)
        elif member.isfile():
            stream = archive.extractfile(member)
            assert stream is not None
            content = stream.read(member.size)
            self._tree.write(target, content, mode=mode, uid=0, gid=0, mtime_s=time_s)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
