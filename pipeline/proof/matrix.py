"""The table of proofs in docs/reference/proof-matrix.md, made from proof.json files.

`python -m pipeline.proof.matrix [--write] [FOLDER...]` looks for them below the folders (output/ if
none is named). The newest proof of each kind of guest counts. What cannot be booted stands in
docs/unbootable.toml with the reason.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import ROOT
from pipeline.proof.names import FOLDER, PROOF, SCREENSHOT

PAGE = ROOT / "docs" / "reference" / "proof-matrix.md"
UNBOOTABLE = ROOT / "docs" / "unbootable.toml"
PICTURES = "proof-matrix"
# column of the table: the checks that belong to it, by the start of their names
COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("login", ("xl create", "login prompt", "root's login", "root's password")),
    ("SSH", ("SSH with", "another key", "host key", "ssh -t")),
    ("state", ("system state", "failed units")),
    ("names", ("hostname", "/etc/hosts", "host name")),
    ("network", ("address", "MAC", "default route", "name service")),
    ("kernel", ("uname", "modprobe")),
    ("disks", ("root", "swap", "/dev/", "disk at")),
    ("settings", ("debconf", "time zone", "sources.list", "machine-id")),
    ("apt", ("apt-get",)),
    ("screen", ("VNC",)),
    ("save, restore", ("save", "xl save", "xl restore", "the SSH connection")),
    ("reboot", ("reboot",)),
    ("shutdown", ("xl shutdown",)),
)
OTHER = "other"
MOST_DISKS = 2  # root and swap; more is a kind of its own
_HEAD = """# What has been booted

Each line is one guest that was booted under real Xen and asked ([proof](../explanation/proof.md)
says how). Seconds are those of the machine that proved it, whose processor is emulated where it
says tcg: `login` from the start of `xl create` to the prompt, `all` the whole proof. In the second
table numbers count checks that held; **✗** checks that did not, · nothing was asked.

This page is generated from proof.json files: `python -m pipeline.proof.matrix --write`.
"""


@dataclass(frozen=True)
class Proof:
    """One proof.json, and the folder that it lies in."""

    record: dict[str, Any]
    folder: Path

    @property
    def guest(self) -> str:
        return str(self.record["guest"])

    @property
    def facts(self) -> dict[str, Any]:
        return dict(self.record["facts"])

    @property
    def kind(self) -> str:
        """The kind of guest in words: what makes two proofs lines of their own."""
        facts = self.facts
        words = [str(facts.get("type", "")).upper(), str(facts.get("boot", ""))]
        words += [str(facts[key]) for key in ("suite", "init", "format") if facts.get(key)]
        words += ["not built here"] if facts.get("foreign") else []
        if "dhcp" in facts:
            words.append("DHCP" if facts["dhcp"] else "fixed address")
        words += [str(facts["fs"])] if facts.get("fs", "ext4") != "ext4" else []
        words += ["copy-on-write"] if facts.get("clone") == "cow" else []
        words += ["all blocks taken"] if facts.get("image") == "full" else []
        words += [f"{facts['disks']} disks"] if facts.get("disks", 0) > MOST_DISKS else []
        words += ["no swap"] if facts.get("swap") == "0" else []
        words += ["screen"] if facts.get("vnc") else []
        return ", ".join(words)

    @property
    def host(self) -> str:
        """What it was proven with."""
        facts = self.facts
        return f"Xen {facts.get('xen', '?')}, {facts.get('accelerator', 'xl')}"

    def cell(self, column: str) -> str:
        """What a column of the table shows."""
        checks = [one for one in self.record["checks"] if column_of(one["name"]) == column]
        held = sum(one["ok"] is True for one in checks)
        failed = sum(one["ok"] is False for one in checks)
        if failed:
            return f"**✗** {failed}" + (f", {held}" if held else "")
        return str(held) if held else "·"

    def seconds(self, *phases: str) -> str:
        """The sum of the phases, if it came so far."""
        found = [self.record["seconds"].get(name) for name in phases]
        return "" if None in found else f"{sum(found):.0f}"


def column_of(check: str) -> str:
    """The column that a check is counted in."""
    return next((name for name, starts in COLUMNS if check.startswith(starts)), OTHER)


def read_proofs(folders: Iterable[Path]) -> list[Proof]:
    """The newest proof of each guest and kind, in the order of kinds.

    Left out are unreadable ones and broken ones, which say nothing about the guest.
    """
    newest: dict[tuple[str, str], Proof] = {}
    for path in sorted(path for folder in folders for path in folder.rglob(f"{FOLDER}/{PROOF}")):
        try:
            proof = Proof(json.loads(path.read_bytes()), path.parent)
            key = (proof.kind + proof.host, proof.guest)
            at = proof.record["proven_at"]
            if proof.record["verdict"] == "broken":
                continue
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if key not in newest or at > newest[key].record["proven_at"]:
            newest[key] = proof
    return [newest[key] for key in sorted(newest)]


def render(proofs: Sequence[Proof], unbootable: Sequence[tuple[str, str]]) -> str:
    """The page."""
    used = [name for name, _ in COLUMNS]
    if any(proof.cell(OTHER) != "·" for proof in proofs):
        used.append(OTHER)
    lines = [_HEAD, "## Proofs\n"]
    lines += _head("guest", "kind", "with", "verdict", "login", "all")
    for proof in proofs:
        cells = [f"`{proof.guest}`", proof.kind, proof.host, f"**{proof.record['verdict']}**"]
        lines.append(
            _row([*cells, proof.seconds("create", "boot to login"), proof.seconds("total")])
        )
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
        if proof.record["verdict"] == "proven":
            continue
        lines += [f"### {proof.guest}: {proof.record['verdict']}\n", f"{proof.record['reason']}\n"]
        for check in proof.record["checks"]:
            if check["ok"] is False:
                seen = " ".join(check["seen"].split())[:200] or "nothing"
                lines.append(f"- {check['name']}: expected {check['expected']}, seen {seen}")
        lines += [f"- likely cause: {cause}" for cause in proof.record.get("causes", [])]
        lines.append("")
    return ["## What failed\n", *lines] if lines else []


def _render_unasked(proofs: Sequence[Proof]) -> list[str]:
    found = {
        f"- `{proof.guest}`, {check['name']}: {check['seen']}": None
        for proof in proofs
        for check in proof.record["checks"]
        if check["ok"] is None
    }
    return ["## What was not asked\n", *found, ""] if found else []


def _render_pictures(proofs: Sequence[Proof]) -> list[str]:
    shown = [proof for proof in proofs if proof.facts.get("screenshot")]
    lines = [f"![the screen of {proof.guest}]({PICTURES}/{proof.guest}.png)\n" for proof in shown]
    return ["## Screens, as a VNC client sees them\n", *lines] if lines else []


def read_unbootable(path: Path) -> list[tuple[str, str]]:
    """[[guest]] tables with kind and reason."""
    if not path.is_file():
        return []
    table = tomllib.loads(path.read_text())
    return [(entry["kind"], entry["reason"]) for entry in table.get("guest", [])]


def write_page(page: Path, proofs: Sequence[Proof], text: str) -> None:
    """The page, and the pictures that it shows beside it."""
    pictures = page.parent / PICTURES
    for proof in proofs:
        picture = proof.folder / SCREENSHOT
        if proof.facts.get("screenshot") and picture.is_file():
            pictures.mkdir(exist_ok=True)
            name = re.sub(r"[^\w.-]", "_", proof.guest)
            shutil.copyfile(picture, pictures / f"{name}.png")
    page.write_text(text)


def main() -> None:
    """Parse the command line, print the page or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--write", action="store_true", help="into docs/reference/proof-matrix.md")
    options = parser.parse_args()
    proofs = read_proofs(options.folders or [ROOT / "output"])
    if not proofs:
        parser.error("no proof.json there: doit prove name=... first")
    text = render(proofs, read_unbootable(UNBOOTABLE))
    if not options.write:
        print(text, end="")
        return
    write_page(PAGE, proofs, text)
    print(f"{PAGE}: {len(proofs)} proofs")


if __name__ == "__main__":
    main()
