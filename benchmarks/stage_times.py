"""`python -m benchmarks.stage_times`: how long stages take and how large what they make is.

Cold builds of the shipped guests, one task at a time, then the guest half of each again and again
under other host names. What it finds is what benchmarks/fleet_simulation.py draws from.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.measurement import ROOT, call, measured
from pipeline.artifact.block_stream import read_stream, write_stream
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import load_all
from pipeline.stages import STAGES
from pipeline.store.store import BuildInfo

TIMES = ROOT / "benchmarks" / "stage_times.json"


@dataclass
class StageFacts:
    """Of one guest's stage: wall times in seconds; bytes as they are, on the disk and packed."""

    seconds: list[float] = field(default_factory=list)
    length: int = 0
    allocated: int = 0
    packed: int = 0


@dataclass
class StageTimes:
    """Guest -> stage -> what was measured; processor seconds of one guest's half, made and carried.

    `loads` is the machine's load average before each round: how much else it did.
    """

    made: str
    cores: int
    loads: list[float] = field(default_factory=list)
    guest_half_cpu: dict[str, float] = field(default_factory=dict)
    pack_cpu: dict[str, float] = field(default_factory=dict)
    unpack_cpu: dict[str, float] = field(default_factory=dict)
    guests: dict[str, dict[str, StageFacts]] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Self:
        """What was measured last."""
        table = json.loads(TIMES.read_text())
        guests = {
            guest: {stage: StageFacts(**facts) for stage, facts in stages.items()}
            for guest, stages in table.pop("guests").items()
        }
        return cls(**table, guests=guests)

    def write(self) -> None:
        """Numbers on one line each, so that a change of one is a change of a line."""
        text = json.dumps(asdict(self), indent=1, sort_keys=True)
        TIMES.write_text(f"{text}\n")


def build(output: Path, *words: str) -> float:
    """One doit run, one task at a time; its processor seconds."""
    with measured() as cost:
        call([ROOT / "doit", "build", "-n", "1", *words], env={"DOMU_OUTPUT": str(output)})
    return cost.cpu_seconds


def read_built(output: Path) -> dict[str, dict[str, tuple[BuildInfo, Path]]]:
    """Guest -> stage -> its record and folder."""
    recipe = Recipe(Project(ROOT, output, ROOT / "guests"), STAGES)
    found: dict[str, dict[str, tuple[BuildInfo, Path]]] = {}
    for guest, spec in load_all(ROOT / "guests").items():
        for stage in STAGES:
            state = recipe.state(stage.name, spec)
            if state.buildinfo:
                found.setdefault(guest, {})[stage.name] = (state.buildinfo, state.folder)
    return found


def measure_folder(facts: StageFacts, folder: Path, scratch: Path) -> None:
    """The sizes of an artifact; packed as images and whatever else travels is."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    states = [path.stat() for path in files]
    facts.length = sum(state.st_size for state in states)
    facts.allocated = sum(state.st_blocks * 512 for state in states)
    facts.packed = 0
    for path in files:
        target = scratch / "packed"
        write_stream(path, target)
        facts.packed += target.stat().st_size
        target.unlink()


def measure_sizes(times: StageTimes, output: Path) -> None:
    """Of everything that was built: bytes, and for disks what packing and unpacking takes."""
    project = Project(ROOT, output, ROOT / "guests")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        scratch = Path(name)
        for guest, built in read_built(output).items():
            folders = {stage: folder for stage, (_, folder) in built.items()}
            own = {"volume": project.volume(guest), "config": project.artifact(guest)}
            for stage, folder in {**folders, **own}.items():
                measure_folder(times.guests[guest][stage], folder, scratch)
            measure_carrying(times, guest, project.artifact(guest) / "disk.img", scratch)


def measure_carrying(times: StageTimes, guest: str, disk: Path, scratch: Path) -> None:
    """Processor seconds of a disk that is packed, and unpacked again."""
    packed, again = scratch / "packed", scratch / "again"
    started = time.process_time()
    write_stream(disk, packed)
    times.pack_cpu[guest] = round(time.process_time() - started, 3)
    started = time.process_time()
    read_stream(packed, again, size=disk.stat().st_size)
    times.unpack_cpu[guest] = round(time.process_time() - started, 3)
    packed.unlink()
    again.unlink()


def add_seconds(times: StageTimes, output: Path, stages: tuple[str, ...]) -> None:
    """What the last builds took, as their records say."""
    for guest, built in read_built(output).items():
        for stage in stages:
            known = times.guests.setdefault(guest, {}).setdefault(stage, StageFacts())
            known.seconds.append(built[stage][0].seconds)


def measure(rounds: int, repeats: int) -> StageTimes:
    """`rounds` cold builds of all guests, `repeats` of the guest half after each."""
    times = StageTimes(
        f"python -m benchmarks.stage_times --rounds {rounds} --repeats {repeats}",
        os.cpu_count() or 1,
    )
    guests = sorted(load_all(ROOT / "guests"))
    for number in range(rounds):
        times.loads.append(round(os.getloadavg()[0], 1))
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            output = Path(name) / "work"
            build(output)
            add_seconds(times, output, tuple(stage.name for stage in STAGES))
            print(f"round {number + 1}: load {times.loads[-1]}", flush=True)
            for repeat in range(repeats):
                add_guest_half(times, output, guests, repeat)
            if number == rounds - 1:
                measure_sizes(times, output)
    return times


def add_guest_half(times: StageTimes, output: Path, guests: list[str], repeat: int) -> None:
    """volume and config of each guest once more, under another host name."""
    for guest in guests:
        cpu = build(output, f"name={guest}", f"hostname=again{repeat}")
        times.guest_half_cpu[guest] = min(cpu, times.guest_half_cpu.get(guest, cpu))
        project = Project(ROOT, output, ROOT / "guests")
        for stage, folder in (
            ("volume", project.volume(guest)),
            ("config", project.artifact(guest)),
        ):
            seconds = json.loads((folder / "buildinfo.json").read_text())["seconds"]
            times.guests[guest][stage].seconds.append(seconds)


def main() -> None:
    """Measure, and write benchmarks/stage_times.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stage_times", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="cold builds of all shipped guests")
    parser.add_argument("--repeats", type=int, default=4, help="guest halves after each round")
    options = parser.parse_args()
    measure(options.rounds, options.repeats).write()


if __name__ == "__main__":
    main()
