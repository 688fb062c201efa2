"""Boot times of a guest over its proofs: what is kept, and when a slower one is told."""

from pathlib import Path
from typing import Any

from pipeline.proof.history import FOLDER, MOST_KEPT, note_proof, read_history


def proof(boot_s: float, work_s: float = 0.0, **facts: object) -> dict[str, Any]:
    return {
        "guest": "web1",
        "verdict": "proven",
        "seconds": {"boot to login": boot_s, "total": boot_s * 2},
        "work": {"boot to login": work_s} if work_s else {},
        "facts": {"suite": "bookworm", "xen": "4.17", "accelerator": "tcg", **facts},
        "digests": {"disk.img": {"kind": "fs-verity", "digest": "d1"}},
    }


def test_the_first_proof_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    assert note_proof(tmp_path, proof(12.1)) == "boot 12.1 s"


def test_a_slower_boot_shows_against_the_median_of_the_last_five(tmp_path: Path) -> None:
    for seconds in (90.0, 12.0, 12.1, 12.3, 12.0, 40.0):
        note_proof(tmp_path, proof(seconds))
    said = note_proof(tmp_path, proof(15.6))
    assert said == "boot 15.6 s, was 12.1 s in the last 5 proofs: SLOWER"


def test_a_busy_machine_makes_no_guest_slower(tmp_path: Path) -> None:
    for _ in range(3):
        note_proof(tmp_path, proof(12.0, 11.0))
    said = note_proof(tmp_path, proof(60.0, 11.5))
    assert said == "boot 60.0 s, was 12.0 s in the last 3 proofs (11.5 s of work, was 11.0 s)"
    assert note_proof(tmp_path, proof(60.0, 19.0)).endswith(": SLOWER")


def test_other_kinds_of_boot_are_not_compared(tmp_path: Path) -> None:
    note_proof(tmp_path, proof(12.0))
    assert note_proof(tmp_path, proof(40.0, type="pvh")) == "boot 40.0 s"
    assert note_proof(tmp_path, proof(2.0, accelerator="kvm")) == "boot 2.0 s"


def test_a_guest_that_never_came_to_its_prompt_leaves_no_entry(tmp_path: Path) -> None:
    record = proof(1.0)
    del record["seconds"]["boot to login"]
    assert note_proof(tmp_path, record) == ""
    assert not (tmp_path / FOLDER).exists()


def test_the_history_is_bounded_and_a_torn_line_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / FOLDER / "web1.jsonl"
    for number in range(MOST_KEPT + 5):
        note_proof(tmp_path, proof(float(number)))
    with path.open("a") as stream:
        stream.write('{"proven_at": 1, "ver')
    kept = read_history(path)
    assert len(kept) <= MOST_KEPT
    assert kept[-1].boot_s == MOST_KEPT + 4
