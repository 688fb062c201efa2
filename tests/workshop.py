"""One output folder for the whole test session: golden halves are built once, guests on demand."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 600


@dataclass(frozen=True)
class Outcome:
    """How a doit run ended: exit code, what it said, wall time in seconds."""

    code: int
    said: str
    seconds: float

    def lines_of(self, what: str) -> list[str]:
        """The stages that were `built` or `reused`, as printed: "rootfs bookworm-1edc925d"."""
        found = (line.split() for line in self.said.splitlines())
        return [" ".join(words[:2]) for words in found if len(words) > 2 and words[2] == what]

    def stages(self, what: str) -> list[str]:
        """Only the names of the stages."""
        return [line.split()[0] for line in self.lines_of(what)]


@dataclass
class Workshop:
    """Runs doit as a user does, with its own output folder and a folder of guests."""

    output: Path
    guests: Path = ROOT / "guests"
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """The user's environment with our folders."""
        kept = {key: text for key, text in os.environ.items() if key not in ("DOMU_OUTPUT",)}
        return {**kept, "DOMU_OUTPUT": str(self.output), "DOMU_GUESTS": str(self.guests)}

    def doit(self, *words: str, stdin: str = "", ends: int | None = None) -> Outcome:
        """`doit WORDS...`; output and errors together. It `ends` with this code, or fails."""
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "doit", *words],
            cwd=ROOT,
            env=self.environment(),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert ends in (None, done.returncode), done.stdout
        return Outcome(done.returncode, done.stdout, time.monotonic() - started)

    def built(self, name: str, *overrides: str) -> Path:
        """The artifact folder of a guest, built if this session has not built it yet."""
        key = " ".join([name, *overrides])
        if key not in self.outcomes:
            outcome = self.doit("build", f"name={name}", *overrides)
            assert outcome.code == 0, outcome.said
            print(f"built {key} in {outcome.seconds:.1f} s", flush=True)
            self.outcomes[key] = outcome
        return self.output / "guests" / name
