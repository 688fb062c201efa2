"""Placing the files of many packages into one tree at the same time.

What dpkg does one package after the other (its src/main/archives.c, tarobject): directories that
are there keep their owner and mode, a link to a directory is followed, conffiles wait under
`.dpkg-new` until they are configured. Nothing here replaces a file: two packages with the same
path, under its own name or through a linked directory, are an error.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from pathlib import Path

from pipeline.bootstrap.archive import Member, damaged
from pipeline.errors import PipelineError

PENDING = ".dpkg-new"
_LINKS_MAX = 40


class Tree:
    """A tree that several threads fill; paths are absolute in it and cannot lead out of it."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._folders: dict[str, str] = {"/": self.root, "": self.root}
        self._claims: dict[str, tuple[int, int, int, str]] = {}
        self._ages: dict[str, int] = {}

    def place(self, member: Member, tar: bytes, *, package: str, pending: Collection[str]) -> None:
        """Make one entry of a package's tar; `pending` are the conffiles.

        Raises PipelineError when the path is taken, or for a kind that no package of a base has.
        """
        if member.path == "/.":
            return
        suffix = PENDING if member.path in pending else ""
        try:
            path = self.locate(member.path) + suffix
            if member.kind == "5":
                self._make_folder(path, member, package)
            elif member.kind == "0":
                _write_file(path, member, tar)
            elif member.kind == "1":
                self._link(path, member, package, pending)
            elif member.kind == "2":
                _make_symlink(path, member)
            else:
                raise damaged(package, f"{member.path} is a device or a pipe")
        except FileExistsError:
            raise _taken(member.path, package) from None
        except FileNotFoundError:
            raise damaged(package, f"it ships {member.path} without its folder") from None

    def settle(self) -> None:
        """Give empty folders their package's time; the others got theirs from what is in them."""
        for path, mtime in self._ages.items():
            if not os.listdir(path):
                os.utime(path, (mtime, mtime))
        self._ages.clear()

    def locate(self, path: str) -> str:
        """Where a path of the tree is on the host; links on the way to it are followed."""
        parent, _, name = path.rpartition("/")
        return f"{self._folder(parent)}/{name}"

    def _folder(self, path: str) -> str:
        found = self._folders.get(path)
        if found is None:
            found = self._follow(path)
            self._folders[path] = found
        return found

    def _follow(self, path: str) -> str:
        """A folder's real place: an absolute link starts at the tree's root, not at the host's."""
        for _ in range(_LINKS_MAX):
            parent, _, name = path.rpartition("/")
            real = f"{self._folder(parent)}/{name}"
            try:
                target = os.readlink(real)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return real
                raise
            above = self._folder(parent)[len(self.root) :]
            path = os.path.normpath(os.path.join("/", above, target))
            if path in self._folders:
                return self._folders[path]
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)

    def _make_folder(self, path: str, member: Member, package: str) -> None:
        claim = (member.mode, member.uid, member.gid, package)
        self._ages[path] = max(member.mtime, self._ages.get(path, 0))
        first = self._claims.setdefault(path, claim)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
            if first[:3] != claim[:3] and not os.path.islink(path):
                raise _disagree(member.path, first, claim) from None
            return
        os.chown(path, member.uid, member.gid)
        os.chmod(path, member.mode)

    def _link(self, path: str, member: Member, package: str, pending: Collection[str]) -> None:
        target = "/" + member.target.removeprefix("./").lstrip("/")
        suffix = PENDING if target in pending else ""
        try:
            os.link(self.locate(target) + suffix, path, follow_symlinks=False)
        except FileNotFoundError:
            raise damaged(package, f"{member.path} is a link to nothing") from None


def _write_file(path: str, member: Member, tar: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        content = memoryview(tar)[member.start : member.start + member.size]
        while content:
            content = content[os.write(descriptor, content) :]
        # the group would else be that of a setgid folder; chown takes setuid away, so it is first
        os.fchown(descriptor, member.uid, member.gid)
        os.fchmod(descriptor, member.mode)
        os.utime(descriptor, (member.mtime, member.mtime))
    finally:
        os.close(descriptor)


def _make_symlink(path: str, member: Member) -> None:
    try:
        os.symlink(member.target, path)
    except FileExistsError:
        if os.path.islink(path) and os.readlink(path) == member.target:
            return
        raise
    os.lchown(path, member.uid, member.gid)
    os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


def _taken(path: str, package: str) -> PipelineError:
    return PipelineError(
        f"package {package}: another one ships {path} too",
        hint="use bootstrap=mmdebstrap, which unpacks one after the other and knows Replaces",
    )


def _disagree(
    path: str, first: tuple[int, int, int, str], second: tuple[int, int, int, str]
) -> PipelineError:
    said = [f"{who}: {mode:o} {uid}:{gid}" for mode, uid, gid, who in (first, second)]
    return PipelineError(
        f"packages disagree about the folder {path} ({'; '.join(said)})",
        hint="use bootstrap=mmdebstrap, where the first one in order decides",
    )
