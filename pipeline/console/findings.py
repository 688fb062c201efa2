"""Findings as a person reads them, and as a program does: one table, one JSON form."""

from collections import Counter
from collections.abc import Iterator, Sequence

from pipeline.console.progress import line_width, print_line
from pipeline.console.terminal import Part, Span, Style, mark_typed, plain, wrap
from pipeline.errors import Finding

_LABELS: dict[str, tuple[str, Style]] = {
    "ok": ("ok", "ok"),
    "skipped": ("-", "dim"),
    "warning": ("warn", "warning"),
    "error": ("FAIL", "error"),
}
_SHOWN, _READ = 300, 4000  # characters of a text that a guest may have made
_LONGEST_ROW = 4
_WIDEST, _NARROWEST = 32, 30  # of the column of subjects, of the one of texts


def print_findings(findings: Sequence[Finding]) -> None:
    """The table on standard output; on a terminal no line is wider than that."""
    for line, indent in _rows(findings, line_width()):
        print_line(*line, indent=indent)


def render_table(findings: Sequence[Finding], *, width: int = 0) -> list[str]:
    """A line a finding, aligned; below it what was expected where that differs, and the way out.

    Lines are wrapped to `width` characters, 0 for not at all.
    """
    rows = _rows(findings, width)
    return [plain(line) for row, indent in rows for line in wrap(row, width, indent=indent)]


def _rows(findings: Sequence[Finding], width: int) -> Iterator[tuple[list[Part], int]]:
    """Each row, and where it goes on; without room for columns, subject and text one by one."""
    codes = max((len(_row(finding)) for finding in findings), default=0)
    widest = max((len(finding.subject) for finding in findings), default=0)
    subjects = min(max(widest, len("expected")), _WIDEST)
    start = 4 + 1 + (codes + 1 if codes else 0) + subjects + 2
    is_list = bool(width) and width - start < _NARROWEST

    def row(label: Span, code: str, subject: str, text: Part) -> tuple[list[Part], int]:
        gap = f"{code:<{codes}} " if codes else ""
        label = Span(f"{label.text:<4}", label.style)
        text = mark_typed(text)
        if is_list:
            return [label, f" {gap if code else ''}{subject}: ", text], 5
        return [label, f" {gap}{subject:<{subjects}}  ", text], start

    for finding in findings:
        label = Span(*_LABELS[finding.level])
        shown = shorten(finding.message or finding.seen)
        yield row(label, _row(finding), finding.subject, shown)
        if finding.level == "error" and (finding.expected or not finding.message):
            yield row(Span(""), "", "expected", shorten(finding.expected))
        if finding.level != "ok" and finding.hint:
            yield row(Span(""), "", "hint", Span(finding.hint, "dim"))


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
