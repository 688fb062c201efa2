"""What stands at a path of the host: a file or link with its bytes, mode and owner; and a copy."""

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files import fingerprint, read_bytes, sync_folder
from pipeline.storage.transaction import write_aside


@dataclass(frozen=True)
class Entry:
    """A file's bytes, or where a link leads; times do not count."""

    content: bytes
    is_link: bool = False
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    @property
    def digest(self) -> str:
        """Which of two states it is."""
        mode = 0 if self.is_link else self.mode
        return fingerprint([self.content.hex(), self.is_link, mode, self.uid, self.gid])

    @property
    def kind(self) -> str:
        """In words."""
        return f"link to {os.fsdecode(self.content)}" if self.is_link else f"mode {self.mode:04o}"


def read_entry(path: Path) -> Entry | None:
    """What there is, None for nothing. Raises Damaged for what is neither file nor link."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    is_link = stat.S_ISLNK(status.st_mode)
    content = os.fsencode(os.readlink(path)) if is_link else read_bytes(path)
    return Entry(content, is_link, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def digest_of(path: Path) -> str:
    """Its digest, "" for nothing."""
    entry = read_entry(path)
    return entry.digest if entry else ""


def write_entry(path: Path, entry: Entry, *, like: Path | None = None) -> None:
    """Make it anew, durably; with the access list and attributes of `like`, if that is a file."""
    if entry.is_link:
        os.symlink(entry.content, os.fsencode(path))
    else:
        write_aside(path, entry.content)
        if like is not None and like.is_file() and not like.is_symlink():
            shutil.copystat(like, path)
            os.utime(path)
    _own(path, entry.uid, entry.gid)
    if not entry.is_link:
        path.chmod(entry.mode)
    sync_folder(path.parent)


def copy_entry(source: Path, target: Path) -> None:
    """A file or link once more with all but its change time, durably; replaces one by a rename."""
    aside = target.with_name(f".{target.name}.domu-new")
    aside.unlink(missing_ok=True)
    if source.is_symlink():
        os.symlink(os.readlink(source), aside)
    else:
        write_aside(aside, read_bytes(source))
    status = source.lstat()
    _own(aside, status.st_uid, status.st_gid)
    copy_state(source, aside)
    os.replace(aside, target)
    sync_folder(target.parent)


def copy_state(source: Path, target: Path) -> None:
    """Mode, times, access list and attributes."""
    shutil.copystat(source, target, follow_symlinks=False)


def require_changeable(path: Path) -> None:
    """Raises PipelineError where a file could not be replaced, written or removed."""
    folder = next(parent for parent in path.parents if os.path.lexists(parent))
    for place in (path, folder):
        is_there = os.path.lexists(place) and not place.is_symlink()
        if is_there and not os.access(place, os.W_OK):
            raise PipelineError(
                f"{place} cannot be changed: it is read-only or immutable",
                hint=f"look at it: lsattr -d {place}, findmnt -T {place}",
            )
    if not folder.is_dir():
        raise PipelineError(f"{folder} is not a folder", hint="move it away")
    if os.path.ismount(path):
        raise PipelineError(f"{path} is a mount of its own", hint=f"unmount it: umount {path}")


def _own(path: Path, uid: int, gid: int) -> None:
    status = path.lstat()
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.chown(path, uid, gid, follow_symlinks=False)
