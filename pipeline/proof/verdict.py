"""Whether an artifact is proven as it lies there now: what `publish` and `install` ask.

Light to import; reads proof.json and the files that it names, starts nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.proof.digests import find_change
from pipeline.proof.names import FOLDER, FORM, PROOF


@dataclass(frozen=True)
class Verdict:
    """`reason` says why it is not proven, "" when it is; `proven_at` is seconds since 1970.

    `unasked` are the checks that could not be asked, for want of a key for example.
    """

    reason: str
    proven_at: int = 0
    unasked: tuple[str, ...] = ()

    @property
    def is_proven(self) -> bool:
        """True when exactly these bytes booted under Xen and every check that was asked held."""
        return not self.reason


def read_verdict(folder: Path, *, is_glance: bool = False) -> Verdict:
    """The verdict on the artifact folder of a guest, or on a copy of it.

    Every file that was booted is measured again: about half a second for a disk of 4 GiB. With
    `is_glance` only files whose size or time changed are, which is what a list of guests wants.
    """
    path = folder / FOLDER / PROOF
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Verdict("it was never proven")
    except (OSError, ValueError) as error:
        return Verdict(f"{path} cannot be read: {error}")
    if record.get("form") != FORM:
        return Verdict(f"its proof is of form {record.get('form')}, this pipeline writes {FORM}")
    at = int(record["proven_at"])
    if record["verdict"] != "proven":
        tail = f": {record['reason']}" if record["reason"] else ""
        return Verdict(f"its last proof says {record['verdict']}{tail}", at)
    seals = record["digests"]
    if not any(name.endswith(".cfg") for name in seals):
        return Verdict("its proof does not say what was booted", at)
    change = find_change(folder, seals, is_glance=is_glance)
    unasked = tuple(check["name"] for check in record["checks"] if check["ok"] is None)
    return Verdict(f"changed since its proof: {change}" if change else "", at, unasked)
