"""What no other user of the build host may read: disks with root's hash and host keys in them."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from pipeline.errors import EnvironmentFault, PipelineError, UsageError
from pipeline.files import read_bytes
from pipeline.walls.beneath import Beneath

_ROOMS = ("guests", "volumes")
_SECRET = (".img", ".qcow2", ".vhd")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(path: Path) -> Path:
    """A new, empty file of mode 0600: programs that write into it leave it so from the first byte.

    Raises FileExistsError where there is anything of that name.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return path


def tighten(output: Path) -> None:
    """Take away what earlier versions allowed others: each guest's folders, and the disks in them.

    Folders of another user are left to him.
    """
    for room in _ROOMS:
        for folder in sorted((output / room).glob("*")):
            with suppress(FileNotFoundError):  # a build exchanges them
                state = folder.lstat()
                is_open = stat.S_ISDIR(state.st_mode) and state.st_mode & _OTHERS
                if is_open and state.st_uid == os.geteuid():
                    _tighten_folder(folder)


def _tighten_folder(folder: Path) -> None:
    with Beneath(folder, follow=False) as inside:
        inside.chmod("", 0o700)
        for name in inside.names(""):
            if name.endswith(_SECRET) and inside.is_file(name):
                inside.chmod(name, 0o600)


def require_private(key: Path, *, otherwise: str) -> None:
    """Raises EnvironmentFault for a key that other users may read; what then is to be done."""
    mode = stat.S_IMODE(key.stat().st_mode)
    if mode & _OTHERS:
        raise EnvironmentFault(
            f"{key}: other users may read this key (mode {mode:04o})",
            hint=f"chmod 600 {key}; if somebody may have read it, {otherwise}",
        )


PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


def make_private_folder(folder: Path) -> None:
    """A folder that nobody else looks into, and its parents; one of ours from before is closed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    close_folder(folder)


def close_folder(folder: Path) -> None:
    """Nobody else looks in; where an administrator's link leads is his."""
    if not folder.is_symlink():
        folder.chmod(PRIVATE_FOLDER)


_MOST_SECRET = 64 << 10


def read_secret_line(path: Path, what: str) -> bytes:
    """The first line of a file that nobody else may read; `what` is its variable's name.

    Raises UsageError where there is none, EnvironmentFault where others may read it.
    """
    try:
        content = read_bytes(path, limit=_MOST_SECRET, follow=True)
        mode = path.stat().st_mode
    except (FileNotFoundError, PipelineError) as error:
        brief = error.brief if isinstance(error, PipelineError) else f"{path}: no such file"
        raise UsageError(brief, hint=f"{what}=FILE: a {what} in a file") from error
    if mode & stat.S_IRWXO:
        raise EnvironmentFault(f"{path}: any user may read this {what}", hint="chmod 600")
    line = content.split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        raise UsageError(f"{path}: its first line is empty", hint=f"write the {what} there")
    return line
