"""What any user of the machine can see of the processes that a test starts."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

LOOK_EVERY_S = 0.005


@dataclass
class Onlooker:
    """Reads the command line and the environment of every new process, again and again."""

    words: tuple[bytes, ...]
    seen: dict[str, str] = field(default_factory=dict)
    rounds: int = 0
    processes: set[int] = field(default_factory=set)

    def __enter__(self) -> Onlooker:
        self._end = threading.Event()
        self._before = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.is_set():
            for name in os.listdir("/proc"):
                if name.isdigit() and int(name) not in self._before:
                    self._look_at(int(name))
            self.rounds += 1
            time.sleep(LOOK_EVERY_S)

    def _look_at(self, number: int) -> None:
        for file in ("cmdline", "environ"):
            try:
                content = Path(f"/proc/{number}/{file}").read_bytes()
            except OSError:
                continue
            self.processes.add(number)
            if any(word in content for word in self.words):
                self.seen[file] = content[:500].decode(errors="replace")
