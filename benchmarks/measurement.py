"""What a run costs: wall time, bytes written to disk, and the most memory that it took."""

import os
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECTOR = 512
SAMPLE_S = 0.1


@dataclass
class Cost:
    """Of one run: `memory_mib` is what the machine had less at the worst moment, tmpfs included.

    `written_mib` is what its processes gave the disks to write (getrusage(2), ru_oublock).
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    written_mib: float = 0.0
    memory_mib: float = 0.0


@contextmanager
def measured() -> Iterator[Cost]:
    """Fill in the cost of what the block's child processes do."""
    cost, before = Cost(), resource.getrusage(resource.RUSAGE_CHILDREN)
    ended, lowest = threading.Event(), [available_mib()]
    start_mib = lowest[0]

    def watch() -> None:
        while not ended.wait(SAMPLE_S):
            lowest[0] = min(lowest[0], available_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    try:
        yield cost
    finally:
        cost.seconds = time.monotonic() - started
        ended.set()
        watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost.cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cost.written_mib = (after.ru_oublock - before.ru_oublock) * SECTOR / (1 << 20)
    cost.memory_mib = start_mib - lowest[0]


def available_mib() -> float:
    """proc(5), MemAvailable."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return 0.0


@dataclass
class Costs:
    """Of several runs of one thing; properties are medians."""

    runs: list[Cost] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Wall time."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def cpu_seconds(self) -> float:
        """Processor time."""
        return statistics.median(run.cpu_seconds for run in self.runs)

    @property
    def written_mib(self) -> float:
        """Written to disk."""
        return statistics.median(run.written_mib for run in self.runs)

    @property
    def memory_mib(self) -> float:
        """At the worst moment."""
        return statistics.median(run.memory_mib for run in self.runs)


def call_peer(argv: Sequence[object], *, env: Mapping[str, str] | None = None) -> str:
    """A peer's program, which would hand our environment on into its chroots, in a clean one.

    It is alone in a mount namespace: peers mount in the sight of everybody, and may leave it.
    """
    alone = ["unshare", "--mount", "--propagation", "private", "--"]
    kept = [f"{key}={os.environ[key]}" for key in ("PATH", "HOME") if key in os.environ]
    given = [f"{key}={value}" for key, value in (env or {}).items()]
    return call(["env", "-i", *kept, "LC_ALL=C.UTF-8", *given, *alone, *argv])


def call(argv: Sequence[object], *, env: Mapping[str, str] | None = None) -> str:
    """Run a contender's program to its end; what it says is shown when it fails."""
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{argv[0]} failed:\n{done.stdout[-3000:]}")
    return done.stdout
