"""Errors and foreign text on a person's terminal: what could steer it is shown, never obeyed."""

from __future__ import annotations

import re
import sys

from pipeline.caller import as_typed
from pipeline.errors import PipelineError

# C0 without tab and newline, DEL, C1 (ECMA-48), what turns the direction of text (UAX 9), and
# surrogates, which no encoding can print
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with every character that steers a terminal as \\xNN or \\uNNNN."""
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def print_error(error: PipelineError) -> None:
    """An error as a person reads it: what and where, the program's last words, what to do."""
    argv = getattr(error, "argv", None)
    details = error.details if argv else as_typed(error.details)
    where = " ".join(part for part in (error.guest, error.stage) if part)
    lines = [as_typed(f"error: {where}: {error.brief}" if where else f"error: {error.brief}")]
    if argv:
        lines.append(f"  command: {' '.join(argv)[:2000]}")
    lines += [f"  | {line}" for line in details.splitlines()]
    if error.log:
        lines.append(f"  log: {error.log}")
    if error.hint:
        lines.append(f"  next: {as_typed(error.hint)}")
    sys.stdout.flush()
    print(printable("\n".join(lines)), file=sys.stderr, flush=True)
