"""The table of proofs in docs/reference/proof-matrix.md, made from proof.json files.

`python -m pipeline.proof.matrix [--write] [FOLDER...]` looks for them below the folders (output/ if
none is named), and adds them to those that it knows, in proof-matrix/proofs.json. The newest proof
of each kind of guest counts. What cannot be booted stands in docs/unbootable.toml with the reason.
"""

import argparse
import json
import re
import shutil
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from pipeline import ROOT
from pipeline.proof.names import FOLDER, PROOF, SCREENSHOT
from pipeline.spec.domain import FIRMWARE_FILE
from pipeline.suites.accounts import PROOFS as KNOWN

PAGE = ROOT / "docs" / "reference" / "proof-matrix.md"
UNBOOTABLE = ROOT / "docs" / "unbootable.toml"
PICTURES = "proof-matrix"
# column of the table: the checks that belong to it, by the start of their names
COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("login", ("xl create", "login prompt", "ready:", "root's login", "root's password")),
    ("SSH", ("SSH with", "another key", "host key", "ssh -t")),
    ("state", ("system state", "failed units")),
    ("names", ("hostname", "/etc/hosts", "host name")),
    ("network", ("address", "MAC", "default route", "name service", "TFTP")),
    ("kernel", ("uname", "modprobe")),
    ("disks", ("root", "swap", "/dev/", "disk at")),
    ("settings", ("debconf", "time zone", "sources.list", "machine-id")),
    ("apt", ("apt-get",)),
    ("screen", ("VNC",)),
    ("save, restore", ("save", "xl save", "xl restore", "the SSH connection")),
    ("live migration", ("live migration",)),
    ("reboot", ("reboot",)),
    ("shutdown", ("xl shutdown",)),
)
OTHER = "other"
# a fact of a proof, and what it makes of the guest's kind
_ORIGINS = {
    "foreign": "not built here",
    "modernized": "modernized",
    "adopted": "adopted",
    "restricted": "pygrub restricted",
}
MOST_DISKS = 2  # root and swap; more is a kind of its own
_HEAD = """# What has been booted

Each line is one guest, or one appliance, that was booted under real Xen and asked
([proof](../explanation/proof.md) says how). Seconds are those of the machine that proved it, whose
processor is emulated where it says tcg: `login` from the start of `xl create` to the prompt (of an
appliance until all its guests are ready), `all` the whole proof. In the second table numbers count
checks that held; **✗** checks that did not, · nothing was asked. `other` is above all
what the guests of an appliance must do with each other.

This page is generated from proof.json files: `python -m pipeline.proof.matrix --write`.
"""


@dataclass(frozen=True)
class Proof:
    """What the page keeps of one proof.json; `folder` is where it lay, if it was read just now.

    `kind` is the guest in words, `counts` checks that held and that did not, for each column.
    """

    guest: str
    kind: str
    suite: str
    xen: str
    accelerator: str
    verdict: str
    reason: str
    proven_at: float
    counts: dict[str, list[int]]
    login: str
    total: str
    failed: list[str]
    causes: list[str]
    unasked: list[str]
    has_picture: bool
    folder: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises OSError, ValueError, KeyError or TypeError for what is no proof.json."""
        record = json.loads(path.read_bytes())
        facts, checks = dict(record["facts"]), record["checks"]
        if "member of" in facts:
            raise ValueError(f"{path}: a line of its appliance")
        if FIRMWARE_FILE in record.get("digests", {}):
            facts["boot"] = "UEFI"
        counts: dict[str, list[int]] = {}
        members = record.get("members", {})
        for check in checks:
            if check["ok"] is not None:
                column = column_of(check["name"], members)
                counts.setdefault(column, [0, 0])[not check["ok"]] += 1
        start = ("start",) if members else ("create", "boot to login")
        is_proven = record["verdict"] == "proven"
        return cls(
            guest=str(record["guest"]),
            kind=_kind_of(facts),
            suite="" if facts.get("foreign") else str(facts.get("suite", "")),
            xen=str(facts.get("xen", "?")),
            accelerator=str(facts.get("accelerator", "xl")),
            verdict=str(record["verdict"]),
            reason=str(record["reason"]),
            proven_at=record["proven_at"],
            counts=counts,
            login=_seconds(record["seconds"], *start),
            total=_seconds(record["seconds"], "total"),
            failed=[_failure(check) for check in checks if check["ok"] is False and not is_proven],
            causes=[] if is_proven else list(record.get("causes", [])),
            unasked=[
                f"{check['name']}: {check['seen']}" for check in checks if check["ok"] is None
            ],
            has_picture=bool(facts.get("screenshot")),
            folder=str(path.parent),
        )

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two proofs lines of their own, in their order."""
        return (self.kind, self.host, self.guest)

    @property
    def host(self) -> str:
        """What it was proven with."""
        return f"Xen {self.xen}, {self.accelerator}"

    def cell(self, column: str) -> str:
        """What a column of the table shows."""
        held, failed = self.counts.get(column, (0, 0))
        if failed:
            return f"**✗** {failed}" + (f", {held}" if held else "")
        return str(held) if held else "·"


def _kind_of(facts: dict[str, Any]) -> str:
    words = [str(facts.get("type", "")).upper(), str(facts.get("boot", ""))]
    if guests := facts.get("guests"):
        words = [f"appliance of {len(guests)} guests", words[0]]
    words += [str(facts[key]) for key in ("suite", "init", "format") if facts.get(key)]
    words += [word for fact, word in _ORIGINS.items() if facts.get(fact)]
    if "dhcp" in facts:
        words.append("DHCP" if facts["dhcp"] else "fixed address")
    words += [str(facts["fs"])] if facts.get("fs", "ext4") != "ext4" else []
    words += ["copy-on-write"] if facts.get("clone") == "cow" else []
    words += ["all blocks taken"] if facts.get("image") == "full" else []
    words += [f"{facts['disks']} disks"] if facts.get("disks", 0) > MOST_DISKS else []
    words += ["no swap"] if facts.get("swap") == "0" else []
    words += [f"from {facts['starts from']}"] if facts.get("starts from") else []
    words += ["screen"] if facts.get("vnc") else []
    words += ["replicated disk"] if facts.get("replicated") else []
    words += ["shared disk"] if facts.get("shared") else []
    return ", ".join(words)


def _seconds(taken: dict[str, float], *phases: str) -> str:
    """The sum of the phases, if it came so far."""
    known = [taken.get(name) for name in phases]
    return "" if None in known else f"{sum(filter(None, known)):.0f}"


def _failure(check: dict[str, Any]) -> str:
    seen = " ".join(check["seen"].split())[:200] or "nothing"
    return f"{check['name']}: expected {check['expected']}, seen {seen}"


def column_of(check: str, members: Collection[str] = ()) -> str:
    """The column that a check is counted in; `members` of an appliance stand before its name."""
    key, _, name = check.partition(": ")
    if members:
        return column_of(name) if key in members else OTHER
    return next((name for name, starts in COLUMNS if check.startswith(starts)), OTHER)


def read_proofs(folders: Iterable[Path], known: Iterable[Proof] = ()) -> list[Proof]:
    """The newest proof of each guest and kind, of those that are known and those in the folders.

    Left out are unreadable ones, broken ones, which say nothing about the guest, and those of
    members, which the appliance's has.
    """
    newest = {proof.key: proof for proof in known}
    for path in sorted(path for folder in folders for path in folder.rglob(f"{FOLDER}/{PROOF}")):
        try:
            proof = Proof.read(path)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        former = newest.get(proof.key)
        if proof.verdict != "broken" and (former is None or proof.proven_at > former.proven_at):
            newest[proof.key] = proof
    return [newest[key] for key in sorted(newest)]


def read_known(path: Path = KNOWN) -> list[Proof]:
    """The proofs of earlier runs."""
    table = json.loads(path.read_bytes()) if path.is_file() else []
    return [Proof(**facts) for facts in table]


def render(proofs: Sequence[Proof], unbootable: Sequence[tuple[str, str]]) -> str:
    """The page."""
    used = [name for name, _ in COLUMNS]
    if any(proof.cell(OTHER) != "·" for proof in proofs):
        used.append(OTHER)
    lines = [_HEAD, "## Proofs\n"]
    lines += _head("guest", "kind", "with", "verdict", "login", "all")
    for proof in proofs:
        cells = [f"`{proof.guest}`", proof.kind, proof.host, f"**{proof.verdict}**"]
        lines.append(_row([*cells, proof.login, proof.total]))
    lines += ["", "## Checks that held\n", *_head("guest", *used)]
    for proof in proofs:
        lines.append(_row([f"`{proof.guest}`", *(proof.cell(name) for name in used)]))
    lines += ["", *_render_failures(proofs), *_render_unasked(proofs), *_render_pictures(proofs)]
    if unbootable:
        lines += ["## Not booted, and why\n"]
        lines += [f"- {guest}: {reason}." for guest, reason in unbootable]
    return "\n".join(lines).rstrip() + "\n"


def _head(*names: str) -> list[str]:
    return [_row(names), _row(["---"] * len(names))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"


def _render_failures(proofs: Sequence[Proof]) -> list[str]:
    """What did not hold: expected against seen, and the likely cause."""
    lines: list[str] = []
    for proof in proofs:
        if proof.verdict != "proven":
            lines += [f"### {proof.guest}: {proof.verdict}\n", f"{proof.reason}\n"]
            lines += [f"- {failure}" for failure in proof.failed]
            lines += [*(f"- likely cause: {cause}" for cause in proof.causes), ""]
    return ["## What failed\n", *lines] if lines else []


def _render_unasked(proofs: Sequence[Proof]) -> list[str]:
    listed = {f"- `{proof.guest}`, {name}": None for proof in proofs for name in proof.unasked}
    return ["## What was not asked\n", *listed, ""] if listed else []


def _render_pictures(proofs: Sequence[Proof]) -> list[str]:
    shown = dict.fromkeys(proof.guest for proof in proofs if proof.has_picture)
    lines = [f"![the screen of {guest}]({PICTURES}/{guest}.png)\n" for guest in shown]
    return ["## Screens, as a VNC client sees them\n", *lines] if lines else []


def read_unbootable(path: Path) -> list[tuple[str, str]]:
    """[[guest]] tables with kind and reason."""
    if not path.is_file():
        return []
    table = tomllib.loads(path.read_text())
    return [(entry["kind"], entry["reason"]) for entry in table.get("guest", [])]


def write_page(page: Path, proofs: Sequence[Proof], text: str) -> None:
    """The page; beside it the pictures that it shows, and the proofs for the next time."""
    beside = page.parent / PICTURES
    beside.mkdir(exist_ok=True)
    for proof in proofs:
        picture = Path(proof.folder, SCREENSHOT)
        if proof.folder and proof.has_picture and picture.is_file():
            name = re.sub(r"[^\w.-]", "_", proof.guest)
            shutil.copyfile(picture, beside / f"{name}.png")
    lines = (json.dumps(asdict(replace(proof, folder=""))) for proof in proofs)
    (beside / KNOWN.name).write_text("[\n{}\n]\n".format(",\n".join(lines)))
    page.write_text(text)


def main() -> None:
    """Parse the command line, print the page or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    proofs = read_proofs(options.folders or [ROOT / "output"], read_known())
    text = render(proofs, read_unbootable(UNBOOTABLE))
    if not options.write:
        print(text, end="")
        return
    write_page(PAGE, proofs, text)
    print(f"{PAGE}: {len(proofs)} proofs")


if __name__ == "__main__":
    main()
