"""Every change of a guest's disks and files: prepared aside, committed at once, or undone.

A journal says before anything is made how to unmake it (`undo`), and at the commit what is left to
do (`finish`): renames, exchanges and removals, each of which may be repeated. Whoever comes next
looks for the journal of a dead command: not committed, it is undone; committed, it is finished.
On a Xen host the configuration is replaced by one rename, so `xl create` sees the old guest or the
new one; a build exchanges its folder.

Guests that change together (JointChange) have a journal each, which says what either end would do,
and one file that decides for all of them: while it is not there, each is undone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from pipeline import locks
from pipeline.console.progress import print_line
from pipeline.errors import EnvironmentFault, InUseError, PipelineError, WrongValueError
from pipeline.files import damaged, read_table, sync_folder, take
from pipeline.interruption import at_interruption, gate
from pipeline.spec.values import check_guest_name
from pipeline.storage.steps import Site, Step, perform, read_steps
from pipeline.walls.privacy import make_private_folder

PATIENCE_S = 10.0
LOCK_PATIENCE_S = 600.0
_WHAT = "a journal of doit's"
_MARK = re.compile("[0-9a-f]{32}")


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


_open: set[Transaction] = set()


class Transaction:
    """One change to one guest, as a context manager: an error before commit() undoes everything.

    Raises InUseError when another command works on the same guest.
    """

    def __init__(self, site: Site, guest: str, word: str) -> None:
        self.site = site
        self.guest = guest
        self.word = word
        self.thread = threading.get_ident()
        self._undo: list[Step] = []
        self._is_committed = self._is_finished = False

    def __enter__(self) -> Transaction:
        hold_guest(self.site, self.guest)
        at_interruption(settle_open)
        try:
            recover_guest(self.site, self.guest)
            with gate("begin", self.site.journal_of(self.guest)):
                self._write("preparing", [])
                _open.add(self)
        except BaseException:
            with suppress(OSError):
                _draft(self.site.journal_of(self.guest)).unlink(missing_ok=True)
            release_guest(self.site, self.guest)
            raise
        return self

    def will_make(self, *undo: Step) -> None:
        """Note how to unmake what is made next."""
        with gate("note", self.site.journal_of(self.guest)):
            self._undo = [*undo, *self._undo]
            self._write("preparing", [])

    def decide(self, finish: Iterable[Step]) -> list[Step]:
        """From here on the change is finished by whoever comes next: recover_guest."""
        steps = list(finish)
        with gate("commit", self.site.journal_of(self.guest)):
            self._write("committed", steps)
            self._is_committed = True
        return steps

    def commit(self, finish: Iterable[Step]) -> None:
        """Decide, and finish at once."""
        self.finish(self.decide(finish))

    def finish(self, steps: Iterable[Step]) -> None:
        """What was decided."""
        perform(self.site, self.guest, steps)
        self._is_finished = True

    def prepare(self, finish: list[Step], mark: str) -> None:
        """Note what a decision would finish that is made for several guests."""
        with gate("prepare", self.site.journal_of(self.guest)):
            self._write("prepared", finish, mark)

    def follow(self) -> None:
        """The decision was made for several guests."""
        self._is_committed = True

    def __exit__(self, *_raised: object) -> None:
        try:
            self.settle()
        finally:
            _open.discard(self)
            release_guest(self.site, self.guest)

    def settle(self) -> None:
        """Undo what was not committed and forget the journal; a failed finish keeps it."""
        if not self._is_committed:
            perform(self.site, self.guest, self._undo)
            _forget(self.site, self.guest)
        elif self._is_finished:
            _forget(self.site, self.guest)

    def _write(self, phase: str, finish: list[Step], mark: str = "") -> None:
        table = {"word": self.word, "phase": phase, "undo": self._undo, "finish": finish}
        table |= {"joint": mark} if mark else {}
        path = self.site.journal_of(self.guest)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(_draft(path), json.dumps(table, indent=1).encode())
        os.replace(_draft(path), path)


class JointChange:
    """One change to several guests, as a context manager: all of them are committed, or none.

    Raises InUseError when another command works on one of them.
    """

    def __init__(self, site: Site, guests: Iterable[str], word: str) -> None:
        self.site = site
        self._mark = uuid.uuid4().hex
        self._changes = {guest: Transaction(site, guest, word) for guest in sorted(guests)}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(_drop_decision, self.site, self._mark)
            for change in self._changes.values():
                stack.enter_context(change)
            self._stack = stack.pop_all()
        return self

    def of(self, guest: str) -> Transaction:
        """The part of one guest, which is not committed by itself."""
        return self._changes[guest]

    def commit(self, finish: Mapping[str, Iterable[Step]]) -> None:
        """From here on all of them are finished, by whoever comes next."""
        steps = {guest: list(finish[guest]) for guest in self._changes}
        if len(steps) == 1:
            for guest, change in self._changes.items():
                change.commit(steps[guest])
            return
        for guest, change in self._changes.items():
            change.prepare(steps[guest], self._mark)
            sync_folder(self.site.journal_of(guest).parent)
        path = _decision(self.site, self._mark)
        with gate("commit", path):
            path.parent.mkdir(exist_ok=True)
            write_aside(path, b"")
            sync_folder(path.parent)
            for change in self._changes.values():
                change.follow()
        for guest, change in self._changes.items():
            change.finish(steps[guest])

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)


def _decision(site: Site, mark: str) -> Path:
    """The file that is there once several guests' changes are committed."""
    return site.state / "decided" / mark


def _drop_decision(site: Site, mark: str) -> None:
    """Forget a decision that no journal follows any more."""
    path = _decision(site, mark)
    if not path.exists():
        return
    for guest in _glob(site, site.journal):
        with suppress(FileNotFoundError):
            if mark.encode() in site.journal_of(guest).read_bytes():
                return
    path.unlink(missing_ok=True)
    for folder in (path.parent, site.state):
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def guest_lock(site: Site, guest: str, *, patience_s: float = 0.0) -> Iterator[None]:
    """One command at a time on one guest; a command may hold it around its own transactions.

    Raises InUseError when another command still has it after `patience_s`.
    """
    hold_guest(site, guest, patience_s=patience_s)
    try:
        yield
    finally:
        release_guest(site, guest)


def hold_guest(site: Site, guest: str, *, patience_s: float = 0.0) -> None:
    """Take a guest's lock, once more where this process has it."""
    what = f"another command is at work on {guest}"
    locks.hold(_lock(site, guest), what, patience_s=patience_s, say=print_line)


def release_guest(site: Site, guest: str) -> None:
    """Let the lock go; of a guest that is not installed, and of an empty state, nothing stays."""

    def tidy() -> None:
        record, journal = site.state / site.record.format(guest), site.journal_of(guest)
        if os.path.lexists(record) or os.path.lexists(journal):
            return
        lock = _lock(site, guest)
        lock.unlink(missing_ok=True)
        for folder in (lock.parent, journal.parent, record.parent, site.state):
            with suppress(OSError):
                folder.rmdir()

    locks.release(_lock(site, guest), tidy)


def _lock(site: Site, guest: str) -> Path:
    return site.state / site.lock.format(guest)


@contextmanager
def working_on(site: Site, *guests: str) -> Iterator[list[str]]:
    """What every command about guests begins with: their locks, then an end to what died before.

    Yields what was undone or finished. Raises InUseError when another command does not end,
    PipelineError where what was begun cannot be ended.
    """
    done = recover_all(site, but=guests)
    with ExitStack() as stack:
        for guest in sorted(guests):
            stack.enter_context(guest_lock(site, guest, patience_s=LOCK_PATIENCE_S))
        yield [*done, *filter(None, [recover_guest(site, guest) for guest in guests])]


def recover_guest(site: Site, guest: str) -> str:
    """Undo or finish what a dead command began; returns what was done, "" for nothing.

    The caller holds the guest's lock. Raises Damaged for a journal that is none.
    """
    path = site.journal_of(guest)
    _draft(path).unlink(missing_ok=True)
    _clear(site.work_of(guest))
    try:
        table = site.read_older(read_table(path, _WHAT))
        mark = take(table, "joint", str, default="")
        is_decided = bool(_MARK.fullmatch(mark)) and _decision(site, mark).exists()
        phases = {"committed": True, "preparing": False, "prepared": is_decided}
        is_committed = phases[table["phase"]]
        steps = read_steps(site, guest, take(table, "finish" if is_committed else "undo", list))
        word = take(table, "word", str)
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, _WHAT, error) from error
    perform(site, guest, steps)
    _forget(site, guest)
    if is_decided:
        _drop_decision(site, mark)
    return f"{word} of {guest}: {'finished' if is_committed else 'undone'}"


def recover_all(site: Site, *, but: Collection[str] = ()) -> list[str]:
    """The same for every guest that nobody works on; what cannot be ended now is told."""
    done = []
    for guest in list_unfinished(site):
        if guest in but:
            continue
        try:
            with guest_lock(site, guest):
                done.append(recover_guest(site, guest))
        except (InUseError, EnvironmentFault):
            continue  # somebody is at work on it, or this user may only look
        except (PipelineError, OSError) as error:
            done.append(f"{guest}: what was begun cannot be ended yet: {error}")
    for path in site.state.glob("decided/*"):
        _drop_decision(site, path.name)
    return [text for text in done if text]


def list_unfinished(site: Site) -> list[str]:
    """The guests with something that a dead command may have left."""
    patterns = (site.journal, str(_draft(Path(site.journal))), site.work)
    names = {name for pattern in patterns for name in _glob(site, pattern)}
    names |= _glob(site, site.lock) - _glob(site, site.record)
    return sorted(filter(_is_name, names))


def _glob(site: Site, pattern: str) -> set[str]:
    """The guests for whom there is something at this place."""
    before, _, after = pattern.partition("{}")
    found = (path.relative_to(site.state) for path in site.state.glob(f"{before}*{after}"))
    return {str(path).removeprefix(before).removesuffix(after) for path in found}


def _is_name(text: str) -> bool:
    try:
        check_guest_name(text)
    except WrongValueError:
        return False
    return True


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """`Site.work_of` a guest, for whoever holds its lock; recover_guest removes a killed one's."""
    _clear(folder)
    make_private_folder(folder)
    try:
        yield folder
    finally:
        _clear(folder)


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


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
    return [
        f"{change.word} of {change.guest}"
        for change in begun
        if change.site.journal_of(change.guest).exists()
    ]


def _forget(site: Site, guest: str) -> None:
    journal = site.journal_of(guest)
    _draft(journal).unlink(missing_ok=True)  # an interruption may come in between
    journal.unlink(missing_ok=True)
