"""A verdict: what one check found, and how all of them are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "FAIL"]
_SHOWN, _READ = 150, 2000


@dataclass(frozen=True)
class Verdict:
    """One named check. `row` is that of docs/checks.md; `seen` is what the artifact really has."""

    row: str
    name: str
    level: Level
    seen: str
    expected: str = ""
    hint: str = ""


def compare(row: str, name: str, *, expected: str, seen: str, hint: str = "") -> Verdict:
    """ok when what was seen is what was expected."""
    level: Level = "ok" if seen == expected else "FAIL"
    return Verdict(row, name, level, seen or "nothing", expected or "nothing", hint)


def judge(row: str, name: str, faults: Sequence[str], *, ok: str, hint: str = "") -> Verdict:
    """ok, showing `ok`, when there are no faults; else a failure that shows them all."""
    if not faults:
        return Verdict(row, name, "ok", ok, ok)
    return Verdict(row, name, "FAIL", "; ".join(faults), ok, hint)


def render_table(guest: str, verdicts: Sequence[Verdict]) -> list[str]:
    """A line a check, aligned; below a failure what was expected and what to do; then the sum."""
    width = max((len(verdict.name) for verdict in verdicts), default=0)
    lines: list[str] = []
    for verdict in verdicts:
        start = f"{verdict.level:<4} {verdict.row:<3} {verdict.name:<{width}}"
        lines.append(f"{start}  {shorten(verdict.seen)}")
        if verdict.level == "FAIL" and verdict.expected:
            lines.append(f"{'':9}{'expected':<{width}}  {shorten(verdict.expected)}")
        if verdict.level != "ok" and verdict.hint:
            lines.append(f"{'':9}{'hint':<{width}}  {verdict.hint}")
    return [*lines, f"{guest}: {summarize(verdicts)}"]


def summarize(verdicts: Sequence[Verdict]) -> str:
    """`41 checks, 39 ok, 1 failed, 1 warning`; what is zero is left out."""
    failed = sum(verdict.level == "FAIL" for verdict in verdicts)
    warned = sum(verdict.level == "warn" for verdict in verdicts)
    text = f"{len(verdicts)} checks, {len(verdicts) - failed - warned} ok"
    text += f", {failed} failed" if failed else ""
    return text + (f", {warned} warning{'s' if warned > 1 else ''}" if warned else "")


def shorten(text: str) -> str:
    """The beginning of a text, in one line."""
    shown = " | ".join(line for line in text[:_READ].splitlines() if line) or "nothing"
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
