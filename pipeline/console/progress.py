"""What moves on the screen: tqdm bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from pipeline.caller import as_typed
from pipeline.console.terminal import printable

PLAIN_EVERY_S = 15.0


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
    """A tqdm bar."""

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        from tqdm import tqdm  # 40 ms, only where a bar is shown

        _lines.write = tqdm.write  # which does not tear a bar apart
        self._bar = tqdm(
            total=total,
            desc=printable(f"     {description}"),
            unit=unit,
            unit_scale=unit == "B",
            leave=False,
            dynamic_ncols=True,
        )

    def advance(self, amount: int = 1) -> None:
        self._bar.update(amount)

    def expect(self, amount: int = 1) -> None:
        self._bar.total = (self._bar.total or 0) + amount
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """Where lines and plain bars go, and how."""

    are_errors = False
    write: Callable[..., None] = staticmethod(print)

    @property
    def stream(self) -> TextIO:
        return sys.stderr if self.are_errors else sys.stdout


_lines = _Lines()


def leave_stdout() -> None:
    """From here on lines go to standard error: standard output is for the JSON of a command."""
    _lines.are_errors = True


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


def print_line(text: str) -> None:
    """One line on standard output that does not tear a bar apart."""
    _lines.write(printable(as_typed(text)), file=_lines.stream)
    _lines.stream.flush()


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_line("  ".join(cells).rstrip())
