"""The one module that knows terminals: what may reach them, their width, their colours.

A line is made of parts: plain texts, and `Span`s whose style says what they mean. Colour goes where
a person looks on (NO_COLOR, FORCE_COLOR and CLICOLOR_FORCE say otherwise) and never says what the
words do not. On a terminal a line is wrapped between words: a path can be copied whole.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Literal, NamedTuple, TextIO

from pipeline.caller import as_typed
from pipeline.errors import PipelineError

# C0 without tab and newline, DEL, C1 (ECMA-48), what turns the direction of text (UAX 9), and
# surrogates, which no encoding can print
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff]"
)
Style = Literal["", "error", "warning", "ok", "dim", "strong"]
_SGR = {"error": "1;31", "warning": "33", "ok": "32", "dim": "2", "strong": "1"}
_NARROWEST = 20  # columns; a terminal that says less is not believed


class Span(NamedTuple):
    """A text and what it means."""

    text: str
    style: Style = ""

    def __str__(self) -> str:
        return self.text


Part = str | Span


def printable(text: str) -> str:
    """The text with every character that steers a terminal as \\xNN or \\uNNNN."""
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def mark_typed(part: Part) -> Part:
    """The same with each command in it as it can be typed here."""
    return Span(as_typed(part.text), part.style) if isinstance(part, Span) else as_typed(part)


def has_colour(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether colours go to a stream: no-color.org first, then force-color.org, then a terminal."""
    if environment.get("NO_COLOR"):
        return False
    if any(
        environment.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")
    ):
        return True
    is_able = environment.get("TERM", "dumb") != "dumb" and environment.get("CLICOLOR") != "0"
    return is_able and stream.isatty()


def width_of(stream: TextIO) -> int:
    """Columns of the terminal behind a stream, 0 where there is none or it does not say."""
    if not stream.isatty():
        return 0
    told = os.environ.get("COLUMNS", "")
    try:
        columns = int(told) if told.isdecimal() else os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return 0
    return max(columns, _NARROWEST) if columns else 0


def render(parts: Sequence[Part], stream: TextIO, *, indent: int | None = None) -> str:
    """A line, or several, as a stream gets it. What goes on below is indented by `indent`."""
    wide, is_coloured = width_of(stream), has_colour(stream)
    lines = (row for line in _split(parts) for row in wrap(line, wide, indent=indent))
    return "\n".join(_paint(line, is_coloured=is_coloured) for line in lines)


def plain(parts: Sequence[Part]) -> str:
    """The text alone."""
    return "".join(str(part) for part in parts)


def wrap(parts: Sequence[Part], width: int, *, indent: int | None = None) -> list[list[Span]]:
    """The parts as lines of at most `width` characters, 0: of any length. No word is broken.

    Without `indent` what goes on is four columns further in than where it began.
    """
    spans = [part if isinstance(part, Span) else Span(part) for part in parts]
    if not width or len(plain(spans)) <= width:
        return [spans]
    if indent is None:
        indent = 4 + len(plain(spans)) - len(plain(spans).lstrip(" "))
    lines: list[list[Span]] = [[]]
    column = 0
    gap = ""
    for word in _words(spans):
        if word[0].text.isspace():
            gap += word[0].text
            continue
        length = len(plain(word))
        is_first = not plain(lines[-1]).strip()
        if gap and not is_first and column + len(gap) + length > width:
            gap = " " * min(indent, max(width - length, 0))
            lines.append([])
            column = 0
        goes_on = lines[-1] and lines[-1][-1].style == word[0].style
        lines[-1] += [Span(gap, word[0].style if goes_on else ""), *word]
        column += len(gap) + length
        gap = ""
    return lines


def print_error(error: PipelineError) -> None:
    """An error as a person reads it: what and where, the program's last words, what to do."""
    argv = getattr(error, "argv", None)
    details = error.details if argv else as_typed(error.details)
    where = "".join(f" {part}" for part in (error.guest, error.stage) if part)
    brief = f"{where}: {error.brief}" if where else f" {error.brief}"
    lines: list[list[Part]] = [[Span("error:", "error"), as_typed(brief)]]
    if argv and not error.log:
        lines.append([Span(f"  command: {' '.join(argv)[:2000]}", "dim")])
    lines += [["  ", Span("|", "dim"), f" {line}"] for line in details.splitlines()]
    if error.log:
        lines.append(["  log: ", Span(error.log, "dim")])
    if error.hint:
        lines.append(["  ", Span("next:", "strong"), f" {as_typed(error.hint)}"])
    sys.stdout.flush()
    text = "\n".join(render(line, sys.stderr) for line in lines)
    print(text, file=sys.stderr, flush=True)


def _split(parts: Sequence[Part]) -> Iterator[list[Span]]:
    """The parts as they stand between newlines, with nothing in them that steers a terminal."""
    line: list[Span] = []
    for part in parts:
        style = part.style if isinstance(part, Span) else ""
        first, *others = printable(str(part)).split("\n")
        line.append(Span(first, style))
        for text in others:
            yield line
            line = [Span(text, style)]
    yield line


def _words(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Words, of one span or more, and the blanks between them."""
    word: list[Span] = []
    for text, style in spans:
        for piece in re.findall(r"\s+|\S+", text):
            if piece.isspace():
                if word:
                    yield word
                word = []
                yield [Span(piece)]
            else:
                word.append(Span(piece, style))
    if word:
        yield word


def _paint(spans: Sequence[Span], *, is_coloured: bool) -> str:
    texts = ((style, plain([*same])) for style, same in groupby(spans, lambda span: span.style))
    return "".join(
        f"\x1b[{_SGR[style]}m{text}\x1b[0m" if style and text and is_coloured else text
        for style, text in texts
    )
