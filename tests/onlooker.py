"""What any user of the machine can see while a test runs."""

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self


class Lookout:
    """Looks again and again, in a thread of its own."""

    rounds = 0
    pause_s = 0.005

    def __enter__(self) -> Self:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_on)
        self._thread.start()
        return self

    def look(self) -> None:
        """Once."""
        raise NotImplementedError

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._end.is_set():
            self.look()
            self.rounds += 1
            time.sleep(self.pause_s)


@dataclass
class Onlooker(Lookout):
    """Reads the command line and the environment of every new process."""

    words: tuple[bytes, ...]
    seen: dict[str, str] = field(default_factory=dict)
    processes: set[int] = field(default_factory=set)
    before: frozenset[str] = field(default_factory=lambda: frozenset(os.listdir("/proc")))

    def look(self) -> None:
        for name in os.listdir("/proc"):
            if name.isdigit() and name not in self.before:
                self._look_at(int(name))

    def _look_at(self, number: int) -> None:
        for file in ("cmdline", "environ"):
            try:
                content = Path(f"/proc/{number}/{file}").read_bytes()
            except OSError:
                continue
            self.processes.add(number)
            if any(word in content for word in self.words):
                self.seen[file] = content[:500].decode(errors="replace")
