"""When each release was last built and booted, from two tables that the tests write.

`python -m tests.suites --write` builds, `python -m pipeline.proof.matrix --write` notes proofs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import ROOT
from pipeline.suites.suite import Suite

BUILT = ROOT / "docs/reference/suites.json"
PROOFS = ROOT / "docs/reference/proof-matrix/proofs.json"
PAGE = ROOT / "docs/reference/suites.md"
NEVER = "never"
_HEAD = """# Releases: built and booted

When each release was last built by its test (golden half, volume, all of `doit check`), and when a
guest of it last booted under real Xen ([the proofs](proof-matrix.md)). `state` is the date of the
newest file that the mirror had signed, `kernel` what such a guest runs, `packages` how many a lean
one has. `doit suites` shows the dates too; [the spec](spec.md#releases) has what differs between
releases.

This page is generated: `.venv/bin/python -m tests.suites --write` builds every release that the
mirror of the machine's own apt has, and asks for the others; with names behind it only those. Each
run of the tests builds one, by date (`tests/suites/test_every_suite.py`).

"""
_UNBUILT = """
## Never built from the true archive

Each was asked for where the tests ran. etch and lenny were built from an archive that the tests
make ([old releases](../explanation/old-releases.md)).

"""


@dataclass(frozen=True)
class Account:
    """What is known of one release: ISO dates, or empty; `answer` is the mirror's own words."""

    asked: str
    answer: str = ""
    built: str = ""
    state: str = ""
    kernel: str = ""
    packages: int = 0
    bootstrap: str = ""


def read_accounts(path: Path = BUILT) -> dict[str, Account]:
    """What the last builds came to; none where the table is not there."""
    table = json.loads(path.read_bytes()) if path.is_file() else {}
    return {name: Account(**facts) for name, facts in table.items()}


def read_proven(path: Path = PROOFS) -> dict[str, tuple[str, str]]:
    """The date of each release's last proof, and the Xen of it ("4.17")."""
    table: list[dict[str, Any]] = json.loads(path.read_bytes()) if path.is_file() else []
    proven = (row for row in table if row["verdict"] == "proven" and row["suite"])
    return {
        row["suite"]: (f"{datetime.fromtimestamp(row['proven_at'], UTC):%Y-%m-%d}", row["xen"])
        for row in sorted(proven, key=lambda row: row["proven_at"])
    }


def render_page(
    suites: Mapping[str, Suite],
    accounts: Mapping[str, Account],
    proven: Mapping[str, tuple[str, str]],
) -> str:
    """The page, its releases in the order of the suites."""
    head = ("suite", "release", "built", "state", "kernel", "packages", "bootstrap", "booted")
    lines = [_row(head), _row(["---"] * len(head))]
    unbuilt = [_row(("suite", "asked", "what the mirror said")), _row(["---"] * 3)]
    notes = []
    for name, suite in suites.items():
        account = accounts.get(name, Account(asked=NEVER))
        if not account.built:
            unbuilt.append(_row((f"`{name}`", account.asked, account.answer)))
            continue
        booted = "{}, Xen {}".format(*proven[name]) if name in proven else NEVER
        release = f"{suite.distribution.capitalize()} {suite.version}"
        facts = (account.state, account.kernel, str(account.packages), account.bootstrap, booted)
        lines.append(_row((f"`{name}`", release, account.built, *facts)))
        if account.answer:
            notes.append(f"\n`{name}`: {account.answer}.\n")
    rest = [_UNBUILT, *(f"{line}\n" for line in unbuilt)] if len(unbuilt) > 2 else []
    return _HEAD + "".join([*(f"{line}\n" for line in lines), *notes, *rest])


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"
