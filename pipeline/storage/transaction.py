"""Every change on the host: prepared aside, committed at once, finished or undone after a kill.

A journal file says before anything is made how to unmake it (`undo`), and at the commit what is
left to do (`finish`): renames and removals, each of which may be repeated. Whoever comes next looks
for the journal of a dead command: not committed, it is undone; committed, it is finished. The
guest's configuration is replaced by one rename, so `xl create` sees the old guest or the new one.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from pipeline.dom0.guest_lock import guest_lock, hold_lock, release_lock
from pipeline.dom0.layout import Layout
from pipeline.errors import EnvironmentFault, InUseError, PipelineError, WrongValueError
from pipeline.files import damaged, read_table, sync_folder, take
from pipeline.interruption import at_interruption, gate
from pipeline.spec.values import check_guest_name
from pipeline.walls.privacy import make_private_folder

Step = dict[str, str]
Perform = Callable[[Layout, Step], None]


def rename(source: Path, target: Path) -> Step:
    """Put a prepared file in its place."""
    return {"kind": "rename", "source": str(source), "path": str(target)}


def remove(path: Path) -> Step:
    """Remove a file or link."""
    return {"kind": "remove", "path": str(path)}


def remove_tree(path: Path) -> Step:
    """Remove a folder that we made, with all in it, and its parent if that is empty then."""
    return {"kind": "remove-tree", "path": str(path)}


def remove_empty(path: Path) -> Step:
    """Remove a folder, and its parent, where they are empty."""
    return {"kind": "remove-empty", "path": str(path)}


def _rename(_layout: Layout, step: Step) -> None:
    source, target = Path(step["source"]), Path(step["path"])
    if os.path.lexists(source):
        os.replace(source, target)
        sync_folder(target.parent)


def _remove(_layout: Layout, step: Step) -> None:
    with suppress(IsADirectoryError):  # whoever put a folder in a file's place keeps it
        Path(step["path"]).unlink(missing_ok=True)


def _remove_tree(layout: Layout, step: Step) -> None:
    path = Path(step["path"])
    while path.is_dir():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
    _remove_empty(layout, step)


def _remove_empty(_layout: Layout, step: Step) -> None:
    path = Path(step["path"])
    for folder in (path, path.parent):
        with suppress(OSError):
            folder.rmdir()


_OWN: dict[str, Perform] = {
    "rename": _rename,
    "remove": _remove,
    "remove-tree": _remove_tree,
    "remove-empty": _remove_empty,
}
# what opens file systems and volumes is imported where it is carried out
_ELSEWHERE = {
    "modules": ("pipeline.dom0.guest_root", "perform_modules"),
    "set-size": ("pipeline.dom0.resize", "perform_size"),
    "lv-remove": ("pipeline.storage.staged_volume", "perform_removal"),
    "lv-rename": ("pipeline.storage.staged_volume", "perform_rename"),
}


_MOST = 4096
_WORD = re.compile(r"[A-Za-z0-9+_.~-]{1,255}")
_KEYS = {
    **dict.fromkeys(("remove", "remove-tree", "remove-empty"), ("path",)),
    "rename": ("source", "path"),
    "modules": ("guest", "what", "abis"),
    "set-size": ("path", "size"),
    "lv-remove": ("group", "path"),
    "lv-rename": ("group", "source", "path"),
}


def read_steps(layout: Layout, guest: str, found: list[object]) -> list[Step]:
    """Steps out of a journal's file; ValueError for what we never write.

    What is removed or renamed lies where a guest's things are, whatever the file says.
    """
    if len(found) > _MOST:
        raise ValueError(f"{len(found)} steps")
    steps = []
    for number, step in enumerate(found, 1):
        if type(step) is not dict or not all(type(value) is str for value in step.values()):
            raise ValueError(f"step {number} is no table of texts")
        kind = step.get("kind")
        if kind not in _KEYS or set(step) != {"kind", *_KEYS[kind]}:
            raise ValueError(f"step {number}: {kind!r}")
        _require_place(layout, guest, step)
        steps.append(step)
    return steps


def _require_place(layout: Layout, guest: str, step: Step) -> None:
    kind = step["kind"]
    if kind in ("modules", "lv-remove", "lv-rename"):
        words = [word for key in _KEYS[kind] for word in step[key].split()]
        if kind == "modules" and step["guest"] != guest:
            raise ValueError(f"it is about {step['guest']!r}")
        if not all(_WORD.fullmatch(word) and word not in (".", "..") for word in words):
            raise ValueError(f"{kind}: {words}")
        return
    files = (layout.configs, layout.auto, layout.saves, layout.state / "installed")
    disks = layout.images / guest
    for path in (Path(step[key]) for key in ("source", "path") if key in step):
        is_file = kind in ("remove", "rename") and path.parent in files and guest in path.name
        is_disk = disks in path.parents or (kind == "set-size" and Path("/dev") in path.parents)
        is_disk = is_disk and ".." not in path.parts
        if not (is_file or is_disk):
            raise ValueError(f"{kind} of {str(path)!r}")
    if kind == "set-size" and not step["size"].isdigit():
        raise ValueError(f"size {step['size']!r}")


def perform(layout: Layout, steps: Iterable[Step]) -> None:
    """Carry steps out, in order."""
    for step in steps:
        if step["kind"] in _OWN:
            _OWN[step["kind"]](layout, step)
        else:
            module, name = _ELSEWHERE[step["kind"]]
            getattr(importlib.import_module(module), name)(layout, step)


def write_aside(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file that is not in its place yet, and wait for the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        error.filename = str(path)  # write(2) does not know it
        raise


PATIENCE_S = 10.0
LOCK_PATIENCE_S = 600.0
_WHAT = "a journal of doit's"
_open: set[Transaction] = set()


class Transaction:
    """One change to one guest, as a context manager: an error before commit() undoes everything.

    Raises InUseError when another command works on the same guest.
    """

    def __init__(self, layout: Layout, name: str, word: str) -> None:
        self.layout = layout
        self.name = name
        self.word = word
        self.thread = threading.get_ident()
        self._undo: list[Step] = []
        self._is_committed = self._is_finished = False

    def __enter__(self) -> Transaction:
        hold_lock(self.layout, self.name)
        try:
            recover_guest(self.layout, self.name)
            self._write("preparing", [])
        except BaseException:
            with suppress(OSError):
                _draft(self.layout.journal(self.name)).unlink(missing_ok=True)
            release_lock(self.layout, self.name)
            raise
        at_interruption(settle_open)
        _open.add(self)
        return self

    def will_make(self, *undo: Step) -> None:
        """Note how to unmake what is made next."""
        with gate("note", self.layout.journal(self.name)):
            self._undo = [*undo, *self._undo]
            self._write("preparing", [])

    def commit(self, finish: Iterable[Step]) -> None:
        """The change is decided: from here on it is finished, by us or by whoever comes next."""
        steps = list(finish)
        with gate("commit", self.layout.journal(self.name)):
            self._write("committed", steps)
            self._is_committed = True
        perform(self.layout, steps)
        self._is_finished = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.settle()
        finally:
            _open.discard(self)
            release_lock(self.layout, self.name)

    def settle(self) -> None:
        """Undo what was not committed and forget the journal; a failed finish keeps it."""
        if not self._is_committed:
            perform(self.layout, self._undo)
            _forget(self.layout, self.name)
        elif self._is_finished:
            _forget(self.layout, self.name)

    def _write(self, phase: str, finish: list[Step]) -> None:
        table = {"word": self.word, "phase": phase, "undo": self._undo, "finish": finish}
        path = self.layout.journal(self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(_draft(path), json.dumps(table, indent=1).encode())
        os.replace(_draft(path), path)


@contextmanager
def working_on(layout: Layout, name: str) -> Iterator[list[str]]:
    """What every command about one guest begins with: its lock, then an end to what died before.

    Yields what was undone or finished. Raises InUseError when another command does not end,
    PipelineError where what was begun cannot be ended.
    """
    done = recover_all(layout, but=name)
    with guest_lock(layout, name, patience_s=LOCK_PATIENCE_S):
        yield [*done, *filter(None, [recover_guest(layout, name)])]


def recover_guest(layout: Layout, name: str) -> str:
    """Undo or finish what a dead command began; returns what was done, "" for nothing.

    The caller holds the guest's lock. Raises Damaged for a journal that is none.
    """
    path = layout.journal(name)
    _draft(path).unlink(missing_ok=True)
    _clear_work(layout, name)
    try:
        table = read_table(path, _WHAT)
        is_committed = {"committed": True, "preparing": False}[table["phase"]]
        steps = read_steps(layout, name, take(table, "finish" if is_committed else "undo", list))
        word = take(table, "word", str)
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, _WHAT, error) from error
    perform(layout, steps)
    _forget(layout, name)
    return f"{word} of {name}: {'finished' if is_committed else 'undone'}"


def recover_all(layout: Layout, *, but: str = "") -> list[str]:
    """The same for every guest that nobody works on; what cannot be ended now is told."""
    done = []
    for name in list_unfinished(layout):
        if name == but:
            continue
        try:
            with guest_lock(layout, name):
                done.append(recover_guest(layout, name))
        except (InUseError, EnvironmentFault):
            continue  # somebody is at work on it, or this user may only look
        except (PipelineError, OSError) as error:
            done.append(f"{name}: what was begun cannot be ended yet: {error}")
    return [text for text in done if text]


def list_unfinished(layout: Layout) -> list[str]:
    """The guests with something that a dead command may have left."""
    journals = (layout.state / "journal").glob("*json*")
    names = {path.name.removeprefix(".").partition(".json")[0] for path in journals}
    names |= {path.name for path in (layout.state / "work").glob("*")}
    locks = {path.name for path in (layout.state / "locks").glob("*")}
    names |= {name for name in locks if not layout.record(name).exists()}
    return sorted(filter(_is_name, names))


def _is_name(text: str) -> bool:
    try:
        check_guest_name(text)
    except WrongValueError:
        return False
    return True


@contextmanager
def work_folder(layout: Layout, name: str) -> Iterator[Path]:
    """A folder for whoever holds the guest's lock; a killed one's is removed by recover_guest."""
    _clear_work(layout, name)
    folder = layout.state / "work" / name
    make_private_folder(folder)
    try:
        yield folder
    finally:
        _clear_work(layout, name)


def _clear_work(layout: Layout, name: str) -> None:
    shutil.rmtree(layout.state / "work" / name, ignore_errors=True)
    with suppress(OSError):
        (layout.state / "work").rmdir()


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def settle_open() -> list[str]:
    """For interruptions: what was not committed is undone before the process ends.

    Returns what could not be: its journal stays for whoever comes next.
    """
    begun = list(_open)
    for transaction in begun:
        if transaction.thread == threading.get_ident():
            transaction.settle()
            _open.discard(transaction)
    end = time.monotonic() + PATIENCE_S
    while _open and time.monotonic() < end:
        time.sleep(0.02)  # its own thread undoes it: the command that it waited for was ended
    return [f"{one.word} of {one.name}" for one in begun if one.layout.journal(one.name).exists()]


def _forget(layout: Layout, name: str) -> None:
    _draft(layout.journal(name)).unlink(missing_ok=True)  # an interruption may come in between
    layout.journal(name).unlink(missing_ok=True)
