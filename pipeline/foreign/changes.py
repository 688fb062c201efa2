"""Changes of a foreign root file system, and making them: in a cage, by openat2, nothing else.

A file keeps its owner and mode, its folder its time; what was changed has the time that is given,
so that the same source gives the same bytes.
"""

import difflib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import PipelineError, VerificationError
from pipeline.foreign.installed_kernels import MODULES
from pipeline.foreign.secret_files import lock_passwords
from pipeline.kernel.initrd import build_initrd
from pipeline.kernel.modules import ModuleFolder
from pipeline.walls.beneath import Beneath

How = Literal["text", "remove", "empty", "link", "lock", "initrd"]
_MOST_TEXT = 16 << 20
_MOST_MODULE = 64 << 20
_SHOWN = 40


@dataclass(frozen=True, kw_only=True)
class Change:
    """One file that will be another. `now` is its text of today, None where there is none.

    `how`: it gets the text `becomes`; it is removed, a folder with all in it; it is emptied; it
    becomes a link to `becomes`; its passwords are locked (shadow(5)); it becomes an initrd of ours
    for the ABI and the file system in `words`, which `becomes` describes. A new file gets `mode`.
    """

    code: str
    path: str
    why: str
    how: How = "text"
    now: str | None = None
    becomes: str | None = None
    words: tuple[str, ...] = ()
    mode: int = 0o644

    def lines(self) -> Iterator[str]:
        """What it does as a diff(1) of a text, else in a line; no secret is shown."""
        if self.how == "text" and self.becomes is not None:
            old, new = (self.now or "").splitlines(), self.becomes.splitlines()
            if self.now is None:
                yield f"new file {self.path}"
            shown = list(difflib.unified_diff(old, new, self.path, self.path, lineterm="", n=0))
            yield from shown[2 : 2 + _SHOWN]
            if len(shown) > 2 + _SHOWN:
                yield f"... and {len(shown) - 2 - _SHOWN} more lines"
            return
        words = {
            "remove": "removed",
            "empty": "emptied",
            "link": f"a link to {self.becomes}",
            "lock": "passwords locked",
            "initrd": f"an initrd for {self.becomes}",
        }
        yield words.get(self.how, self.how)

    def as_json(self) -> dict[str, Any]:
        """For a report: what, why, and the changed lines alone."""
        row = {"code": self.code, "path": self.path, "how": self.how, "why": self.why}
        return {**row, "lines": list(self.lines())}


def from_order(table: Mapping[str, Any]) -> Change:
    """A change of an order, as JSON has it."""
    return Change(**{**table, "words": tuple(table["words"])})


def apply_changes(
    tree: Beneath,
    changes: Iterable[Change],
    *,
    time_s: int | None = None,
    busybox: bytes = b"",
    room: Path | None = None,
) -> None:
    """Make them; `busybox` is a static one for an initrd, `room` a folder for its parts.

    VerificationError where a file is no longer what was surveyed. `time_s` is what changed files
    get, None leaves that of the file before.
    """
    for change in changes:
        path = change.path
        if change.how in ("text", "lock", "empty"):
            _write(tree, change, _new_text(tree, change), time_s)
        elif change.how == "remove":
            with _steady_folder(tree, path):
                tree.remove(path, missing_ok=True)
        elif change.how == "link":
            with _steady_folder(tree, path):
                tree.remove(path, missing_ok=True)
                tree.symlink(str(change.becomes), path, uid=0, gid=0, mtime_s=time_s)
        else:
            assert room is not None
            _write(tree, change, _make_initrd(tree, change, busybox, room), time_s)


def _new_text(tree: Beneath, change: Change) -> bytes:
    if change.how == "empty":
        return b""
    now = _read(tree, change.path)
    if change.how == "lock":
        return _encode(lock_passwords(_decode(now or b"")))
    if now != (None if change.now is None else _encode(change.now)):
        raise VerificationError(
            f"{change.path} is not what it was when its changes were planned",
            hint="do it again; nobody may use the disk meanwhile",
        )
    return _encode(change.becomes or "")


def _read(tree: Beneath, path: str) -> bytes | None:
    try:
        return tree.read(path, limit=_MOST_TEXT, follow_last=True)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(tree: Beneath, change: Change, content: bytes, time_s: int | None) -> None:
    """A link in the place of the file is followed by nobody: the file takes its place."""
    path = change.path
    mode, owner, group, time = change.mode, 0, 0, time_s
    with suppress(FileNotFoundError, NotADirectoryError):
        status = tree.stat(path, follow_last=True)
        if not stat.S_ISREG(status.st_mode):
            raise VerificationError(f"{path} of the guest is no file")
        mode, owner, group = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        time = int(status.st_mtime) if time_s is None else time_s
    _make_folders(tree, path.rpartition("/")[0], time_s)
    with _steady_folder(tree, path):
        tree.write(path, content, mode=mode, uid=owner, gid=group, mtime_s=time, replace=True)


def _make_folders(tree: Beneath, path: str, time_s: int | None) -> None:
    """Folders for a new file: the one that is there keeps its time, new ones get that of a file."""
    if not path or tree.is_folder(path):
        return
    _make_folders(tree, path.rpartition("/")[0], time_s)
    with _steady_folder(tree, path):
        tree.make_folders(path, uid=0, gid=0)
    if time_s is not None:
        tree.utime(path, time_s)


@contextmanager
def _steady_folder(tree: Beneath, path: str) -> Iterator[None]:
    """The folder of a path keeps its time, where there is one."""
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY
        folder = tree.open(path.rpartition("/")[0] or "/", flags, follow_last=True)
    except (FileNotFoundError, NotADirectoryError):
        yield
        return
    try:
        time_s = int(os.fstat(folder).st_mtime)
        yield
        os.utime(folder, (time_s, time_s))
    finally:
        os.close(folder)


def _make_initrd(tree: Beneath, change: Change, busybox: bytes, room: Path) -> bytes:
    """Of the modules of the tree itself, copied out of it first: no link of it is followed by us"""
    abi, fs = change.words
    home, copy = f"{MODULES}/{abi}", room / "modules"
    copy.mkdir(exist_ok=True)
    for name in ("modules.dep", "modules.builtin"):
        _copy(tree, f"{home}/{name}", copy / name)
    for module in ModuleFolder(copy).select(fs)[1]:
        if module.path.startswith("/") or ".." in module.path.split("/"):
            raise PipelineError(
                f"{home}/modules.dep names {module.path!r}, which is none of its own"
            )
        _copy(tree, f"{home}/{module.path}", copy / module.path)
    return build_initrd(busybox, ModuleFolder(copy), abi, file_system=fs).content


def _copy(tree: Beneath, path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError, NotADirectoryError):
        target.write_bytes(tree.read(path, limit=_MOST_MODULE, follow_last=True))


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decode(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")
