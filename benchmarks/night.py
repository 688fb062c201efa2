"""`python -m benchmarks.night`: what a night of ten guests costs, by what happened before it.

The mirror is the tests' own: bookworm's real packages, signed and changed here. The first night,
with an empty store and an empty package cache, is what the others are compared with. Proofs are
left out: every night is `unproven = true`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import page
from benchmarks.many_guests import GOLDEN, write_specs
from benchmarks.measurement import ROOT, Cost, Costs, call, measured
from pipeline.project import Project
from tests.night_mirror import NightMirror, night_mirror

GUESTS = 10
COLD = "the first night: nothing is there"
Happening = Callable[[NightMirror], object]
CASES: dict[str, Happening] = {
    "nothing happened": lambda _mirror: None,
    "the mirror moved, no guest's packages did": lambda mirror: mirror.add_unrelated(),
    "a package of every second guest": lambda mirror: mirror.add_update("less", "a fix"),
    "a package of the base": lambda mirror: mirror.add_update("hostname", "a fix"),
}
NIGHTLY = 'guests = "all"\nunproven = true\nstable_after = 0\nkeep = 3\n'


@dataclass
class Nights:
    """Of one case: what it cost, bytes from the mirror, bytes that its folders take more."""

    costs: Costs = field(default_factory=Costs)
    published: int = 0
    wire_mib: float = 0.0
    kept_mib: float = 0.0
    report_kib: float = 0.0


@dataclass(frozen=True)
class Site:
    """A folder with ten guests, their nightly.toml and the mirror."""

    folder: Path
    mirror: NightMirror

    @classmethod
    def make(cls, folder: Path, mirror: NightMirror) -> Site:
        """Its specs: half of the guests share a golden image, the other half another one."""
        call([ROOT / "doit", "init", folder])
        shutil.rmtree(folder / "guests")
        write_specs(folder / "guests", GUESTS)
        defaults = folder / "guests/defaults.toml"
        defaults.write_text(f'{defaults.read_text()}mirror = "night"\n')
        (folder / "mirrors").mkdir(exist_ok=True)
        (folder / "mirrors/night.toml").write_text(mirror.definition)
        (folder / "nightly.toml").write_text(NIGHTLY)
        return cls(folder, mirror)

    def run(self, nights: Nights) -> Cost:
        """One night; raises SystemExit where a guest has failed."""
        sent, kept = self.mirror.server.sent, measure_mib(self.folder / "output")
        with measured() as cost:
            call([ROOT / "doit", "nightly"], env={"DOMU_SITE": str(self.folder)})
        report = max((self.folder / "output/reports").glob("2*"))
        guests = json.loads((report / "report.json").read_text())["guests"]
        nights.published = sum(guest["verdict"] == "published" for guest in guests)
        nights.costs.runs.append(cost)
        nights.wire_mib = (self.mirror.server.sent - sent) / (1 << 20)
        nights.kept_mib = measure_mib(self.folder / "output") - kept
        nights.report_kib = (report / "index.html").stat().st_size / 1024
        return cost


def measure_mib(folder: Path) -> float:
    """What a folder takes on the disk."""
    if not folder.is_dir():
        return 0.0
    return int(call(["du", "--summarize", "--block-size=1", folder]).split()[0]) / (1 << 20)


def run_nights(rounds: int) -> dict[str, Nights]:
    """The first night, then each case in every round."""
    found = {name: Nights() for name in (COLD, *CASES)}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        packages = sorted({package for own in GOLDEN for package in own})
        (folder / "mirror").mkdir()
        with night_mirror(folder / "mirror", Project.here().output, *packages) as mirror:
            site = Site.make(folder / "site", mirror)
            for number in range(rounds):
                for case in found if number == 0 else CASES:
                    if case in CASES:
                        CASES[case](mirror)
                    cost = site.run(found[case])
                    print(f"round {number + 1}: {case:<42} {cost.seconds:7.1f} s", flush=True)
    return found


def render(found: dict[str, Nights]) -> str:
    """The table; ratios are to the first night."""
    cold = found[COLD].costs.seconds
    lines = [
        f"{GUESTS} guests from {len(GOLDEN)} golden images, bookworm, 2G; no proofs; medians.\n",
        "| a night | rounds | time | ratio | processor | new | fetched | takes more | page |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, nights in found.items():
        costs = nights.costs
        lines.append(
            f"| {case} | {len(costs.runs)} | {costs.seconds:.1f} s | {costs.seconds / cold:.3f} "
            f"| {costs.cpu_seconds:.1f} s | {nights.published} | {nights.wire_mib:.1f} MiB "
            f"| {nights.kept_mib:.0f} MiB | {nights.report_kib:.0f} KiB |"
        )
    lines.append(
        "\nNew: versions that were published. Fetched: from the mirror, indexes included. Takes "
        "more: all of output/ after the night, published versions included. Page: the report. The "
        "last three are of the last round."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.night", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of all but the first night")
    parser.add_argument(
        "--write", action="store_true", help="put it into docs/explanation/performance.md"
    )
    options = parser.parse_args()
    table = render(run_nights(options.rounds))
    print(f"\n{table}")
    if options.write:
        page.write("night", table)


if __name__ == "__main__":
    main()
