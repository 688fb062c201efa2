"""Placing the files of many packages into one tree at the same time.

What dpkg does one package after the other (its src/main/archives.c, tarobject): directories that
are there keep their owner and mode, a link to a directory is followed, conffiles wait under
`.dpkg-new` until they are configured. Nothing here replaces a file: two packages with the same
path, under its own name or through a linked directory, are an error. Every path is looked up anew,
below the tree: what a script has made of a folder meanwhile counts, as a chroot would see it.
"""

import stat
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from pipeline.bootstrap.deb import Member, damaged, not_written
from pipeline.errors import PipelineError
from pipeline.walls.beneath import Beneath, Escape

PENDING = ".dpkg-new"
_Identity = tuple[int, int]  # of a folder: its device and inode


class _Claim(NamedTuple):
    """What a package says of a folder that it ships."""

    rights: tuple[int, int, int]
    package: str
    path: str


class Tree:
    """A tree that several threads fill; paths are absolute in it and cannot lead out of it."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._beneath = Beneath(root)
        self._lock = threading.Lock()
        self._claims: dict[_Identity, _Claim] = {}
        self._ages: dict[_Identity, tuple[int, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._beneath.close()

    def place(self, member: Member, tar: bytes, *, package: str, pending: Collection[str]) -> None:
        """Make one entry of a package's tar; `pending` are the conffiles.

        Raises PipelineError when the path is taken or leads out of the tree, and for a kind that
        no package of a base has.
        """
        if member.path == "/.":
            return
        path = member.path + (PENDING if member.path in pending else "")
        try:
            if member.kind == "5":
                self._make_folder(path, member, package)
            elif member.kind == "0":
                self._write_file(path, member, tar)
            elif member.kind == "1":
                self._link(path, member, package, pending)
            elif member.kind == "2":
                self._make_symlink(path, member)
            else:
                raise damaged(package, f"{member.path} is a device or a pipe")
        except Escape as error:
            reason = f"{member.path} leads out of the tree, or round in a circle"
            raise damaged(package, reason) from error
        except FileExistsError:
            raise _taken(member.path, package) from None
        except FileNotFoundError:
            raise damaged(package, f"it ships {member.path} without its folder") from None
        except OSError as error:
            raise not_written(package, member.path, error) from error

    def settle(self) -> None:
        """Give empty folders their package's time; the others got theirs from what is in them."""
        for mtime, path in self._ages.values():
            with suppress(FileNotFoundError):
                if not self._beneath.names(path):
                    self._beneath.utime(path, mtime)
        self._ages.clear()

    def _make_folder(self, path: str, member: Member, package: str) -> None:
        rights = (member.mode, member.uid, member.gid)
        try:
            self._beneath.make_folder(path, mode=member.mode, uid=member.uid, gid=member.gid)
        except FileExistsError:
            if not self._beneath.is_folder(path):
                raise
        found = self._beneath.stat(path)
        if not stat.S_ISDIR(found.st_mode):
            return  # a link to one, which stays as it is
        identity = (found.st_dev, found.st_ino)
        with self._lock:
            age, _ = self._ages.get(identity, (0, ""))
            self._ages[identity] = max(age, member.mtime), path
            claim = _Claim(rights, package, path)
            first = self._claims.setdefault(identity, claim)
            if first.rights == rights:
                return
            if self._identify(first.path) != identity:  # the number of a folder that is gone
                self._claims[identity] = claim
                return
        raise _disagree(member.path, first, claim)

    def _identify(self, path: str) -> _Identity | None:
        if not self._beneath.exists(path):
            return None
        found = self._beneath.stat(path)
        return found.st_dev, found.st_ino

    def _write_file(self, path: str, member: Member, tar: bytes) -> None:
        self._beneath.write(
            path,
            memoryview(tar)[member.start : member.start + member.size],
            mode=member.mode,
            uid=member.uid,
            gid=member.gid,
            mtime_s=member.mtime,
        )

    def _link(self, path: str, member: Member, package: str, pending: Collection[str]) -> None:
        target = "/" + member.target.removeprefix("./").lstrip("/")
        try:
            self._beneath.link(target + (PENDING if target in pending else ""), path)
        except FileNotFoundError:
            raise damaged(package, f"{member.path} is a link to nothing") from None

    def _make_symlink(self, path: str, member: Member) -> None:
        try:
            self._beneath.symlink(
                member.target, path, uid=member.uid, gid=member.gid, mtime_s=member.mtime
            )
        except FileExistsError:
            is_link = stat.S_ISLNK(self._beneath.stat(path).st_mode)
            if not is_link or self._beneath.readlink(path) != member.target:
                raise


def _taken(path: str, package: str) -> PipelineError:
    return PipelineError(
        f"package {package}: another one ships {path} too",
        hint="use bootstrap=mmdebstrap, which unpacks one after the other and knows Replaces",
    )


def _disagree(path: str, first: _Claim, second: _Claim) -> PipelineError:
    said = [
        f"{claim.package}: {claim.rights[0]:o} {claim.rights[1]}:{claim.rights[2]}"
        for claim in (first, second)
    ]
    return PipelineError(
        f"packages disagree about the folder {path} ({'; '.join(said)})",
        hint="use bootstrap=mmdebstrap, where the first one in order decides",
    )
