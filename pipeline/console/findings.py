"""Findings as a person reads them, and as a program does: one table, one JSON form."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence

from pipeline.caller import as_typed
from pipeline.console.progress import print_line
from pipeline.errors import Finding

_LABELS = {"ok": "ok", "skipped": "-", "warning": "warn", "error": "FAIL"}
_SHOWN, _READ = 300, 4000  # characters of a text that a guest may have made
_LONGEST_ROW = 4
_WIDEST, _NARROWEST = 32, 30  # of the column of subjects, of the one of texts


def print_findings(findings: Sequence[Finding]) -> None:
    """The table on standard output; on a terminal no line is wider than that."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for line in render_table(findings, width=width):
        print_line(line)


def print_json(findings: Sequence[Finding], **further: object) -> None:
    """One JSON object on standard output: `findings`, and what else the command has to say."""
    shown = [finding.as_json() for finding in findings]
    print(json.dumps({"findings": shown, **further}, indent=1))


def render_table(findings: Sequence[Finding], *, width: int = 0) -> list[str]:
    """A line a finding, aligned; below it what was expected where that differs, and the way out.

    Lines are wrapped to `width` characters, 0 for not at all.
    """
    codes = max((len(_row(finding)) for finding in findings), default=0)
    widest = max((len(finding.subject) for finding in findings), default=0)
    subjects = min(max(widest, len("expected")), _WIDEST)
    lines: list[str] = []
    for finding in findings:
        rows = [
            (
                _LABELS[finding.level],
                _row(finding),
                finding.subject,
                shorten(finding.message or finding.seen),
            )
        ]
        if finding.level == "error" and (finding.expected or not finding.message):
            rows.append(("", "", "expected", shorten(finding.expected)))
        if finding.level != "ok" and finding.hint:
            rows.append(("", "", "hint", finding.hint))
        for label, code, subject, text in rows:
            gap = f"{code:<{codes}} " if codes else ""
            lines += _wrap(f"{label:<4} {gap}{subject:<{subjects}}  ", as_typed(text), width)
    return lines


def summarize(findings: Sequence[Finding]) -> str:
    """`41 checks, 39 ok, 1 failed, 1 warning`; what is zero is left out."""
    count = Counter(finding.level for finding in findings)
    text = f"{len(findings)} checks, {count['ok']} ok"
    text += f", {count['error']} failed" if count["error"] else ""
    text += f", {count['warning']} warning" if count["warning"] else ""
    text += "s" if count["warning"] > 1 else ""
    return text + (f", {count['skipped']} not asked" if count["skipped"] else "")


def _row(finding: Finding) -> str:
    """The row of docs/reference/checks.md; names of rules are for programs."""
    return finding.code if len(finding.code) <= _LONGEST_ROW else ""


def shorten(text: str) -> str:
    """The beginning of a text, in one line."""
    shown = " | ".join(line for line in text[:_READ].splitlines() if line) or "nothing"
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."


def _wrap(start: str, text: str, width: int) -> list[str]:
    if not width:
        return [start + text]
    indent = len(start) if width - len(start) >= _NARROWEST else 5
    return textwrap.wrap(
        text,
        width,
        initial_indent=start,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
