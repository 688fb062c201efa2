"""`python -m benchmarks.fleet`: what a fleet costs and what it brings.

Fifty guests from three golden images are built for real, here alone and by local workers (programs
of their own, with stores of their own, over TLS). A thousand guests are simulated.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import page
from benchmarks.fleet_model import GIGABIT
from benchmarks.fleet_simulation import Case, Outcome, simulate
from benchmarks.measurement import ROOT, Cost, call, measured
from benchmarks.picture import draw_lines

PAGE = ROOT / "docs/explanation/fleet.md"
PICTURE = PAGE.with_suffix(".svg")
GUESTS = 50
GOLDEN: tuple[list[str], ...] = ([], ["less"], ["nano", "file"])
WORKERS = (0, 1, 2)
SCALES = (1, 2, 4, 8, 16, 32, 64)
_MIB = 1 << 20


@dataclass(frozen=True)
class Real:
    """One real build: by how many workers, what it cost, what they moved, the load before."""

    workers: int
    cost: Cost
    built: int
    moved_mib: float
    load: float


def write_specs(folder: Path) -> None:
    """Guests by turns from the golden images."""
    folder.mkdir()
    (folder / "defaults.toml").write_text('suite = "bookworm"\nsize = "2G"\nswap = "256M"\n')
    for number in range(GUESTS):
        packages = json.dumps(GOLDEN[number % len(GOLDEN)])
        (folder / f"guest{number:02}.toml").write_text(f"packages = {packages}\n")


def build(workers: int) -> Real:
    """From nothing; the downloaded packages too."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        return _build(Path(name), workers)


def _build(folder: Path, workers: int) -> Real:
    write_specs(folder / "guests")
    output, events = folder / "output", folder / "events"
    words = [f"workers=local:{workers}"] if workers else []
    env = {"DOMU_OUTPUT": str(output), "DOMU_GUESTS": str(folder / "guests")}
    load = os.getloadavg()[0]
    with measured() as cost:
        call([ROOT / "doit", "build", f"events={events}", *words], env=env)
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    ended = [line for line in lines if line.get("event") == "fleet ended"]
    return Real(
        workers,
        cost,
        len([line for line in ended if line["built"]]),
        sum(line["moved"] for line in ended) / _MIB,
        load,
    )


def render_real(runs: Sequence[Real]) -> str:
    """The table; ratios are to the build of this machine alone."""
    alone = runs[0].cost
    lines = [
        f"{GUESTS} guests from {len(GOLDEN)} golden images, bookworm, 2G; {os.cpu_count()} cores; "
        "each from nothing.\n",
        "| | time | ratio | processor | ratio | built by workers | moved by them | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        what = f"`workers=local:{run.workers}`" if run.workers else "this machine alone"
        time_ratio = run.cost.seconds / alone.seconds
        cpu_ratio = run.cost.cpu_seconds / alone.cpu_seconds
        lines.append(
            f"| {what} | {run.cost.seconds:.0f} s | {time_ratio:.2f} "
            f"| {run.cost.cpu_seconds:.0f} s | {cpu_ratio:.2f} | {run.built} "
            f"| {run.moved_mib:.0f} MiB | {run.load:.0f} |"
        )
    return "\n".join(lines) + "\n"


def list_cases(workers: int) -> dict[str, Case]:
    """What is changed of the simulation, one thing at a time, and what it is called."""
    usual = Case(workers=workers, speed=2)
    return {
        "as it is": usual,
        "the same, a model of half the speed": replace(usual, speed=1),
        "tasks in no order": replace(usual, order="none"),
        "the longest way first, as if known": replace(usual, order="longest"),
        "where things lie is not weighed": replace(usual, weighs_places=False),
        "a store of 1 Gbit/s": replace(usual, store_rate=GIGABIT),
        "every guest proven by workers, 60 s each": replace(usual, proves=True, speed=20),
    }


def simulate_all(cases: Mapping[str, Case]) -> dict[str, Outcome]:
    """One after the other."""
    outcomes = {}
    for name, case in cases.items():
        outcomes[name] = simulate(case)
        print(f"{name}, {case.workers} workers: {outcomes[name]}", flush=True)
    return outcomes


def render_simulated(outcomes: Iterable[tuple[str, Outcome]]) -> str:
    """The table; bound and ratio are of the workers' part."""
    lines = [
        "| | workers | tasks | workers done | bound | ratio | all ready | pulled | to the store "
        "| fetched |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {outcome.case.workers} | {outcome.tasks} | {outcome.fleet_s:.0f} s "
        f"| {outcome.bound_s:.0f} s | {outcome.fleet_s / outcome.bound_s:.2f} "
        f"| {outcome.all_s:.0f} s | {outcome.pulled_bytes / 1e9:.1f} GB "
        f"| {outcome.pushed_bytes / 1e9:.1f} GB | {outcome.fetched_bytes / 1e9:.1f} GB |"
        for name, outcome in outcomes
    ]
    return "\n".join(lines) + "\n"


def draw(outcomes: Mapping[int, Outcome]) -> str:
    """Over the number of workers."""
    series = {
        "golden images ready": {step: outcome.fleet_s for step, outcome in outcomes.items()},
        "what no schedule beats": {step: outcome.bound_s for step, outcome in outcomes.items()},
        "1000 guests ready": {step: outcome.all_s for step, outcome in outcomes.items()},
    }
    return draw_lines(series, title="40 golden images, 1000 guests (simulated)", across="workers")


def main() -> None:
    """Run, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("what", choices=("run", "simulate"))
    parser.add_argument("--write", action="store_true", help=f"put it into {PAGE.name}")
    options = parser.parse_args()
    if options.what == "run":
        table = render_real([build(workers) for workers in WORKERS])
    else:
        scaled = {workers: simulate(Case(workers=workers, speed=2)) for workers in SCALES}
        if options.write:
            PICTURE.write_text(draw(scaled))
        table = "\n".join(
            [
                render_simulated(("as it is", outcome) for outcome in scaled.values()),
                render_simulated(simulate_all(list_cases(4)).items()),
                render_simulated(simulate_all(list_cases(32)).items()),
            ]
        )
    print(f"\n{table}")
    if options.write:
        page.write(options.what, table, PAGE)


if __name__ == "__main__":
    main()
