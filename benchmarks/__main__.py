"""`python -m benchmarks`: us and the peers in turn, several rounds; a table, a picture, a page."""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks import page
from benchmarks.contenders import GUEST, OURS, Contender, list_contenders, require_peers, run_doit
from benchmarks.many_guests import Many, compare_many
from benchmarks.measurement import ROOT, Costs, measured
from benchmarks.picture import draw_bars
from pipeline.project import Project

KEPT = Project.here().output / "benchmarks"


def run_rounds(contenders: list[Contender], rounds: int) -> None:
    """In turn, each round beginning with another; those that are not `often` run in the first."""
    for number in range(rounds):
        now = [one for one in contenders if one.often or number == 0]
        first = number % len(now)
        # "all their packages" must know the peer's, so the first round keeps its order
        for contender in now[first:] + now[:first]:
            with tempfile.TemporaryDirectory(prefix="bench-") as name:
                cost = contender.race(Path(name) / "work")
            print(f"round {number + 1}: {contender.name:<42} {cost.seconds:7.1f} s", flush=True)


def run_warm(rounds: int) -> dict[str, Costs]:
    """Whole processes on a warm store, as a user types them."""
    words = {
        "`doit list`": ["list"],
        "nothing to do": ["build", f"name={GUEST}"],
        "another guest, same golden image": ["build", f"name={GUEST}", "hostname=other{}"],
        "the same, copy-on-write": ["build", f"name={GUEST}", "hostname=clone{}", "clone=cow"],
        "more memory: the configuration only": ["build", f"name={GUEST}", "memory=30{}M"],
        "a package added: rootfs onward": ["build", f"name={GUEST}", "packages=drbd-utils,less{}"],
    }
    more = ("", ",nano", ",file", ",tree", ",bc", ",ed")
    found = {name: Costs() for name in words}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        output = Path(name) / "work"
        run_doit(output, "build", f"name={GUEST}")
        for number in range(min(rounds + 1, len(more))):
            for case, argv in words.items():
                if case == "nothing to do":
                    run_doit(output, "build", f"name={GUEST}")
                value = more[number] if case.startswith("a package") else number
                with measured() as cost:
                    run_doit(output, *(word.format(value) for word in argv))
                found[case].runs.append(cost)
    for case, costs in found.items():
        print(f"warm:    {case:<42} {costs.seconds:7.2f} s", flush=True)
    return found


def main() -> None:
    """Parse the command line, run, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="of xen-create-image and ours")
    parser.add_argument("--only-ours", action="store_true", help="no peers: seconds, no ratios")
    parser.add_argument("--guests", type=int, default=20, help="in one command; 0: leave that out")
    parser.add_argument(
        "--write", action="store_true", help="put it into docs/explanation/performance.md"
    )
    options = parser.parse_args()
    if not options.only_ours:
        require_peers()
    started = time.monotonic()
    found = list_contenders(None if options.only_ours else KEPT)
    contenders = [one for one in found if not options.only_ours or one.name == OURS]
    run_rounds(contenders, options.rounds)
    warm = run_warm(options.rounds)
    many: Many | None = compare_many(options.guests) if options.guests else None
    table = page.render(contenders, warm, many)
    print(f"\n{table}\n{time.monotonic() - started:.0f} s for all of it")
    if options.write:
        page.write("table", f"![medians of a cold build](performance.svg)\n\n{table}")
        title = "Cold build of the same guest, medians"
        seconds = {one.name: one.costs.seconds for one in contenders}
        (ROOT / "docs/explanation/performance.svg").write_text(draw_bars(seconds, title=title))


if __name__ == "__main__":
    main()
