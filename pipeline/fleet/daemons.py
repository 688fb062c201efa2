"""The two programs of a fleet that stay: its scheduler, and a worker.

Each serves in the foreground until it is told to stop, by a signal or by `doit fleet stop`; one
that has a pipe as its standard input ends when that closes.
"""

import asyncio
import json
import os
import stat
import threading
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import interruption
from pipeline.console.progress import print_line
from pipeline.errors import PipelineError
from pipeline.files import read_table, take, write_durably
from pipeline.fleet import engine
from pipeline.fleet.address import Address
from pipeline.fleet.handshake import require_party
from pipeline.fleet.toolchain import read_toolchain, toolchain_resource
from pipeline.fleet.workplace import HERE, TOPIC, Workplace
from pipeline.project import Project
from pipeline.scratch import remove_abandoned
from pipeline.walls.certificates import Party

# so many orders of one toolchain at once: without a bound of its own
_ANY = 1_000_000.0


def address_file(project: Project) -> Path:
    """Where this machine's scheduler says that it is."""
    return project.output / "fleet" / "scheduler.json"


def find_scheduler(path: Path) -> str:
    """The address of a scheduler that was started here; "" where none was."""
    try:
        return str(take(read_table(path, "a scheduler's address"), "address", str))
    except (FileNotFoundError, PipelineError):
        return ""


def be_scheduler(project: Project, address: Address, party: Party | None) -> None:
    """Serve until it is told to stop."""
    party = require_party(address, party)
    path = address_file(project)
    path.parent.mkdir(parents=True, exist_ok=True)

    def on_ready(address: str, dashboard: str) -> None:
        table = {"address": address, "dashboard": dashboard}
        write_durably(path, json.dumps(table).encode())
        print_line(f"scheduler at {address}" + (f", dashboard {dashboard}" if dashboard else ""))

    interruption.at_interruption(lambda: path.unlink(missing_ok=True))
    try:
        _serve(engine.serve_scheduler(address, party, on_ready))
    finally:
        path.unlink(missing_ok=True)


def be_worker(workplace: Workplace, address: Address, party: Party | None) -> None:
    """Work until it is told to stop, for a scheduler that may come and go."""
    party = require_party(address, party)
    folder = workplace.project.output / "fleet" / "dask"
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(workplace.project.scratch)
    resource = toolchain_resource(read_toolchain())

    HERE[:] = [workplace]
    _serve(
        engine.serve_worker(
            address,
            workplace.name,
            partial(
                engine.make_worker,
                address,
                party,
                name=workplace.name,
                slots={**workplace.slots, resource: _ANY},
                metrics={TOPIC: lambda _worker: workplace.describe()},
                folder=str(folder),
            ),
            on_change=print_line,
            is_stopped=lambda: workplace.is_stopped,
        )
    )


def stop_worker() -> None:
    """What `doit fleet stop` has each worker run: its Dask half is then closed by the scheduler."""
    HERE[0].is_stopped = True


def _serve(course: Coroutine[Any, Any, None]) -> None:
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_end_with_pipe, daemon=True).start()
    asyncio.run(course)


def _end_with_pipe() -> None:
    while os.read(0, 1 << 12):
        pass
    interruption.leave(0)


def describe(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a worker of ours says of itself; of any other nothing."""
    facts = metrics.get(TOPIC)
    return facts if isinstance(facts, dict) else {}
