"""A fleet of many workers in one process: Dask's scheduler and workers, and our graph, are real.

What a worker does with an order is not: it sleeps for what stages were measured to take, and for
what their artifacts take on their way (fleet_model.py). The guest half, which who asks makes, is
reckoned: nobody schedules it but a queue.
"""

import asyncio
import heapq
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal
from unittest.mock import patch

from distributed import Client, Future

from benchmarks.fleet_model import (
    GIGABIT,
    MACHINES,
    Machine,
    World,
    before,
    carry_out,
    carry_out_anywhere,
    write_many_specs,
)
from pipeline.fleet import engine
from pipeline.fleet.address import Address
from pipeline.fleet.result import Built
from pipeline.fleet.task_graph import BUILD, PROVE, FleetTask, Key, key_of, make_tasks
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import load_all
from pipeline.stages import STAGES

_MADE_OF = "simulated"
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Case:
    """What is simulated; rates in bytes a second, of the store and of each machine's link.

    `here_cores` are the threads of who asks. `order` is what
    tasks are ranked by: as we do, not at all, or by the longest way as if all times were known.
    """

    guests: int = 1000
    golden: int = 40
    workers: int = 32
    proves: bool = False
    store_rate: float = 10.0 * GIGABIT
    link_rate: float = 1.0 * GIGABIT
    here_cores: int = 4
    order: Literal["ours", "none", "longest"] = "ours"
    weighs_places: bool = True
    speed: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """Seconds of the model; bytes.

    `fleet_s` is until the workers are done, `all_s` until who asked is.
    """

    case: Case
    tasks: int
    fleet_s: float
    all_s: float
    longest_s: float
    work_s: float
    pulled_bytes: int
    pushed_bytes: int
    fetched_bytes: int
    busy: float

    @property
    def bound_s(self) -> float:
        """No schedule of the workers' tasks takes less: the longest way, or the work in parts."""
        return max(self.longest_s, self.work_s / self.case.workers)


@dataclass
class Run:
    """One that goes on."""

    case: Case
    world: World
    tasks: dict[Key, FleetTask]
    machines: list[Machine]
    here: Machine
    ready: dict[Key, float] = field(default_factory=dict)


def simulate(case: Case) -> Outcome:
    """Have a graph of so many guests carried out."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        write_many_specs(folder / "guests", case.guests, case.golden)
        recipe = Recipe(Project(folder, folder / "output", folder / "guests"), STAGES)
        specs = load_all(folder / "guests")
        world = World(recipe, specs, case.speed, case.store_rate, case.link_rate)
        machines = [Machine(world, f"worker{number:02}") for number in range(case.workers)]
        tasks = make_tasks(recipe, specs.values(), made_of=_MADE_OF, proves=case.proves)
        run = Run(case, world, tasks, machines, Machine(world, "here"))
        MACHINES.clear()
        MACHINES.update({machine.name: machine for machine in machines})
        with serve_fleet(run, folder) as client:
            begun = world.now()
            futures = hand_over(client, run)
            fetcher = threading.Thread(target=fetch, args=(run, futures))
            fetcher.start()
            for future in futures.values():
                future.result()
            fleet_s = world.now() - begun
            fetcher.join()
        all_s = max(fleet_s, make_guest_halves(run) - begun)
        return account(run, fleet_s, all_s)


def rank(run: Run) -> Callable[[Key], int]:
    """What each task's priority is made of."""
    if run.case.order == "ours":
        return lambda key: run.tasks[key].priority
    if run.case.order == "none":
        return lambda _key: 0
    way = dict.fromkeys(run.tasks, 0.0)
    for key in reversed(run.tasks):
        way[key] += run.world.seconds(key[0], run.tasks[key].guest)
        for upper in run.tasks[key].after:
            way[upper] = max(way[upper], way[key])
    return lambda key: round(10 * way[key])


def hand_over(client: Client, run: Run) -> dict[Key, Future[Built]]:
    """As dispatch.py does."""
    futures: dict[Key, Future[Built]] = {}
    priority = rank(run)
    for key, task in run.tasks.items():
        futures[key] = client.submit(
            carry_out if run.case.weighs_places else carry_out_anywhere,
            {"stage": task.stage, "spec": {"name": task.guest}},
            *(futures[upper] for upper in task.after),
            key=key,
            priority=priority(key),
            resources={task.slot: 1},
            retries=engine.RETRIES,
            pure=False,
        )
    return futures


def fetch(run: Run, futures: Mapping[Key, Future[Built]]) -> None:
    """Who asks gets every golden image, as it comes."""
    if run.case.proves:
        return
    waiting = {key: futures[key] for key in run.tasks if key[0] == "image"}
    while waiting:
        for key in [key for key, future in waiting.items() if future.done()]:
            run.here.pull(run.tasks[key].guest, [*before(run.world.recipe, "image"), "image"])
            run.ready[key] = run.world.now()
            del waiting[key]
        run.world.sleep(0.1)


def make_guest_halves(run: Run) -> float:
    """When the last guest is ready, if a thread a core takes the next whose image is there."""
    if run.case.proves:
        return 0.0
    arrivals = sorted(
        (run.ready[key_of(run.world.recipe, "image", spec, made_of=_MADE_OF)], guest)
        for guest, spec in run.world.specs.items()
    )
    free = [0.0] * run.case.here_cores
    for arrived, guest in arrivals:
        seconds = sum(run.world.seconds(stage, guest) for stage in ("volume", "config"))
        heapq.heapreplace(free, max(free[0], arrived) + seconds)
    return max(free)


def account(run: Run, fleet_s: float, all_s: float) -> Outcome:
    """What it came to, and what it could have."""
    seconds = {key: run.world.seconds(key[0], task.guest) for key, task in run.tasks.items()}
    ends: dict[Key, float] = {}
    for key, task in run.tasks.items():
        ends[key] = seconds[key] + max((ends[upper] for upper in task.after), default=0.0)
    return Outcome(
        run.case,
        len(run.tasks),
        fleet_s,
        all_s,
        max(ends.values()),
        sum(seconds.values()),
        sum(machine.pulled for machine in run.machines),
        sum(machine.pushed for machine in run.machines),
        run.here.pulled,
        sum(machine.busy_s for machine in run.machines) / (fleet_s * run.case.workers),
    )


@contextmanager
def serve_fleet(run: Run, folder: Path) -> Iterator[Client]:
    """A scheduler, and a worker for each machine, on a loop of their own."""
    listens, ended = threading.Event(), threading.Event()
    ports: list[int] = []

    def on_ready(address: str, _dashboard: str) -> None:
        ports.append(int(address.rpartition(":")[2]))
        listens.set()

    async def serve() -> None:
        begin = asyncio.create_task
        scheduler = begin(engine.serve_scheduler(Address("tcp", _LOOPBACK, 0), None, on_ready))
        while not ports:
            await asyncio.sleep(0.01)
        slots = {BUILD: 1.0, PROVE: 1.0} if run.case.proves else {BUILD: 1.0}
        address = Address("tcp", _LOOPBACK, ports[0])
        make = partial(engine.make_worker, address, None, slots=slots, metrics={})
        workers = [
            begin(
                engine.serve_worker(
                    address,
                    machine.name,
                    partial(make, name=machine.name, folder=str(folder / machine.name)),
                    on_change=lambda _line: None,
                    is_stopped=ended.is_set,
                )
            )
            for machine in run.machines
        ]
        while not ended.is_set():
            await asyncio.sleep(0.1)
        for task in (*workers, scheduler):
            task.cancel()
        await asyncio.gather(*workers, scheduler, return_exceptions=True)

    with patch.dict(engine._SETTINGS, scaled_settings(run.case.speed)):
        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        listens.wait()
        client = engine.connect(Address("tcp", _LOOPBACK, ports[0]), None)
        try:
            client.wait_for_workers(len(run.machines))
            yield client
        finally:
            client.close()
            ended.set()
            thread.join()


def scaled_settings(speed: float) -> dict[str, object]:
    """What the scheduler is told of times, in those of a model that is so much faster."""
    durations = engine._SETTINGS["distributed.scheduler.default-task-durations"]
    return {
        "distributed.scheduler.bandwidth": engine._SETTINGS["distributed.scheduler.bandwidth"]
        * speed,
        "distributed.scheduler.default-task-durations": {
            stage: f"{float(text.removesuffix('s')) / speed}s" for stage, text in durations.items()
        },
        "distributed.scheduler.work-stealing-interval": f"{1000 / speed:.0f}ms",
    }
