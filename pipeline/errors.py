"""What a person can mend: errors with a brief, details, a hint and an exit code.

Anything that is not a `PipelineError` is a bug of ours and keeps its traceback.
Exit codes are those of docs/reference/exit-codes.md (0 is success, 130 an interruption).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

_MOST_LETTERS = 500


class PipelineError(Exception):
    """A build that failed for a reason the user can read and mend (exit code 1).

    `brief` is one line: what and where. `details` are further lines (the end of a log, a list of
    problems). `hint` says what to do next. `stage` and `guest` are filled in by the graph.
    """

    exit_code = 1

    def __init__(self, brief: str, *, details: str = "", hint: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.hint = hint
        self.stage = ""
        self.guest = ""
        self.log = ""

    def __str__(self) -> str:
        return self.brief

    @property
    def findings(self) -> list[Finding]:
        """The same for programs: what failed, its last words, and where the log is."""
        where = self.stage or self.guest
        return [Finding("error", where, self.brief, self.hint, seen=self.details, source=self.log)]


class UsageError(PipelineError):
    """The command line names something that does not exist or makes no sense (exit code 2)."""

    exit_code = 2


# it holds; it could not be asked; worth a line; it fails, or stops what was wanted
Level = Literal["ok", "skipped", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """What was found of one thing, and the way out: a mistake, a risk, a check with its outcome.

    `subject` is what it is about (a key of a spec, a check, a guest) and `source` where that stands
    (a file, the command line). `expected` and `seen` are those of a comparison, which needs no
    `message`. `code` is the row of docs/reference/checks.md. `others` are further keys that take
    part.
    """

    level: Level
    subject: str
    message: str = ""
    hint: str = ""
    expected: str = ""
    seen: str = ""
    code: str = ""
    source: str = ""
    others: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What was found, in a line or so."""
        if self.message or self.level in ("ok", "skipped"):
            return self.message or self.seen
        return f"expected {self.expected or 'nothing'}, seen {self.seen or 'nothing'}"

    def as_json(self) -> dict[str, Any]:
        """For programs, as docs/reference/checks.md describes it: always every key."""
        return {**asdict(self), "message": self.text}

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.source, self.subject, self.text) if part)
        return f"{where}\n    {self.hint}" if self.hint else where


class SpecError(UsageError):
    """A guest's spec is wrong; `problems` holds every mistake found (exit code 2)."""

    def __init__(self, problems: list[Finding]) -> None:
        count = len(problems)
        brief = str(problems[0]) if count == 1 else f"{count} problems in what was asked for"
        details = "" if count == 1 else "\n".join(str(problem) for problem in problems)
        super().__init__(brief, details=details)
        self.problems = problems

    @property
    def findings(self) -> list[Finding]:
        """Each mistake."""
        return self.problems


class EnvironmentFault(PipelineError):
    """The machine lacks something: a tool, a privilege, free space (exit code 3)."""

    exit_code = 3


class DiskFull(EnvironmentFault):
    """There is no room for what was to be written (exit code 3)."""


class InUseError(PipelineError):
    """What would be written is in use: mounted, open, running (exit code 4)."""

    exit_code = 4


class VerificationError(PipelineError):
    """Bytes are not what they should be: signature, digest, date, a failed check (exit code 5)."""

    exit_code = 5


class CommandFailed(PipelineError):
    """A program ended with an error; details hold the end of its output (exit code 1)."""

    def __init__(
        self, argv: list[str], *, status: int, output: str, log: str = "", hint: str = ""
    ) -> None:
        super().__init__(f"{argv[0]} ended with status {status}", details=output, hint=hint)
        self.argv = argv
        self.status = status
        self.log = log


class WrongValueError(ValueError):
    """A value that cannot be: `message` says why, `hint` what can, `key` of what, where known."""

    def __init__(self, message: str, hint: str = "", *, key: str = "") -> None:
        # no value may move the cursor of whoever reads about it
        shown = (letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message)
        self.message = "".join(shown)
        if len(self.message) > _MOST_LETTERS:
            self.message = f"{self.message[: _MOST_LETTERS - 3]}..."
        self.hint = hint
        self.key = key
        super().__init__(f"{key}: {self.message}" if key else self.message)


def show_value(value: object) -> str:
    """A value as Python writes it, not longer than a line."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def suggest_nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'size'?`, or nothing when no known word is like this one."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{nearest[0]}'?" if nearest else ""


class Broken(EnvironmentFault):
    """The test host does not work; nothing is said about the guest (exit code 3)."""

    @classmethod
    def of(cls, error: PipelineError) -> Broken:
        """What is not the guest's fault, as the host's."""
        if isinstance(error, cls):
            return error
        return cls(error.brief, details=error.details, hint=error.hint)


class GuestFailed(VerificationError):
    """The guest does not do what it must (exit code 5); the details show what was seen."""
