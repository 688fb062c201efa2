"""The table of faults in faults.md, counted from the tests that cause them.

`python -m tests.host.fault_table` prints it, `--write` puts it into the page. A test says what it
causes with the marker `fault(name=, place=, ending=)`; without a name it is the parameter's.
"""

import os
import sys
from collections import Counter, defaultdict
from contextlib import redirect_stdout
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "tests/host/faults.md"
BEGIN, END = (
    "<!-- faults: python -m tests.host.fault_table --write -->\n",
    "<!-- end of faults -->\n",
)
ENDINGS = ("another mirror", "survived", "message")
PLACES = ("release", "index", "package", "whole base", "proxy")
_HEAD = (
    "| fault | another mirror takes over | survived by the same | no other: one message |\n"
    "|---|---|---|---|\n"
)


class Collector:
    """Takes the tests that pytest has found; runs none."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """What was collected, whatever its markers."""
        self.items = list(session.items)


def collect() -> list[pytest.Item]:
    """Every test of this folder."""
    found = Collector()
    argv = ["--collect-only", "-q", "-p", "no:cacheprovider", "-m", "matrix or not matrix"]
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        pytest.main([*argv, "--rootdir", str(ROOT), str(Path(__file__).parent)], plugins=[found])
    return found.items


def render(items: list[pytest.Item]) -> str:
    """The table: a row for each fault, in its cells how many tests, and where it is caused."""
    counts: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for item in items:
        for marker in item.iter_markers("fault"):
            place, ending = marker.kwargs["place"], marker.kwargs["ending"]
            assert place in PLACES and ending in ENDINGS, item.nodeid
            name = marker.kwargs.get("name") or item.name.partition("[")[2].rstrip("]")
            assert name, f"{item.nodeid}: the fault has no name"
            counts[name][ending, place] += 1
    rows = [f"| {name} | {' | '.join(_cells(counts[name]))} |\n" for name in sorted(counts)]
    total = sum(one.total() for one in counts.values())
    return f"{total} tests, {len(rows)} faults:\n\n{_HEAD}{''.join(rows)}"


def _cells(counted: Counter[tuple[str, str]]) -> list[str]:
    return [
        ", ".join(f"{place} {counted[ending, place]}" for place in PLACES if counted[ending, place])
        for ending in ENDINGS
    ]


def main(words: list[str]) -> int:
    """Print or write it."""
    table = render(collect())
    if words != ["--write"]:
        sys.stdout.write(table)
        return 0
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
