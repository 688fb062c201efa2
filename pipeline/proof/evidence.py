"""What a proof leaves beside the artifact: proof.json and console.log."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import Finding, Level
from pipeline.files import write_durably
from pipeline.proof.names import CONSOLE, FORM, PROOF, SCREENSHOT
from pipeline.proof.seals import Seal

_OK: Mapping[Level, bool | None] = {"ok": True, "error": False, "skipped": None}  # in proof.json


@dataclass
class Evidence:
    """What has been seen so far; `verdict` is proven, failed (the guest) or broken (the host).

    `injected`: what was put into the overlays of the disks for this proof. `is_unchanged`: every
    digest was the same before that and when the machine was gone.
    `seconds` of the clock by phase; `work` the seconds that an emulator computed in them, read
    from `meter` where there is one.
    """

    guest: str
    verdict: str = "broken"
    reason: str = ""
    causes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    work: dict[str, float] = field(default_factory=dict)
    checks: list[Finding] = field(default_factory=list)
    digests: dict[str, Seal] = field(default_factory=dict)
    injected: dict[str, Any] = field(default_factory=dict)
    is_unchanged: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    console: str = ""
    meter: Callable[[], float] | None = None
    trend: str = ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note how long the block took, in seconds."""
        started, worked = time.monotonic(), self.meter() if self.meter else None
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - started, 2)
            if self.meter and worked is not None:
                self.work[name] = round(self.meter() - worked, 2)

    def stop_meter(self) -> None:
        """From here on nothing computes any more."""
        self.meter = None

    def describe_times(self) -> str:
        """Every phase with its seconds, in the order in which they came."""
        phases = (name for name in self.seconds if name != "total")
        return ", ".join(f"{name} {self.seconds[name]:.1f}" for name in phases)

    @property
    def failed(self) -> list[Finding]:
        """The checks that did not hold."""
        return [check for check in self.checks if check.level == "error"]

    def add(self, *checks: Finding) -> None:
        """Note checks."""
        self.checks += checks

    def to_json(self) -> dict[str, Any]:
        """proof.json as docs/reference/proof.md describes it."""
        table = asdict(replace(self, meter=None))
        table["checks"] = [
            {
                "name": check.subject,
                "expected": check.expected,
                "seen": check.seen,
                "ok": _OK[check.level],
            }
            for check in self.checks
        ]
        for name in ("console", "meter", "trend", "is_unchanged"):
            del table[name]
        now = int(time.time())
        return {"form": FORM, "proven_at": now, "unchanged": self.is_unchanged, **table}

    def fill(self, table: Mapping[str, Any]) -> None:
        """Take over what was seen, out of a proof.json; not its verdict, and not its digests.

        Raises KeyError, TypeError, ValueError for what is none.
        """
        if table["form"] != FORM or table["guest"] != self.guest:
            raise ValueError(f"of form {table['form']}, of {table['guest']}")
        levels = {ok: level for level, ok in _OK.items()}
        self.checks = [
            Finding(
                levels[check["ok"]],
                str(check["name"]),
                expected=str(check["expected"]),
                seen=str(check["seen"]),
            )
            for check in table["checks"]
        ]
        self.causes = [str(cause) for cause in table["causes"]]
        self.facts, self.injected = dict(table["facts"]), dict(table["injected"])
        self.seconds = {str(name): float(spent) for name, spent in table["seconds"].items()}
        self.work = {str(name): float(spent) for name, spent in table["work"].items()}

    def write(self, folder: Path) -> None:
        """Write both files; the artifact's own are not touched. A picture of another proof goes."""
        folder.mkdir(parents=True, exist_ok=True)
        if "screenshot" not in self.facts:
            (folder / SCREENSHOT).unlink(missing_ok=True)
        write_durably(folder / CONSOLE, self.console.encode())
        text = json.dumps(self.to_json(), indent=1, sort_keys=True)
        write_durably(folder / PROOF, f"{text}\n".encode())
