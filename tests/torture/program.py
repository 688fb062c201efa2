"""doit as it is, over a golden half of a few files, in a forked child: a run takes half a second.

The child is a process group of its own, like a command that a shell starts; what it says goes to a
file. `watcher` is called at every checkpoint of the pipeline (pipeline/interruption.py).
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pipeline.graph
from pipeline import __main__ as program
from pipeline import interruption
from tests import small
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ground:
    """Where runs happen: specs, the output folder, and a Xen host's folders."""

    root: Path

    @classmethod
    def make(cls, root: Path, *names: str) -> Ground:
        """With these guests' specs."""
        small.make_project(root, *names, size="256M")
        return cls(root)

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def host(self) -> Path:
        return self.root / "host"

    def run(self, *argv: str, version: str = "1") -> tuple[int, str]:
        """Run to the end: exit code (minus the signal), and what was said."""
        return self.start(*argv, version=version).wait()

    def ends(self, code: int, *argv: str) -> str:
        """Run to the end, which is with this exit code; what was said."""
        ended, said = self.run(*argv)
        assert ended == code, said
        return said

    def start(
        self,
        *argv: str,
        version: str = "1",
        watcher: interruption.Watcher | None = None,
        plug: Callable[[], None] | None = None,
    ) -> Run:
        """Run it in a child; `plug` gives it other streams."""
        said = self.root / "said"
        said.write_text("")  # before the child: a kill may come before it says anything
        child = os.fork()
        if child == 0:
            status = 99
            try:
                os.setsid()
                _become(self, said, plug)
                interruption.watch(watcher)
                vars(pipeline.graph)["STAGES"] = tuple(small.make_stages(version))
                sys.argv = ["doit", *argv]
                program.main()
            except BaseException:  # noqa: BLE001 - a copy of pytest must not go on
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        return Run(child, said)


def _become(ground: Ground, said: Path, plug: Callable[[], None] | None) -> None:
    """Nothing of pytest's: its streams, its signals."""
    os.chdir(ROOT)
    os.environ |= {
        "DOMU_OUTPUT": str(ground.output),
        "DOMU_GUESTS": str(ground.root / "guests"),
        "DOMU_ROOT": str(ground.host),
    }
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.alarm(0)
    if plug is not None:
        plug()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))


@dataclass(frozen=True)
class Run:
    """A child that runs doit."""

    pid: int
    said: Path

    def wait(self, timeout_s: float = PATIENCE_S) -> tuple[int, str]:
        """Its exit code, minus the signal that ended it, and what it said."""
        end = time.monotonic() + timeout_s
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status), self.said.read_text(errors="replace")
            if time.monotonic() > end:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"it did not end: {self.said.read_text(errors='replace')}")
            time.sleep(0.005)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)
