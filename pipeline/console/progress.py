"""What moves on the screen: tqdm bars on a terminal, a plain line now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from pipeline.console.terminal import Part, Span, mark_typed, printable, render, width_of

PLAIN_EVERY_S = 15.0
WARNING = Span("warning:", "warning")


class Bar(Protocol):
    """Something that counts up to a total."""

    def advance(self, amount: int = 1) -> None:
        """Count `amount` more units."""

    def expect(self, amount: int = 1) -> None:
        """The total is `amount` more than was known."""


@dataclass
class _PlainBar:
    """Says how far it is every 15 seconds, for logs and pipes."""

    description: str
    total: int | None
    unit: str
    done: int = 0
    spoke_at: float = field(default_factory=time.monotonic)

    def expect(self, amount: int = 1) -> None:
        self.total = (self.total or 0) + amount

    def advance(self, amount: int = 1) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.spoke_at < PLAIN_EVERY_S:
            return
        self.spoke_at = now
        share = f" ({100 * self.done // self.total} %)" if self.total else ""
        print_line(f"     {self.description}: {self.done} {self.unit}{share}")


class _TerminalBar:
    """A tqdm bar. How many steps a second there were says nothing: they differ too much."""

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        from tqdm import tqdm  # 40 ms, only where a bar is shown

        self._unit = unit
        with _lines.lock:
            _lines.write = tqdm.write  # which does not tear a bar apart
            self._bar = tqdm(
                total=total,
                desc=printable(f"     {description}"),
                unit=unit,
                unit_scale=unit == "B",
                leave=False,
                dynamic_ncols=True,
                bar_format=self._format(total),
            )

    def _format(self, total: float | None) -> str:
        if total is None:
            return f"{{desc}}: {{n_fmt}} {self._unit} [{{elapsed}}]"
        share = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}"
        return f"{share}B {{rate_fmt}}" if self._unit == "B" else f"{share} [{{elapsed}}]"

    def advance(self, amount: int = 1) -> None:
        self._bar.update(amount)

    def expect(self, amount: int = 1) -> None:
        self._bar.total = (self._bar.total or 0) + amount
        self._bar.bar_format = self._format(self._bar.total)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """Where lines and plain bars go, and how."""

    are_errors = False
    log: TextIO | None = None
    warnings = 0
    lock = threading.Lock()  # a bar that is being drawn for the first time is a line too
    write: Callable[..., None] = staticmethod(print)

    @property
    def stream(self) -> TextIO:
        return sys.stderr if self.are_errors else sys.stdout


_lines = _Lines()


def leave_stdout() -> None:
    """From here on lines go to standard error: standard output is for the JSON of a command."""
    _lines.are_errors = True


@contextmanager
def lines_into(log: TextIO) -> Iterator[None]:
    """Lines go to this file meanwhile."""
    with _lines.lock:
        before, _lines.log = _lines.log, log
    try:
        yield
    finally:
        with _lines.lock:
            _lines.log = before


def is_terminal() -> bool:
    """True when a person looks on: standard error is a terminal (tqdm draws there)."""
    return sys.stderr.isatty()


@contextmanager
def progress_bar(description: str, *, total: int | None = None, unit: str = "") -> Iterator[Bar]:
    """A bar for as long as the block runs; `total` and advance() are in `unit` (B = bytes)."""
    if not is_terminal():
        yield _PlainBar(description, total, unit)
        return
    bar = _TerminalBar(description, total, unit)
    try:
        yield bar
    finally:
        bar.close()


def print_line(*parts: Part, indent: int | None = None) -> None:
    """One line that does not tear a bar apart; on a terminal it is wrapped (`terminal.render`)."""
    stream = _lines.log or _lines.stream
    text = render([mark_typed(part) for part in parts], stream, indent=indent)
    with _lines.lock:
        _lines.warnings += any(getattr(part, "style", "") == "warning" for part in parts)
        write = print if _lines.log else _lines.write
        write(text, file=stream)
    stream.flush()


def count_warnings() -> int:
    """How many lines had a part that is marked as a warning."""
    return _lines.warnings


def line_width() -> int:
    """Columns of the terminal that lines go to, 0 where they go elsewhere."""
    return width_of(_lines.stream)


def print_table(
    rows: Sequence[Sequence[Part]], *, head: Sequence[str] = (), indent: int = 0
) -> None:
    """Columns as wide as they need to be; where there is no room, a list with `head`'s names.

    The last column is wrapped, if its longest word and a third of the terminal are left to it.
    """
    rows = [[mark_typed(cell) for cell in row] for row in rows]
    table = [*([[Span(text, "strong") for text in head]] if head else []), *rows]
    if not table:
        return
    widths = [max(len(str(row[column])) for row in table) for column in range(len(table[0]))]
    wide, before = line_width(), indent + sum(widths[:-1]) + 2 * (len(widths) - 1)
    longest = max((len(word) for row in rows for word in str(row[-1]).split()), default=0)
    if wide and before + widths[-1] > wide < before + max(longest, wide // 3):
        for row in rows:
            _print_listed(row, head, indent)
        return
    for row in table:
        line: list[Part] = [" " * indent]
        for cell, width in zip(row, widths, strict=True):
            line += [cell, " " * (width - len(str(cell)) + 2)]
        while len(line) > 1 and not str(line[-1]).strip():
            line.pop()
        print_line(*line, indent=before)


def _print_listed(row: Sequence[Part], head: Sequence[str], indent: int) -> None:
    """A row one cell after the other; with names, all but the first of them below it."""
    parts: list[Part] = []
    for number, cell in enumerate(row):
        if str(cell).strip():
            name = f"{head[number]} " if head and parts else ""
            parts += [(", " if len(parts) > 3 else ": ") if name else "  ", name, cell]
    print_line(" " * indent, *parts[1:])
