"""`python -m benchmarks.whole_disk`: what a whole disk costs beside a bare file system.

One guest of bookworm with a bare file system and its kernel beside it, with a bare file system and
the kernel inside, and as one whole disk: built in turn, each time without its golden half and again
without its guest half; then the whole disk written in every format, beside a plain copy of it. With
--boots also from `xl create` to the login prompt, by the guests' proof.json.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import page
from benchmarks.guest_types import measure as prove
from benchmarks.measurement import ROOT, Costs, call, measured
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.stages import STAGES

BASE = 'suite = "bookworm"\nsize = "1G"\nswap = "0"\n'
GUESTS = {
    "file system, kernel beside it": ("direct", ""),
    "file system, kernel inside": ("inside", 'boot = "grub"\n'),
    "whole disk": ("whole", 'boot = "grub"\ndisk = "whole"\n'),
}
WHOLE = "whole"
# under Xen as a full PC too: the same bytes
PC = {"whole disk, HVM by SeaBIOS": ("whole-pc", 'type = "hvm"\nboot = "firmware"\n')}
FORMATS = ("raw", "qcow2", "vhd", "vmdk", "xva", "ova")
COPY = "cp --sparse=always"


class Bench:
    """The guests' specs, and the output folder that they are built in."""

    def __init__(self) -> None:
        self.here = Project.here()
        self.output = self.here.output / "benchmarks" / "whole-disk"
        self.specs = self.output / "specs"
        self.specs.mkdir(parents=True, exist_ok=True)
        for name, keys in (*GUESTS.values(), *PC.values()):
            (self.specs / f"{name}.toml").write_text(f"{BASE}{keys}")
        for part in ("store", "cache"):  # with mirror, base and kernel, and the test host
            if (self.here.output / part).is_dir() and not (self.output / part).exists():
                call(["cp", "-al", self.here.output / part, self.output / part])

    def doit(self, *words: str) -> str:
        """`./doit` as a user types it."""
        env = {"DOMU_OUTPUT": str(self.output), "DOMU_GUESTS": str(self.specs)}
        return call([ROOT / "doit", *words], env=env)

    def forget_golden(self) -> None:
        """Root file systems and images of no guest are there."""
        for stage in ("rootfs", "image"):
            shutil.rmtree(self.output / "store" / stage, ignore_errors=True)

    def disk(self, name: str) -> Path:
        """A built guest's."""
        return self.output / "guests" / name / "disk.img"


@contextmanager
def timed(found: Costs) -> Iterator[None]:
    """One run more."""
    with measured() as cost:
        yield
    found.runs.append(cost)


def measure_builds(bench: Bench, rounds: int) -> dict[str, tuple[Costs, Costs]]:
    """By guest: its golden half and its own, then its own half alone."""
    found = {kind: (Costs(), Costs()) for kind in GUESTS}
    for name, _ in GUESTS.values():  # packages are fetched, the store has what comes before
        bench.doit("build", f"name={name}")
    for number in range(rounds):
        for kind, (name, _) in GUESTS.items():
            bench.forget_golden()
            with timed(found[kind][0]):
                bench.doit("build", f"name={name}")
            with timed(found[kind][1]):
                bench.doit("build", f"name={name}", f"hostname=other{number}")
            told = ", ".join(f"{costs.runs[-1].seconds:.1f} s" for costs in found[kind])
            print(f"build: {kind:<32} {told}", flush=True)
    return found


def measure_formats(bench: Bench, rounds: int) -> dict[str, tuple[Costs, int]]:
    """By format: what it costs to write, and the bytes of the file."""
    disk = bench.disk(WHOLE)
    found: dict[str, tuple[Costs, int]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=bench.output) as name:
        target = Path(name) / "made"
        ways: dict[str, Callable[[], object]] = {
            COPY: lambda: call(["cp", "--sparse=always", "--reflink=never", disk, target])
        }
        for form in FORMATS:
            words = ("export", f"name={WHOLE}", f"format={form}", f"to={target}", "replace=yes")
            ways[form] = lambda words=words: bench.doit(*words)  # type: ignore[misc]
        for _ in range(rounds):
            for form, way in ways.items():
                target.unlink(missing_ok=True)
                costs, _ = found.setdefault(form, (Costs(), 0))
                with timed(costs):
                    way()
                found[form] = costs, target.stat().st_blocks * 512
                print(f"write: {form:<32} {costs.runs[-1].seconds:.1f} s", flush=True)
    return found


def measure_boots(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Seconds from `xl create` to the login prompt."""
    recipe = Recipe(Project(bench.here.root, bench.output, bench.specs), STAGES)
    kinds = {**GUESTS, **PC}
    for name, _ in kinds.values():
        bench.doit("build", f"name={name}")
    kept = bench.output / "boots.json"
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, (name, _) in kinds.items():
            found[kind].append(prove(recipe, name))
            print(f"boot:  {kind:<32} {found[kind][-1]:.1f} s", flush=True)
        kept.write_text(json.dumps(found))
    return found


def render(
    bench: Bench,
    builds: dict[str, tuple[Costs, Costs]],
    formats: dict[str, tuple[Costs, int]],
    boots: dict[str, list[float]],
) -> str:
    """The tables; ratios are to their first lines."""
    rounds = min(len(costs.runs) for costs, _ in builds.values())
    lines = [
        f"bookworm, 1G, no swap; medians of {rounds}, in turn.",
        "",
        "| guest | golden half and own | ratio | own half | ratio | disk | on disk | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    firsts: list[float] = []
    for kind, (golden, own) in builds.items():
        state = bench.disk(GUESTS[kind][0]).stat()
        figures = [golden.seconds, own.seconds, state.st_blocks * 512 / (1 << 20)]
        firsts = firsts or figures
        ratio = [f"{figure / first:.2f}" for figure, first in zip(figures, firsts, strict=True)]
        lines.append(
            f"| {kind} | {figures[0]:.1f} s | {ratio[0]} | {figures[1]:.2f} s | {ratio[1]} "
            f"| {state.st_size >> 20} MiB | {figures[2]:.0f} MiB | {ratio[2]} |"
        )
    lines += ["", "| the whole disk as | time | ratio | size |", "|---|---|---|---|"]
    copy = formats[COPY][0].seconds
    for form, (costs, size) in formats.items():
        named = f"`{form}`" if form == COPY else f"`doit export format={form}`"
        times = f"{costs.seconds:.2f} s | {costs.seconds / copy:.1f}"
        lines.append(f"| {named} | {times} | {size / (1 << 20):.0f} MiB |")
    if boots:
        lines += ["", "| guest | `xl create` to login | ratio |", "|---|---|---|"]
        medians = {kind: statistics.median(seconds) for kind, seconds in boots.items()}
        first = next(iter(medians.values()))
        lines += [
            f"| {kind} | {seconds:.1f} s | {seconds / first:.2f} |"
            for kind, seconds in medians.items()
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_disk", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--boots", type=int, default=0, help="rounds of proofs, 10 minutes each")
    parser.add_argument(
        "--write", action="store_true", help="put it into docs/explanation/performance.md"
    )
    options = parser.parse_args()
    bench = Bench()
    builds = measure_builds(bench, options.rounds)
    bench.doit("build", f"name={WHOLE}")
    formats = measure_formats(bench, options.rounds)
    boots = measure_boots(bench, options.boots) if options.boots else {}
    table = render(bench, builds, formats, boots)
    print(f"\n{table}")
    if options.write:
        page.write("whole disk", table)


if __name__ == "__main__":
    main()
