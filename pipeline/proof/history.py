"""How long each proof of a guest took: kept, so that a boot that has become slower shows.

One line of JSON a proof in output/history/<guest>.jsonl, the newest last. Only proofs of the same
kind are compared: the same Xen, accelerator and way to boot. Where the processor is emulated, what
is judged are the seconds that the emulator computed: the clock's grow with a machine's other work.
"""

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.files import write_durably
from pipeline.proof.seals import VERITY

FOLDER = "history"
MOST_KEPT = 200
COMPARED = 5
# both must be passed: noise is relative, and a quarter of two seconds is nothing
SLOWER = 1.25
SLOWER_S = 2.0
_KIND = ("suite", "type", "boot", "init", "xen", "accelerator", "proven with")


@dataclass(frozen=True)
class Entry:
    """One proof: `boot_s` to the login prompt by the clock, `work_s` of it computed, 0: not known.

    `digest` names the disk that booted; `kind` what may be compared with what.
    """

    proven_at: int
    verdict: str
    boot_s: float
    work_s: float
    total_s: float
    digest: str
    kind: str


def note_proof(output: Path, record: Mapping[str, Any]) -> str:
    """Add a proof's record (proof.json's form) to its guest's history; returns what to say of it.

    "" for a guest that did not come to its login prompt.
    """
    seconds = record["seconds"]
    if "boot to login" not in seconds or "total" not in seconds:
        return ""
    facts = record["facts"]
    disks = (seal["digest"] for seal in record["digests"].values() if seal["kind"] == VERITY)
    entry = Entry(
        proven_at=int(time.time()),
        verdict=record["verdict"],
        boot_s=seconds["boot to login"],
        work_s=record.get("work", {}).get("boot to login", 0.0),
        total_s=seconds["total"],
        digest=next(disks, ""),
        kind=" ".join(str(facts.get(key, "")) for key in _KIND),
    )
    path = output / FOLDER / f"{record['guest']}.jsonl"
    before = read_history(path)
    _append(path, before, entry)
    return compare(
        [old for old in before if old.kind == entry.kind and old.verdict == "proven"], entry
    )


def read_history(path: Path) -> list[Entry]:
    """The entries of a guest, oldest first; lines that are none are left out."""
    entries = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            continue  # a line half written when the machine stopped
    return entries


def compare(before: list[Entry], entry: Entry) -> str:
    """The boot's time in words, against the median of the last proofs of the same kind."""
    last = before[-COMPARED:]
    if not last:
        return f"boot {entry.boot_s:.1f} s"
    count = f"the last {len(last)} proofs" if len(last) > 1 else "the last proof"
    text = f"boot {entry.boot_s:.1f} s, was {_median(last, 'boot_s'):.1f} s in {count}"
    measure = "work_s" if entry.work_s and all(old.work_s for old in last) else "boot_s"
    now, was = getattr(entry, measure), _median(last, measure)
    if measure == "work_s":
        text += f" ({now:.1f} s of work, was {was:.1f} s)"
    return f"{text}: SLOWER" if now > was * SLOWER and now > was + SLOWER_S else text


def _median(entries: list[Entry], measure: str) -> float:
    return float(statistics.median(getattr(entry, measure) for entry in entries))


def _append(path: Path, before: list[Entry], entry: Entry) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(entry), sort_keys=True)
    if len(before) < MOST_KEPT:
        with path.open("a") as stream:
            stream.write(f"{line}\n")
        return
    kept = [json.dumps(asdict(old), sort_keys=True) for old in before[1 - MOST_KEPT // 2 :]]
    write_durably(path, "\n".join([*kept, line, ""]).encode())
