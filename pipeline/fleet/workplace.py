"""A worker's place: its folder, and what it does there for others.

An order has a process of its own. It dies with the worker (PR_SET_PDEATHSIG), and all that it has
started dies with it; what it leaves half made in scratch the next one removes.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from distributed import Worker, get_worker
from distributed.utils import sync

from pipeline import ROOT, process
from pipeline.console.terminal import printable
from pipeline.diagnosis import explained, is_disk_full
from pipeline.errors import EnvironmentFault, PipelineError
from pipeline.files import read_table
from pipeline.fleet.engine import is_wanted
from pipeline.fleet.orders import SOURCES
from pipeline.fleet.result import Built, OrderFailed, Proven
from pipeline.fleet.task_graph import BUILD, PROVE, Key
from pipeline.fleet.toolchain import read_toolchain
from pipeline.project import Project
from pipeline.proof.timeouts import VARIABLE as PATIENCE
from pipeline.scratch import remove_abandoned, scratch_folder

TOPIC = "domu"
REST_S = 60.0


class _Unwanted(PipelineError):
    """Nobody waits for the order any more."""


@dataclass
class Workplace:
    """What a worker process has and does; `certificates` and `party` are those it signs with."""

    project: Project
    name: str
    slots: Mapping[str, float]
    certificates: str = ""
    party: str = ""
    store: str = ""
    builder: str = "pipeline.fleet.builder"
    building: dict[str, float] = field(default_factory=dict)
    built: int = 0
    moved: int = 0
    resting: str = ""
    is_stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def describe(self) -> dict[str, Any]:
        """For `doit fleet status`, with every heartbeat."""
        now = time.monotonic()
        return {
            "name": self.name,
            "slots": dict(self.slots),
            "building": {what: round(now - begun, 1) for what, begun in self.building.items()},
            "built": self.built,
            "moved": self.moved,
            "resting": self.resting,
            "toolchain": dict(read_toolchain()),
        }

    def carry_out(self, order: Mapping[str, Any], key: Key) -> Built | Proven:
        """Have an order done. Raises OrderFailed, so that another worker gets it."""
        worker = get_worker()
        slot = PROVE if key[0] == PROVE else BUILD
        try:
            with self._noted(f"{key[0]}:{key[1].partition('@')[0]}"), explained():
                said = self._have_done(worker, order, key)
        except (PipelineError, OSError) as error:
            remove_abandoned(self.project.scratch)
            if isinstance(error, EnvironmentFault | OSError) or is_disk_full(error):
                self._rest(worker, str(error), slot)
            raise OrderFailed(printable(f"{self.name}: {error}")) from None
        if "error" in said:
            if said["exit_code"] == EnvironmentFault.exit_code:
                self._rest(worker, said["error"], slot)
            raise OrderFailed(printable(f"{self.name}: {said['error']}"))
        if "proven" in said:
            with self._lock:
                self.moved += said["proven"]["moved"]
            return Proven(self.name, **said["proven"])
        built = Built(key[0], worker=self.name, **said["built"])
        with self._lock:
            self.built += built.was_built
            self.moved += built.moved
        return built

    def _have_done(self, worker: Worker, order: Mapping[str, Any], key: Key) -> dict[str, Any]:
        """What a builder's process answers."""

        def watch(_line: str) -> None:
            if not is_wanted(worker, key):
                raise _Unwanted(f"{key[0]} is asked for no more")

        with scratch_folder(self.project.scratch, "order", mode=0o700) as folder:
            worker.log_event(TOPIC, {"by": self.name, "begins": list(key)})
            answer, apt = folder / "answer", folder / "apt"
            apt.mkdir()
            (apt / SOURCES).write_text(order["sources"])
            words = [sys.executable, "-m", self.builder, str(self.project.output), str(answer)]
            told = {**order, "certificates": self.certificates, "party": self.party}
            told["store"] = self.store or order["store"]
            process.run(
                words,
                cwd=ROOT,
                env=_environment(apt),
                stdin=json.dumps(told).encode(),
                on_line=watch,
            )
            return read_table(answer, "a builder's answer")

    @contextmanager
    def _noted(self, what: str) -> Iterator[None]:
        with self._lock:
            self.building[what] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self.building.pop(what, None)

    def _rest(self, worker: Any, why: str, slot: str) -> None:
        """Its disk is full, or a program is missing: others go on; it tries again later."""
        self.resting = why
        sync(worker.loop, worker.set_resources, **{slot: 0})

        async def resume() -> None:
            self.resting = ""
            await worker.set_resources(**{slot: self.slots[slot]})

        worker.loop.add_callback(worker.loop.call_later, REST_S, resume)


# that of this process, once it is a worker's
HERE: list[Workplace] = []


def _environment(apt: Path) -> dict[str, str]:
    """Where apt's sources are; what reaches a store; its patience; where compiled modules lie."""
    kept = {
        name: text
        for name, text in os.environ.items()
        if name.startswith("AWS_") or name == PATIENCE
    }
    cache = {"PYTHONPYCACHEPREFIX": sys.pycache_prefix} if sys.pycache_prefix else {}
    return {**kept, **cache, "DOMU_APT_FOLDER": str(apt)}


def carry_out(order: Mapping[str, Any], *_before: Built) -> Built | Proven:
    """What the scheduler calls: `_before` are what it waited for, which lies in the store."""
    key = cast(Key, get_worker().get_current_task())
    return HERE[0].carry_out(order, key)
