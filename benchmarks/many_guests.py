"""Many guests from few golden images: one command for all, against one command for each."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measurement import ROOT, Cost, call, measured

GOLDEN: tuple[list[str], ...] = ([], ["less"])


@dataclass(frozen=True)
class Many:
    """Seconds: `alone` is the sum of one command for each, `together` and `work` (its processor
    time) are of one command for all."""

    guests: int
    golden: int
    cores: int
    alone: float
    together: float
    work: float

    @property
    def to_parts(self) -> float:
        """Wall time as a multiple of the parts' sum, divided by the cores."""
        return self.together / (self.alone / self.cores)

    @property
    def to_work(self) -> float:
        """Wall time as a multiple of its own processor time, divided by the cores."""
        return self.together / (self.work / self.cores)


def write_specs(folder: Path, count: int) -> None:
    """`count` guests, every second one from the same golden image."""
    folder.mkdir()
    (folder / "defaults.toml").write_text('suite = "bookworm"\nsize = "2G"\nswap = "256M"\n')
    for number in range(count):
        packages = json.dumps(GOLDEN[number % len(GOLDEN)])
        (folder / f"guest{number:02}.toml").write_text(f"packages = {packages}\n")


def build(output: Path, guests: Path, *words: str) -> Cost:
    """One doit run."""
    with measured() as cost:
        call(
            [ROOT / "doit", "build", *words],
            env={"DOMU_OUTPUT": str(output), "DOMU_GUESTS": str(guests)},
        )
    return cost


def compare_many(count: int) -> Many:
    """Build the guests one by one, then all at once, each from nothing."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        write_specs(folder / "guests", count)
        names = [f"name=guest{number:02}" for number in range(count)]
        alone = [build(folder / "alone", folder / "guests", one).seconds for one in names]
        cost = build(folder / "together", folder / "guests")
    found = Many(
        guests=count,
        golden=len(GOLDEN),
        cores=os.cpu_count() or 1,
        alone=sum(alone),
        together=cost.seconds,
        work=cost.cpu_seconds,
    )
    print(f"many:    {count} guests together {found.together:.1f} s, alone {found.alone:.1f} s")
    return found
