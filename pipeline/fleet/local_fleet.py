"""workers=local:N: a scheduler and N workers of this machine's own, for one run.

They are programs like those of other machines, with certificates and stores of their own below
output/fleet/local/, and end with the run, however it ends: each has a pipe that closes then.
"""

import os
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline import process
from pipeline.console.progress import print_line
from pipeline.errors import EnvironmentFault, PipelineError
from pipeline.fleet.address import Address, read_address
from pipeline.fleet.daemons import find_scheduler
from pipeline.locks import locked
from pipeline.project import Project
from pipeline.proof.timeouts import VARIABLE as PATIENCE
from pipeline.walls.certificates import Party, find_party, make_authority, make_party
from pipeline.walls.privacy import make_private_folder

_START_S, _END_S = 60.0, 8.0
MOST_THREADS = 4
_POLL_S = 0.1
_PARTY = "local"


@dataclass(frozen=True)
class Joined:
    """A fleet as this run takes part in it: the scheduler, who we are, the URL of its store."""

    address: Address
    party: Party | None
    store: str


class LocalFleet:
    """The programs of one run's own fleet."""

    def __init__(self, project: Project, count: int) -> None:
        self._folder = project.output / "fleet" / "local"
        self._count = count
        self._slots = max(1, min(MOST_THREADS, os.cpu_count() or 1) // count)
        self._stack = ExitStack()
        self._daemons: list[process.Daemon] = []

    def start(self) -> Joined:
        """Start them; waits for another run's. EnvironmentFault where the scheduler does not."""
        folder = self._folder
        make_private_folder(folder)

        def say() -> None:
            print_line(f"waiting for another run's local workers ({folder})")

        self._stack.enter_context(locked(folder / "lock", on_wait=say))
        party = _prepare_party(folder / "certificates")
        store = folder / "store"
        store.mkdir(exist_ok=True)
        address_file = folder / "scheduler" / "fleet" / "scheduler.json"
        address_file.unlink(missing_ok=True)
        own = [f"certificates={party.folder}", f"party={party.name}"]
        daemon = self._start("scheduler", ["scheduler", "listen=tls://127.0.0.1:0", *own])
        address = read_address(_wait_for(address_file, daemon, folder))
        for number in range(1, self._count + 1):
            words = ["worker", f"scheduler={address}", f"worker=local-{number}", *own]
            self._start(str(number), [*words, f"build={self._slots}", f"store=file://{store}"])
        return Joined(address, party, f"file://{store}")

    def end(self) -> None:
        """Close their pipes, give them a moment, kill what is left."""
        daemons, self._daemons = self._daemons, []
        for daemon in daemons:
            if daemon.stdin is not None:
                daemon.stdin.close()
        end = time.monotonic() + _END_S
        for daemon in daemons:
            with suppress(process.TimeoutExpired):
                daemon.wait(timeout=max(0.1, end - time.monotonic()))
            daemon.kill()
            daemon.wait()
        self._stack.close()

    def _start(self, name: str, words: list[str]) -> process.Daemon:
        """A program of ours beside this one, with an output folder of its own."""
        output = self._folder / name
        output.mkdir(exist_ok=True)
        variables = [f"DOMU_OUTPUT={output}", f"DOMU_GUESTS={output / 'guests'}"]
        variables += [f"{PATIENCE}={os.environ[PATIENCE]}"] if PATIENCE in os.environ else []
        if sys.pycache_prefix:
            variables.append(f"PYTHONPYCACHEPREFIX={sys.pycache_prefix}")
        argv = ["env", *variables, sys.executable, "-m", "pipeline", "fleet", *words]
        daemon = process.start_daemon(argv, log=output / "log", is_tethered=True)
        self._daemons.append(daemon)
        return daemon


def _prepare_party(folder: Path) -> Party:
    now = datetime.now(UTC)
    make_authority(folder, now)
    try:
        party = find_party(folder, _PARTY)
        party.require_valid(now)
        return party
    except PipelineError:
        return make_party(folder, _PARTY, ["127.0.0.1"], now, renew=True)


def _wait_for(path: Path, daemon: process.Daemon, folder: Path) -> str:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and daemon.poll() is None:
        if address := find_scheduler(path):
            return address
        time.sleep(_POLL_S)
    log = folder / "scheduler" / "log"
    told = log.read_text(errors="replace")[-2000:] if log.is_file() else ""
    raise EnvironmentFault("the local scheduler did not start", details=told, hint=f"see {log}")
