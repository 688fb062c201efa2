"""Every change on the host: prepared aside, committed at once, finished or undone after a kill.

A journal file says before anything is made how to unmake it (`undo`), and at the commit what is
left to do (`finish`): renames and removals, each of which may be repeated. Whoever comes next looks
for the journal of a dead command: not committed, it is undone; committed, it is finished. The
guest's configuration is replaced by one rename, so `xl create` sees the old guest or the new one.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from pipeline.errors import EnvironmentFault, InUseError, PipelineError
from pipeline.interruption import at_interruption, gate
from pipeline.life.disk_files import make_private_folder
from pipeline.life.guest_lock import guest_lock, hold_lock, release_lock
from pipeline.life.layout import Layout
from pipeline.life.state_file import damaged, read_table, take
from pipeline.life.steps import Step, perform, read_steps, write_aside
from pipeline.spec.mistakes import WrongValueError
from pipeline.spec.values import check_guest_name

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
