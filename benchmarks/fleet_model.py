"""What a simulated fleet knows of the world: how long a stage takes, what a transfer takes.

Times and sizes are those of benchmarks/stage_times.json; which of the measured times a task gets
depends on its name alone, so that two simulations differ in nothing but what is compared.
"""

import hashlib
import json
import random
import threading
import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from distributed import get_worker

from benchmarks.measurement import ROOT
from benchmarks.stage_times import StageTimes
from pipeline.fleet.result import Built
from pipeline.fleet.task_graph import Key, artifact_name
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.stages import STAGES

GIGABIT = 125_000_000  # bytes a second
_CHUNK = 8 << 20  # of a transfer, after which another one has its turn
PROOF_S = 60.0
_SHIPPED = ROOT / "guests"


def write_many_specs(folder: Path, guests: int, golden: int) -> None:
    """Guests by turns from so many golden images, these by turns of the kinds that were measured.

    Two golden images of a kind differ in a package: their base and kernel they share.
    """
    folder.mkdir(parents=True)
    (folder / "defaults.toml").write_text((_SHIPPED / "defaults.toml").read_text())
    kinds = [_SHIPPED / f"{kind}.toml" for kind in sorted(StageTimes.load().guests)]
    for number in range(guests):
        image = number % golden
        text = kinds[image % len(kinds)].read_text()
        packages = [*tomllib.loads(text).get("packages", []), f"golden{image}"]
        kept = [line for line in text.splitlines() if not line.startswith(("packages", "hostname"))]
        lines = [*kept, f"packages = {json.dumps(packages)}", ""]
        name = f"{kinds[image % len(kinds)].stem}-{number:04}"
        (folder / f"{name}.toml").write_text("\n".join(lines))


@dataclass
class World:
    """The model: `speed` times as fast as the real one; bytes a second of the store, and a link."""

    recipe: Recipe
    specs: Mapping[str, Spec]
    speed: float
    store_rate: float = GIGABIT
    link_rate: float = GIGABIT
    times: StageTimes = field(default_factory=StageTimes.load)

    def __post_init__(self) -> None:
        self.store = Link(self, self.store_rate)

    def sleep(self, seconds: float) -> None:
        """So long in the model."""
        time.sleep(seconds / self.speed)

    def now(self) -> float:
        """Seconds of the model."""
        return time.monotonic() * self.speed

    def _facts(self, stage: str, guest: str) -> Any:
        return self.times.guests[guest.rpartition("-")[0]][stage]

    def seconds(self, stage: str, guest: str) -> float:
        """What this stage takes, one of the measured times."""
        if stage == "prove":
            return PROOF_S
        name = artifact_name(self.recipe, stage, self.specs[guest])
        draw = random.Random(hashlib.sha256(f"{stage} {name}".encode()).digest())
        return float(draw.choice(self._facts(stage, guest).seconds))

    def packed(self, stage: str, guest: str) -> int:
        """What travels of it, in bytes."""
        return int(self._facts(stage, guest).packed)

    def length(self, stage: str, guest: str) -> int:
        """Of its files, in bytes."""
        return int(self._facts(stage, guest).length)

    def pack_seconds(self, stage: str, guest: str) -> float:
        """Packing goes by the bytes that the artifact takes; the disks' packing was measured."""
        return self._share(stage, guest) * self.times.pack_cpu[guest.rpartition("-")[0]]

    def unpack_seconds(self, stage: str, guest: str) -> float:
        """The same, of unpacking."""
        return self._share(stage, guest) * self.times.unpack_cpu[guest.rpartition("-")[0]]

    def _share(self, stage: str, guest: str) -> float:
        disk = self._facts("volume", guest).allocated
        return float(self._facts(stage, guest).allocated / disk)


class Link:
    """Bytes a second that all who use it share, a chunk each in turn."""

    def __init__(self, world: World, rate: float) -> None:
        self._world, self._rate = world, rate
        self._free_at, self._lock = 0.0, threading.Lock()
        self.moved = 0

    def reserve(self, size: int) -> float:
        """When these bytes are through."""
        with self._lock:
            self._free_at = max(self._free_at, self._world.now()) + size / self._rate
            self.moved += size
            return self._free_at


class Machine:
    """A simulated worker, or who asked: what lies there, and how its time goes."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.link = Link(world, world.link_rate)
        self.holds: set[str] = set()
        self.building: dict[str, threading.Event] = {}
        self.busy_s = 0.0
        self.pulled = self.pushed = 0
        self._lock = threading.Lock()

    def carry_out(self, order: Mapping[str, Any], key: Key) -> Built:
        """What a worker does with an order: pull what is not there, build, push."""
        stage, guest = str(order["stage"]), str(order["spec"]["name"])
        begun = self.world.now()
        is_proof = key[0] == "prove"
        upper = self.world.recipe.stages if is_proof else before(self.world.recipe, stage)
        self.pull(guest, [name for name in upper if name != "config"])
        if is_proof:
            self.world.sleep(PROOF_S)
        else:
            self.work(stage, guest)
            self.transfer(self.world.packed(stage, guest), is_up=True)
        with self._lock:
            self.busy_s += self.world.now() - begun
        size = 0 if is_proof else self.world.length(stage, guest)
        return Built(key[0], "f" * 64, self.name, seconds=0.0, size=size, was_built=True)

    def work(self, stage: str, guest: str) -> None:
        """Build it, and pack it where it travels."""
        name = artifact_name(self.world.recipe, stage, self.world.specs[guest])
        self.world.sleep(self.world.seconds(stage, guest))
        with self._lock:
            self.holds.add(f"{stage}:{name}")
        self.world.sleep(self.world.pack_seconds(stage, guest))

    def pull(self, guest: str, stages: Iterable[str]) -> None:
        """What is not here yet; two who want the same wait for one of them."""
        for stage in stages:
            name = f"{stage}:{artifact_name(self.world.recipe, stage, self.world.specs[guest])}"
            with self._lock:
                if name in self.holds:
                    continue
                is_mine = name not in self.building
                there = self.building.setdefault(name, threading.Event())
            if not is_mine:
                there.wait()
                continue
            self.transfer(self.world.packed(stage, guest), is_up=False)
            self.world.sleep(self.world.unpack_seconds(stage, guest))
            with self._lock:
                self.holds.add(name)
            there.set()

    def transfer(self, size: int, *, is_up: bool) -> None:
        """Through this machine's link and the store's, at the slower one's pace."""
        for at in range(0, size, _CHUNK):
            piece = min(_CHUNK, size - at)
            through = max(self.link.reserve(piece), self.world.store.reserve(piece))
            self.world.sleep(max(0.0, through - self.world.now()))
        if is_up:
            self.pushed += size
        else:
            self.pulled += size


def before(recipe: Recipe, stage: str) -> list[str]:
    """All stages before one, in their order."""
    wanted = set(recipe.stages[stage].after)
    for name in reversed(recipe.stages):
        if name in wanted:
            wanted |= set(recipe.stages[name].after)
    return [each.name for each in STAGES if each.name in wanted]


# of the workers of this process, by their names
MACHINES: dict[str, Machine] = {}


def carry_out(order: Mapping[str, Any], *_before: Built) -> Built:
    """What the scheduler calls in place of workplace.carry_out."""
    worker = get_worker()
    return MACHINES[str(worker.name)].carry_out(order, cast(Key, worker.get_current_task()))


def carry_out_anywhere(order: Mapping[str, Any], *_before: Built) -> Built:
    """The same, as if all results were small: nothing draws the next task to where they lie."""
    return replace(carry_out(order), size=0)
