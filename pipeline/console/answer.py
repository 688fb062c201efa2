"""What a run tells a program: one JSON object on standard output, when it ends.

docs/reference/output.md has its keys. Asked for or not, it is put together here: the summary of a
build is made of the same facts.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.console import junit, output_file
from pipeline.console.progress import leave_stdout
from pipeline.errors import Finding, PipelineError

FORM = 1


class Answer:
    """Facts by guest; those of a command that is about no guest stand under ""."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A run begins: nothing is known, and nobody has asked."""
        self.is_wanted = False
        self.guests: dict[str, dict[str, Any]] = {}
        self._is_one = True
        self._junit: Path | None = None
        self._command = ""

    def want(self) -> None:
        """From here on standard output is for the object alone."""
        self.is_wanted = True
        leave_stdout()

    def want_junit(self, path: Path, command: str) -> None:
        """When the run ends, what was found goes into this file too. Raises UsageError."""
        self._command = command
        output_file.prepare(path, "junit")
        self._junit = path

    def expect(self, guests: Iterable[str], *, is_one: bool, is_build: bool) -> None:
        """Which guests the run is about. Facts of a single one stand at the top of the object."""
        self._is_one = is_one
        for guest in guests:
            self.add(guest, **({"state": "not reached", "stages": []} if is_build else {}))

    def add(self, guest: str, **facts: object) -> None:
        """Note what is known of a guest."""
        self.guests.setdefault(guest, {"guest": guest} if guest else {}).update(facts)

    def add_findings(self, guest: str, findings: Iterable[Finding], **facts: object) -> None:
        """The same, with what was found, beside what another command of the line has found."""
        self.add(guest, **facts)
        known = self.guests[guest].setdefault("findings", [])
        known += (finding.as_json() for finding in findings)

    def add_stage(self, guests: Iterable[str], facts: Mapping[str, object]) -> None:
        """Note how a stage ended that serves these guests, and others perhaps."""
        for guest in self.guests.keys() & set(guests):
            self.guests[guest].setdefault("stages", []).append(dict(facts))

    def end(self, guests: Iterable[str], seconds: float) -> None:
        """Note that all that was to be built of these guests is there."""
        for guest in self.guests.keys() & set(guests):
            if "state" in self.guests[guest]:
                ran = any(stage["outcome"] == "built" for stage in self.guests[guest]["stages"])
                self.add(guest, state="built" if ran else "reused", seconds=seconds)

    def add_failure(self, guests: Iterable[str], error: PipelineError) -> None:
        """Note what ended the run of these guests, or of all."""
        mistakes = [finding.as_json() for finding in error.findings]
        known = self.guests.keys() & set(guests)
        for guest in known or {""}:
            self.add(guest)
            self.guests[guest].setdefault("failures", []).extend(mistakes)
            if "state" in self.guests[guest]:
                self.add(guest, state="failed")

    def write_junit(self, seconds: float) -> None:
        """The file, if somebody wants it. Raises EnvironmentFault where it cannot be written."""
        if self._junit is not None:
            report = junit.render(self._command, self.guests, seconds)
            output_file.write(self._junit, report, "junit")

    def print(self, exit_code: int, seconds: float) -> None:
        """The object, if somebody wants it and there is something to say."""
        if not self.is_wanted or not (self.guests or exit_code):
            return
        facts = [{"failures": [], **facts} for name, facts in self.guests.items() if name]
        told: dict[str, Any] = {"form": FORM, "exit_code": exit_code, "elapsed": seconds}
        told["failures"] = []
        if self._is_one:
            for table in facts:
                told.update(table)
        else:
            told["guests"] = facts
        own = dict(self.guests.get("", {}))
        told["failures"] = told["failures"] + own.pop("failures", [])
        told.update(own)
        sys.stdout.write(f"{json.dumps(told, indent=1)}\n")
        sys.stdout.flush()


ANSWER = Answer()
