"""Twenty guests from two golden images in one command: how well both cores are used."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ({"packages": []}, {"packages": ["less"]})


def write_specs(folder: Path, count: int) -> None:
    """`count` guests, every second one from the same golden image."""
    folder.mkdir()
    (folder / "defaults.toml").write_text('suite = "bookworm"\nsize = "2G"\nswap = "256M"\n')
    for number in range(count):
        packages = json.dumps(GOLDEN[number % len(GOLDEN)]["packages"])
        (folder / f"guest{number:02}.toml").write_text(f"packages = {packages}\n")


def build(output: Path, guests: Path, *words: str) -> tuple[float, float]:
    """Wall and processor seconds of one doit run and all that it started."""
    environment = {**os.environ, "DOMU_OUTPUT": str(output), "DOMU_GUESTS": str(guests)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "doit", "build", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, used


def main() -> None:
    """Build the guests one by one, then all at once, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guests", type=int, default=20)
    count = parser.parse_args().guests
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        write_specs(folder / "guests", count)
        alone: list[float] = []
        for number in range(count):
            wall, _ = build(folder / "alone", folder / "guests", f"name=guest{number:02}")
            alone.append(wall)
        wall, used = build(folder / "together", folder / "guests")
    print(f"{count} guests from {len(GOLDEN)} golden images, {cores} cores")
    print(f"  one command each, in turn: {sum(alone):.1f} s")
    print(f"  one command for all:       {wall:.1f} s, {used:.1f} s of processor time")
    print(f"  wall / (sum of the parts / {cores}): {wall / (sum(alone) / cores):.2f}")
    print(f"  wall / (processor time / {cores}):   {wall / (used / cores):.2f}")


if __name__ == "__main__":
    main()
