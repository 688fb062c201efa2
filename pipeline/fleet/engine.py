"""Dask's scheduler, worker and client as this pipeline uses them: encrypted, bounded, quiet.

A worker is Dask's Worker without its nanny: each order has a process of its own already, and
systemd, or whoever started it, starts the worker again.
"""

import asyncio
import importlib.util
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import dask
from distributed import Client, Scheduler, Security, Worker
from distributed.core import Status

from pipeline.errors import EnvironmentFault
from pipeline.fleet.address import Address, is_loopback
from pipeline.fleet.task_graph import PROVE, PROVE_SECONDS, SECONDS, Key
from pipeline.walls.certificates import Party

CONNECT_S = 20.0
# how long a scheduler that is lost may take to be there again: it is the client that looks for it
PATIENCE_S = 30.0
NO_WORKER_S = 60
# tries on other workers, after an error; deaths of workers under it
RETRIES, MOST_DEATHS = 2, 3
# Sizes are told in KiB: Dask's own estimate of the bandwidth, which it would make of the small
# dict that really moves, begins at a million (worker.py, _update_metrics_received_data)
UNIT = 1024
_BANDWIDTH = 50_000_000 // UNIT
_RETRY_S = 2.0
_SETTINGS: Mapping[str, Any] = {
    "distributed.scheduler.allowed-failures": MOST_DEATHS,
    "distributed.scheduler.bandwidth": _BANDWIDTH,
    "distributed.scheduler.default-task-durations": {
        **{stage: f"{seconds}s" for stage, seconds in SECONDS.items()},
        PROVE: f"{PROVE_SECONDS}s",
    },
    "distributed.scheduler.no-workers-timeout": f"{NO_WORKER_S}s",
    "distributed.scheduler.worker-ttl": "60s",
    "distributed.scheduler.work-stealing": True,
    "distributed.scheduler.http.routes": ["distributed.http.health"],
    "distributed.worker.http.routes": ["distributed.http.health"],
    "distributed.worker.profile.enabled": False,
    "distributed.comm.timeouts.connect": f"{CONNECT_S:.0f}s",
    "distributed.comm.timeouts.tcp": "30s",
    "distributed.admin.system-monitor.gil.enabled": False,
}


def configure() -> None:
    """Our settings, whatever the user's Dask is told elsewhere; and no words of its own."""
    dask.config.set(_SETTINGS)
    for name in ("distributed", "distributed.client", "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def secure(party: Party | None) -> Security:
    """TLS 1.3 with this party's certificate at both ends; without a party none at all."""
    if party is None:
        return Security(require_encryption=False)
    roles = {
        f"tls_{role}_{what}": str(path)
        for role in ("client", "scheduler", "worker")
        for what, path in (("cert", party.certificate), ("key", party.key))
    }
    return Security(
        require_encryption=True,
        tls_ca_file=str(party.authority),
        tls_min_version=ssl.TLSVersion.TLSv1_3,
        **roles,
    )


async def serve_scheduler(
    address: Address, party: Party | None, on_ready: Callable[[str, str], None]
) -> None:
    """Be the scheduler until it is told to end; `on_ready` gets its address and dashboard.

    The dashboard, where bokeh is installed, is for this machine alone: it asks nobody who he is.
    """
    configure()
    has_dashboard = importlib.util.find_spec("bokeh") is not None
    try:
        async with Scheduler(
            host=address.host,
            port=address.port,
            protocol=f"{address.scheme}://",
            security=secure(party),
            dashboard=has_dashboard,
            dashboard_address="127.0.0.1:0",
        ) as scheduler:
            port = scheduler.http_server.port
            link = f"http://127.0.0.1:{port}/status" if has_dashboard else ""
            on_ready(scheduler.address, link)
            await scheduler.finished()
    except OSError as error:
        raise EnvironmentFault(
            f"{address}: {error.strerror or error}", hint="another port: listen=tls://0.0.0.0:8787"
        ) from error


def make_worker(
    address: Address,
    party: Party | None,
    *,
    name: str,
    slots: Mapping[str, float],
    metrics: Mapping[str, Callable[[Worker], Any]],
    folder: str,
) -> Worker:
    """A worker that is not started yet."""
    # with more threads than slots of a kind it would be given what others could begin at once
    threads = int(max(count for slot, count in slots.items() if "-" not in slot))
    return Worker(
        str(address),
        nthreads=threads,
        name=name,
        resources=dict(slots),
        host="127.0.0.1" if is_loopback(address.host) else None,
        protocol=f"{address.scheme}://",
        security=secure(party),
        memory_limit=0,  # an order's memory is its own process's
        local_directory=folder,
        metrics=metrics,
        dashboard=False,
        dashboard_address="127.0.0.1:0",
        death_timeout=CONNECT_S,
    )


async def serve_worker(
    address: Address,
    name: str,
    make: Callable[[], Worker],
    *,
    on_change: Callable[[str], None],
    is_stopped: Callable[[], bool],
) -> None:
    """Be a worker until it is told to stop; a scheduler that is lost is looked for again.

    `make` gives the worker, each time anew. `on_change` gets a line whenever it is connected or no
    more.
    """
    configure()
    last = ""
    while not is_stopped():
        try:
            async with make() as worker:
                on_change(f"{name} works for {address}, as {worker.address}")
                last = ""
                await worker.finished()
            line = f"{address} is lost: {name} looks for it again"
        except (OSError, TimeoutError, RuntimeError, ValueError) as error:
            cause = error.__cause__ or error
            line = f"{name} does not reach {address}: {str(cause) or type(cause).__name__}"
        if line != last and not is_stopped():
            on_change(line)
        last = line
        await asyncio.sleep(0 if is_stopped() else _RETRY_S)


def connect(address: Address, party: Party | None) -> Client:
    """A client of a scheduler that answers (require_scheduler); raises EnvironmentFault."""
    configure()
    try:
        return Client(
            str(address),
            security=secure(party),
            timeout=PATIENCE_S,
            set_as_default=False,
            direct_to_workers=False,
        )
    except (OSError, TimeoutError) as error:
        raise EnvironmentFault(
            f"{address}: {error.__cause__ or error}", hint="doit fleet status shows what is there"
        ) from error


def is_wanted(worker: Worker, key: Key) -> bool:
    """Whether a task that runs in this worker is still asked for; from any thread."""
    task = worker.state.tasks.get(key)
    return (
        worker.status == Status.running
        and task is not None
        and task.state not in ("cancelled", "resumed", "released", "forgotten")
    )
