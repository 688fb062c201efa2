"""The table of proofs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.proof.matrix import (
    PAGE,
    UNBOOTABLE,
    column_of,
    read_known,
    read_proofs,
    read_unbootable,
    render,
    write_page,
)
from pipeline.proof.names import FOLDER, PROOF, SCREENSHOT

HELD = [("login prompt on hvc0", True), ("SSH with the key", True), ("swap", True)]


def put(root: Path, guest: str, checks: Sequence[tuple[str, bool | None]], **changes: Any) -> Path:
    folder = root / guest / FOLDER
    folder.mkdir(parents=True)
    facts = {"type": "pv", "boot": "direct", "suite": "bookworm", "xen": "4.17", "dhcp": True}
    record: dict[str, Any] = {
        "guest": guest,
        "verdict": "proven",
        "reason": "",
        "causes": [],
        "proven_at": 1,
        "facts": {**facts, "accelerator": "tcg", **changes.pop("facts", {})},
        "seconds": {"create": 8.2, "boot to login": 20.1, "total": 61.7},
        "checks": [
            {"name": name, "expected": "this", "seen": "that", "ok": ok} for name, ok in checks
        ],
    }
    (folder / PROOF).write_text(json.dumps({**record, **changes}))
    return folder


def test_each_proof_is_a_line_with_its_kind_counts_and_times(tmp_path: Path) -> None:
    put(tmp_path, "web1", HELD)

    text = render(read_proofs([tmp_path]), [])

    line, counts = [line for line in text.splitlines() if line.startswith("| `web1`")]
    assert "PV, direct, bookworm, DHCP" in line
    assert line.endswith("**proven** | 28 | 62 |")
    assert counts.startswith("| `web1` | 1 | 1 | · |")


def test_a_kind_says_where_a_guest_is_from_and_how_pygrub_is_held(tmp_path: Path) -> None:
    put(tmp_path, "old", HELD, facts={"foreign": True, "modernized": True, "type": "pvh"})
    put(tmp_path, "alien", HELD, facts={"adopted": True})
    put(tmp_path, "caged", HELD, facts={"boot": "pygrub", "restricted": True})

    kinds = {proof.guest: proof.kind for proof in read_proofs([tmp_path])}

    assert "not built here, modernized" in kinds["old"]
    assert "adopted" in kinds["alien"]
    assert "pygrub restricted" in kinds["caged"]


def test_what_failed_is_told_with_its_cause(tmp_path: Path) -> None:
    put(
        tmp_path,
        "enx",
        [("login prompt on hvc0", True), ("address by DHCP", False)],
        verdict="failed",
        reason="no address",
        causes=["the card was renamed"],
        seconds={"create": 8.0, "boot to login": 20.0},
    )

    text = render(read_proofs([tmp_path]), [])

    assert "**✗** 1" in text
    assert "- address by DHCP: expected this, seen that" in text
    assert "- likely cause: the card was renamed" in text
    assert "| 28 |  |" in text


def test_what_was_not_asked_and_what_cannot_be_booted_is_told(tmp_path: Path) -> None:
    put(tmp_path, "web1", [*HELD, ("apt-get update", None)])
    page = tmp_path / "unbootable.toml"
    page.write_text('[[guest]]\nkind = "lenny"\nreason = "too old | for this Xen"\n')

    text = render(read_proofs([tmp_path]), read_unbootable(page))

    assert "- `web1`, apt-get update: that" in text
    assert "- lenny: too old | for this Xen.\n" in text


def test_the_newest_proof_of_a_guest_counts_and_damaged_and_broken_ones_do_not(
    tmp_path: Path,
) -> None:
    put(tmp_path / "a", "web1", HELD)
    put(tmp_path / "b", "web1", HELD, proven_at=2, verdict="failed", reason="later")
    damaged = put(tmp_path / "c", "web2", HELD)
    (damaged / PROOF).write_text("{")
    put(tmp_path / "d", "web3", [], verdict="broken", reason="QEMU ended")

    (proof,) = read_proofs([tmp_path])

    assert proof.verdict == "failed"


def test_proofs_of_earlier_runs_stay_until_there_is_a_newer_one(tmp_path: Path) -> None:
    for number, guest in enumerate(("web1", "web2"), 1):
        put(tmp_path / "first", guest, [*HELD, ("apt-get update", None)], proven_at=number)
    page = tmp_path / "page.md"
    first = read_proofs([tmp_path / "first"])
    write_page(page, first, render(first, []))
    put(tmp_path / "second", "web2", HELD, proven_at=9, verdict="failed", reason="later")
    put(tmp_path / "second", "web1", HELD, proven_at=0, verdict="failed", reason="before")

    proofs = read_proofs([tmp_path / "second"], read_known(tmp_path / "proof-matrix/proofs.json"))

    assert [(proof.guest, proof.verdict) for proof in proofs] == [
        ("web1", "proven"),
        ("web2", "failed"),
    ]
    assert render(proofs[:1], []) == render(first[:1], [])


def test_the_page_in_docs_is_made_of_the_proofs_beside_it() -> None:
    made = render(read_known(), read_unbootable(UNBOOTABLE))
    assert PAGE.read_text() == made, "python -m pipeline.proof.matrix --write"


def test_a_picture_is_put_beside_the_page(tmp_path: Path) -> None:
    folder = put(tmp_path, "screen", HELD, facts={"screenshot": SCREENSHOT, "vnc": True})
    (folder / SCREENSHOT).write_bytes(b"png")
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    proofs = read_proofs([tmp_path])

    twice = [*proofs, replace(proofs[0], kind="another kind, whose picture has the same name")]
    write_page(page, twice, render(twice, []))

    assert page.read_text().count("![the screen of screen](proof-matrix/screen.png)") == 1
    assert (page.parent / "proof-matrix" / "screen.png").read_bytes() == b"png"


def test_a_check_that_nobody_knows_is_still_shown(tmp_path: Path) -> None:
    put(tmp_path, "web1", [("something new", True)])
    assert column_of("something new") == "other"
    assert "| other |" in render(read_proofs([tmp_path]), [])


def test_an_appliance_has_a_line_of_its_own_with_what_its_guests_do_together(
    tmp_path: Path,
) -> None:
    checks = [("a: login prompt on hvc0", True), ("b: swap", True), ("b: uname -r", False)]
    checks += [("r0: healed: a", True), ("b knows a: by name", True)]
    facts = {"guests": {"a": "pair-a", "b": "pair-b"}, "replicated": ["r0"], "type": "pv"}
    members: dict[str, Any] = {"a": {}, "b": {}}
    seconds = {"start": 90.4, "total": 300.0}
    put(tmp_path, "pair", checks, facts=facts, members=members, seconds=seconds)

    (proof,) = read_proofs([tmp_path])

    assert proof.kind.startswith("appliance of 2 guests, PV, bookworm")
    assert proof.kind.endswith("replicated disk")
    assert proof.counts["other"] == [2, 0]
    assert (proof.counts["login"], proof.counts["kernel"]) == ([1, 0], [0, 1])
    assert (proof.login, proof.total) == ("90", "300")
