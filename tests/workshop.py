"""One output folder for the whole test session: golden halves are built once, guests on demand."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 600


def run_program(
    argv: Sequence[object],
    env: Mapping[str, str] | None = None,
    *,
    cwd: Path = ROOT,
    stdin: str = "",
    timeout_s: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """A program's end, whatever its exit code; output and errors together."""
    return subprocess.run(
        list(map(str, argv)),
        env=env,
        cwd=cwd,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


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
        argv = [sys.executable, "-m", "doit", *words]
        done = run_program(argv, self.environment(), stdin=stdin, timeout_s=PATIENCE_S)
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
