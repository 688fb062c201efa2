"""The one way to a path in a tree that strangers made: openat2(2), below a folder of the host.

Whoever walks such a tree by path as the host follows what its owner put there: a link to /etc, a
FIFO in the place of a file, a folder that turns into a link between a look and a step. `Beneath`
holds the folder open and lets the kernel resolve every path below it:

- no name, `..`, link or absolute link leads out of it (RESOLVE_IN_ROOT, or RESOLVE_BENEATH);
- magic links (/proc/PID/root, /proc/PID/fd/N) are never followed, mounts in it are not entered;
- the last part of a path is never followed unless asked for, and what is changed (owner, mode,
  time) is changed through a descriptor or the folder's own entry, never through a link;
- FIFOs, devices and sockets are never opened by `read`, `chmod` and `names`.

What is out of bounds or of another kind is an `Escape`; a missing file, a full disk and the like
are the usual OSError. Paths may begin with a slash: it is the folder itself. Nothing here makes a
tree that others change meanwhile consistent: each call stays below the folder, no more.
"""

import ctypes
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from pipeline.errors import EnvironmentFault, PipelineError

_SYS_OPENAT2 = 437  # the same number on every architecture
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH, _IN_ROOT = 0x01, 0x02, 0x04, 0x08, 0x10
_STRICT = _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | _NO_XDEV
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_TRIES = 2000  # EAGAIN: somewhere on the machine a rename raced with a ".." (openat2(2))
_OUT = {errno.EXDEV, errno.ELOOP}
_CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [
    *(ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
]


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


class Escape(PipelineError):
    """A path of a foreign tree leads out of it, or to something of another kind (exit code 1)."""


class Beneath:
    """A folder of the host under which every path is resolved; close it, or use it as a context.

    With `follow` links on the way count as they do in a chroot of the folder; without, any link is
    refused. `mounts` allows what is mounted in it to be entered. Usable by several threads. The
    folder itself is opened by its path on the host: one that no stranger can change.
    """

    def __init__(self, root: Path, *, follow: bool = True, mounts: bool = False) -> None:
        self.root = root
        how = _IN_ROOT if follow else _BENEATH | _NO_SYMLINKS
        self._resolve = how | _NO_MAGICLINKS | (0 if mounts else _NO_XDEV)
        self._folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the folder go."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def open(self, path: str, flags: int, mode: int = 0o600, *, follow_last: bool = False) -> int:
        """A descriptor as of open(2), always O_CLOEXEC; `mode` counts for a new file alone.

        Never waits for a FIFO's other end; what may be a device is for `open_file`, or O_PATH.
        """
        if not follow_last:
            flags |= os.O_NOFOLLOW
        if not flags & os.O_PATH:
            flags |= os.O_NONBLOCK | os.O_NOCTTY  # no FIFO and no terminal is waited for
        try:
            return _openat2(self._folder, _clean(path) or ".", flags, mode, self._resolve)
        except OSError as error:
            if error.errno in _OUT:
                way = "or through a link that is not followed"
                raise Escape(f"{self._place(path)}: leads out of {self.root}, {way}") from error
            error.filename = self._place(path)
            raise

    def open_file(self, path: str, *, follow_last: bool = False) -> int:
        """A regular file for reading; Escape for anything else, which is not opened at all."""
        return self._open_kinds(path, stat.S_ISREG, "regular file", follow_last=follow_last)

    def read(self, path: str, *, limit: int, follow_last: bool = False) -> bytes:
        """A regular file's content; PipelineError when it is longer than `limit` bytes."""
        descriptor = self.open_file(path, follow_last=follow_last)
        try:
            parts, left = [], limit + 1
            while left and (part := os.read(descriptor, min(left, _CHUNK))):
                parts.append(part)
                left -= len(part)
        finally:
            os.close(descriptor)
        if not left:
            raise PipelineError(f"{self._place(path)}: longer than {limit} bytes")
        return b"".join(parts)

    def write(
        self,
        path: str,
        content: bytes | memoryview,
        *,
        mode: int,
        uid: int = -1,
        gid: int = -1,
        mtime_s: int | None = None,
        replace: bool = False,
    ) -> None:
        """Make a file, whole or not at all; -1 leaves the owner that it gets by itself (chown(2)).

        FileExistsError where there is anything of that name; `replace` takes that away first,
        unless it is a folder.
        """
        if replace:
            self.unlink(path, missing_ok=True)
        descriptor = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            _write_all(descriptor, content)
            # the group would else be a setgid folder's; chown takes setuid away, so it is first
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            if mtime_s is not None:
                os.utime(descriptor, (mtime_s, mtime_s))
        except BaseException:
            with suppress(OSError):
                self.unlink(path)
            raise
        finally:
            os.close(descriptor)

    def append(self, path: str, content: bytes, *, mode: int) -> None:
        """Add to the end of a regular file, which is made where there is none."""
        descriptor = self.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Escape(f"{self._place(path)}: not a regular file")
            _write_all(descriptor, content)
        finally:
            os.close(descriptor)

    def make_folder(self, path: str, *, mode: int = 0o755, uid: int = -1, gid: int = -1) -> None:
        """Make a folder whose parent is there; FileExistsError as mkdir(2)."""
        with self._parent(path) as (folder, name):
            os.mkdir(name, 0o700, dir_fd=folder)
            descriptor = _openat2(folder, name, _FOLDER | os.O_NOFOLLOW, 0, _STRICT)
        try:
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def make_folders(self, path: str, *, mode: int = 0o755, uid: int = -1, gid: int = -1) -> None:
        """Make a folder and those above it that are not there; what is there stays as it is."""
        parts = [part for part in _clean(path).split("/") if part]
        for end in range(1, len(parts) + 1):
            upper = "/".join(parts[:end])
            with suppress(FileExistsError):
                if not self.is_folder(upper):
                    self.make_folder(upper, mode=mode, uid=uid, gid=gid)
        if not self.is_folder(path):
            raise Escape(f"{self._place(path)}: not a folder")

    def symlink(
        self, target: str, path: str, *, uid: int = -1, gid: int = -1, mtime_s: int | None = None
    ) -> None:
        """Make a symbolic link; FileExistsError where there is anything of that name."""
        with self._parent(path) as (folder, name):
            os.symlink(target, name, dir_fd=folder)
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
            if mtime_s is not None:
                os.utime(name, (mtime_s, mtime_s), dir_fd=folder, follow_symlinks=False)

    def link(self, existing: str, path: str) -> None:
        """A further name for a file of the tree; a link itself gets one, not what it points to."""
        with self._parent(existing) as (old, old_name), self._parent(path) as (new, new_name):
            os.link(old_name, new_name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)

    def rename(self, old: str, new: str, *, replace: bool = True) -> None:
        """Give another name; what has that name already is replaced as by rename(2), or an error"""
        with self._parent(old) as (first, first_name), self._parent(new) as (second, second_name):
            if replace:
                os.rename(first_name, second_name, src_dir_fd=first, dst_dir_fd=second)
            else:
                _renameat2(first, first_name, second, second_name, _RENAME_NOREPLACE)

    def exchange(self, one: str, other: str) -> None:
        """Swap two names in one step (renameat2(2))."""
        with self._parent(one) as (first, first_name), self._parent(other) as (second, name):
            _renameat2(first, first_name, second, name, _RENAME_EXCHANGE)

    def unlink(self, path: str, *, missing_ok: bool = False) -> None:
        """Take a name away that is no folder's; a missing folder above it counts as missing too."""
        missing = (FileNotFoundError, NotADirectoryError) if missing_ok else ()
        with suppress(*missing), self._parent(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def remove(self, path: str, *, missing_ok: bool = False) -> None:
        """Remove whatever is there, a folder with all in it at any depth.

        Escape when something is mounted in it: that and what is beside it may stay.
        """
        try:
            with self._parent(path) as (folder, name):
                os.stat(name, dir_fd=folder, follow_symlinks=False)
                _remove(folder, name, self._place(path))
        except (FileNotFoundError, NotADirectoryError):
            if not missing_ok:
                raise

    def empty(self, path: str) -> None:
        """Remove all that is in a folder, which stays."""
        descriptor = self._open_folder(path, follow_last=False)
        try:
            for name in os.listdir(descriptor):
                with suppress(FileNotFoundError):
                    _remove(descriptor, name, f"{self._place(path)}/{name}")
        finally:
            os.close(descriptor)

    def stat(self, path: str, *, follow_last: bool = False) -> os.stat_result:
        """What lstat(2) says of it, or stat(2)."""
        if not follow_last:
            with self._parent(path, allow_root=True) as (folder, name):
                return os.stat(name, dir_fd=folder, follow_symlinks=False)
        descriptor = self.open(path, os.O_PATH, follow_last=True)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def exists(self, path: str) -> bool:
        """Whether there is anything of that name; a link counts, wherever it leads."""
        try:
            self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_folder(self, path: str) -> bool:
        """Whether it is a folder, or a link that leads to one inside."""
        try:
            return stat.S_ISDIR(self.stat(path, follow_last=True).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def is_file(self, path: str) -> bool:
        """Whether it is a regular file; a link to one is none."""
        try:
            return stat.S_ISREG(self.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def readlink(self, path: str) -> str:
        """A link's target."""
        with self._parent(path) as (folder, name):
            return os.readlink(name, dir_fd=folder)

    def names(self, path: str, *, follow_last: bool = False) -> list[str]:
        """What is in a folder, in order."""
        descriptor = self._open_folder(path, follow_last=follow_last)
        try:
            return sorted(os.listdir(descriptor))
        finally:
            os.close(descriptor)

    def chmod(self, path: str, mode: int) -> None:
        """Set the mode of a regular file or a folder; of anything else it is an Escape."""
        descriptor = self._open_kinds(path, _is_plain, "regular file or folder", follow_last=False)
        try:
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Set the owner of whatever it is, of a link itself; -1 leaves one as it is."""
        with self._parent(path, allow_root=True) as (folder, name):
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)

    def utime(self, path: str, mtime_s: int) -> None:
        """Set both times of whatever it is, of a link itself."""
        with self._parent(path, allow_root=True) as (folder, name):
            os.utime(name, (mtime_s, mtime_s), dir_fd=folder, follow_symlinks=False)

    def _open_folder(self, path: str, *, follow_last: bool) -> int:
        try:
            return self.open(path, _FOLDER, follow_last=follow_last)
        except NotADirectoryError as error:
            raise Escape(f"{self._place(path)}: not a folder") from error

    def _open_kinds(
        self, path: str, is_right: Callable[[int], bool], what: str, *, follow_last: bool
    ) -> int:
        """Open for reading what is of the right kind: looked at before, and again when open."""
        first = self.stat(path, follow_last=follow_last)
        if not is_right(first.st_mode):
            raise Escape(f"{self._place(path)}: not a {what}")
        descriptor = self.open(path, os.O_RDONLY, follow_last=follow_last)
        if not os.path.samestat(first, os.fstat(descriptor)):
            os.close(descriptor)
            raise Escape(f"{self._place(path)}: changed while it was opened")
        return descriptor

    @contextmanager
    def _parent(self, path: str, *, allow_root: bool = False) -> Iterator[tuple[int, str]]:
        """The folder that a name stands in, open, and the name."""
        parent, _, name = _clean(path).rpartition("/")
        if name in (".", "..") or (not name and not allow_root):
            raise Escape(f"{self._place(path)}: not the name of anything")
        if not parent:
            yield self._folder, name or "."
            return
        folder = self.open(parent, os.O_PATH | os.O_DIRECTORY, follow_last=True)
        try:
            yield folder, name
        finally:
            os.close(folder)

    def _place(self, path: str) -> str:
        return f"{self.root}/{os.fspath(path).lstrip('/')}"


def take(source_root: Path, name: str, target: Path, *, mode: int = 0o600) -> Path:
    """Bring a finished file out of a folder that strangers could write to, as `target`.

    It becomes ours, with this mode, by a rename in one file system. Whoever could write there has
    to be gone: a descriptor that is still open writes on. Escape for all but a regular file with a
    single name, and when it is exchanged meanwhile.
    """
    with Beneath(source_root, follow=False) as room:
        descriptor = room.open_file(name)
        try:
            found = os.fstat(descriptor)
            if found.st_nlink != 1:
                raise Escape(f"{source_root}/{name}: it has {found.st_nlink} names")
            os.fchown(descriptor, os.geteuid(), os.getegid())
            os.fchmod(descriptor, mode)
            with room._parent(name) as (folder, last):
                os.rename(last, target, src_dir_fd=folder)
        finally:
            os.close(descriptor)
        if not os.path.samestat(found, os.lstat(target)):
            target.unlink()
            raise Escape(f"{source_root}/{name}: changed while it was taken")
    return target


def _clean(path: str) -> str:
    if "\0" in path:
        raise Escape(f"a name with a zero byte: {path!r}")
    return path.strip("/")


def _write_all(descriptor: int, content: bytes | memoryview) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _is_plain(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _renameat2(old_folder: int, old: str, new_folder: int, new: str, flags: int) -> None:
    if _libc.renameat2(old_folder, os.fsencode(old), new_folder, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old, None, new)


def _remove(folder: int, name: str, place: str) -> None:
    """Remove a name and all below it with three descriptors, however deep it is.

    A folder's folders are moved up beside it, into a folder of the first one's own, and their turn
    comes there: no path grows, nothing recurses.
    """
    if not _remove_flat(folder, name):
        return
    top = _enter(folder, name, place)
    try:
        while names := os.listdir(top):
            for lower in names:
                if _remove_flat(top, lower):
                    _raise_folders(top, lower, f"{place}/{lower}")
                    os.rmdir(lower, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=folder)


def _raise_folders(top: int, name: str, place: str) -> None:
    """Empty a folder of `top`: its folders become folders of `top`, everything else is removed."""
    lower = _enter(top, name, place)
    try:
        for inner in os.listdir(lower):
            if _remove_flat(lower, inner):
                os.close(_enter(lower, inner, f"{place}/{inner}"))  # nothing mounted there
                os.rename(inner, secrets.token_hex(12), src_dir_fd=lower, dst_dir_fd=top)
    finally:
        os.close(lower)


def _remove_flat(folder: int, name: str) -> bool:
    """Remove what is no folder, or an empty one; True when it is one that is not empty."""
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            return False
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                raise
            return True
    return False


def _enter(folder: int, name: str, place: str) -> int:
    """Open a folder's folder that is no link and no mount."""
    try:
        return _openat2(folder, name, _FOLDER | os.O_NOFOLLOW, 0, _STRICT)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise Escape(f"{place}: something is mounted there", hint="umount it first") from error


def _openat2(folder: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """openat2(2): a descriptor, or OSError."""
    is_new = flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE
    how = _OpenHow(flags | os.O_CLOEXEC, mode if is_new else 0, resolve)
    name = os.fsencode(path)
    for attempt in range(_TRIES):
        descriptor: int = _libc.syscall(
            _SYS_OPENAT2, folder, name, ctypes.byref(how), ctypes.sizeof(how)
        )
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
        if attempt > 100:
            time.sleep(0.0005)
    if number == errno.ENOSYS:
        raise EnvironmentFault("this kernel has no openat2(2)", hint="it takes Linux 5.6 or newer")
    raise OSError(number, os.strerror(number), path)
