"""Who builds an artifact for all: a file in the shared store that its holder keeps writing anew.

Nobody's clock is compared with another's. A holder writes another number into its file every few
seconds; whoever waits sees by its own clock that nothing changes any more, and takes over. Files
are numbered: whoever creates the next number has it, and that is one step of the place's own.
"""

import json
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.remote.place import MOST_SMALL, Place

FOLDER = "leases"
_Seen = dict[str, bytes]


@dataclass(frozen=True)
class Pace:
    """In seconds: how often a holder writes, when it counts as dead, how often others look."""

    beat_s: float = 5.0
    dead_s: float = 30.0
    look_s: float = 1.0


PACE = Pace()


@contextmanager
def leased(place: Place, name: str, on_wait: Callable[[str], None], pace: Pace) -> Iterator[None]:
    """Hold the lease of this name; `on_wait` is told once who has it, if somebody has.

    Raises PlaceTrouble. Where the place is lost meanwhile the work goes on without a lease: two may
    then do the same, and one of them is published.
    """
    folder = f"{FOLDER}/{name}"
    own = _take(place, folder, on_wait, pace)
    is_over = threading.Event()
    beat = threading.Thread(target=_keep, args=(place, own, is_over, pace), daemon=True)
    beat.start()
    try:
        yield
    finally:
        is_over.set()
        beat.join()
        with suppress(PipelineError):
            _release(place, folder, own)


def _take(place: Place, folder: str, on_wait: Callable[[str], None], pace: Pace) -> str:
    """The file that we hold; waits for who has one."""
    watch = _Watch(place, folder, pace)
    has_spoken = False
    while True:
        living = watch.look()
        if not living:
            own = f"{folder}/{watch.highest + 1:09d}"
            if place.create(own, _describe_self(0)):
                if not watch.look(but=own):
                    return own
                place.remove(own)  # somebody came in between: one of both goes back
                time.sleep(random.uniform(0, pace.look_s))
                continue
        elif not has_spoken:
            on_wait(_name_holder(living[max(living)]))
            has_spoken = True
        time.sleep(pace.look_s * random.uniform(0.5, 1.0))


class _Watch:
    """What files of a lease were seen to change, by this process's own clock."""

    def __init__(self, place: Place, folder: str, pace: Pace) -> None:
        self._place, self._folder, self._pace = place, folder, pace
        self._since: dict[tuple[str, bytes], float] = {}
        self.highest = 0

    def look(self, but: str = "") -> _Seen:
        """The files whose holders live as far as is known, but one's own."""
        now, there = time.monotonic(), dict(self._read(but))
        self._since = {
            (name, content): self._since.get((name, content), now)
            for name, content in there.items()
        }
        return {
            name: content
            for name, content in there.items()
            if now - self._since[name, content] < self._pace.dead_s and not _is_dead_here(content)
        }

    def _read(self, but: str) -> Iterator[tuple[str, bytes]]:
        for listed in self._place.list(self._folder):
            number = listed.name.rpartition("/")[2]
            if number.isdigit() and listed.name != but:
                self.highest = max(self.highest, int(number[:12]))
                with suppress(FileNotFoundError):
                    yield listed.name, self._place.read(listed.name, limit=MOST_SMALL)


def _keep(place: Place, own: str, is_over: threading.Event, pace: Pace) -> None:
    beat = 0
    while not is_over.wait(pace.beat_s):
        beat += 1
        with suppress(PipelineError, FileNotFoundError):
            place.replace(own, _describe_self(beat))


def _release(place: Place, folder: str, own: str) -> None:
    """Ours, and those of the dead before it."""
    for listed in place.list(folder):
        if listed.name <= own and listed.name.rpartition("/")[2].isdigit():
            place.remove(listed.name)


def _describe_self(beat: int) -> bytes:
    holder = {
        "host": os.uname().nodename,
        "boot": _boot_id(),
        "processes": os.readlink("/proc/self/ns/pid"),
        "pid": os.getpid(),
        "beat": beat,
        "word": uuid.uuid4().hex,
    }
    return json.dumps(holder).encode()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _is_dead_here(content: bytes) -> bool:
    """Whether its holder was a process of this very machine that is no more."""
    try:
        holder = json.loads(content)
        is_near = holder["boot"] == _boot_id()
        is_near = is_near and holder["processes"] == os.readlink("/proc/self/ns/pid")
        return is_near and not Path(f"/proc/{int(holder['pid'])}").exists()
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _name_holder(content: bytes) -> str:
    try:
        return ascii(str(json.loads(content)["host"]))[1:-1][:60]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "somebody"
