"""A guest's configuration on its host as the administrator left it: its bytes, its assignments.

Bytes that are not UTF-8 (a comment in Latin-1) pass through unchanged: they are surrogates in the
text (PEP 383) and the same bytes again when it is written.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.dom0.layout import Layout
from pipeline.errors import VerificationError
from pipeline.files import read_bytes
from pipeline.xen import xl, xm
from pipeline.xen.domain import Domain

Value = str | int | list[str]
LIMIT = 1 << 20
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


def read_config(layout: Layout, name: str) -> str | None:
    """The configuration as it is; None where there is none.

    Raises EnvironmentFault where this user may not read it, VerificationError for UTF-16,
    PipelineError for what is no plain file.
    """
    path = layout.config(name)
    try:
        content = read_bytes(path, limit=LIMIT, follow=True)
    except FileNotFoundError:
        return None
    if content.startswith(_WIDE) or b"\0" in content:
        raise VerificationError(
            f"{path} is no text that the toolstack reads (UTF-16, or zero bytes in it)",
            hint=f"write it as UTF-8: iconv -f UTF-16 -t UTF-8 {path}; or move it away",
        )
    return content.decode(errors="surrogateescape")


def encode(text: str) -> bytes:
    """The bytes of a configuration's text."""
    return text.encode(errors="surrogateescape")


@dataclass(frozen=True)
class Segment:
    """A stretch of a configuration: one statement (its keys), or a line that assigns nothing."""

    text: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grammar:
    """How a toolstack reads a configuration; raises ValueError with the line for what it cannot."""

    toolstack: str

    def values(self, text: str) -> dict[str, Value]:
        """Key to value."""
        read = xm.parse_assignments if self.toolstack == "xm" else xl.parse_assignments
        return read(_readable(text))

    def domain(self, text: str) -> Domain:
        """The domain that it describes, keys that our model does not carry left out."""
        parse = xm.parse if self.toolstack == "xm" else xl.parse
        return parse(_readable(text), strict=False)

    def segments(self, text: str) -> Iterator[Segment]:
        """The text in pieces: a statement ends with the first line that completes it."""
        open_text = ""
        for line in text.splitlines(keepends=True):
            open_text += line
            try:
                keys = tuple(self.values(open_text))
            except ValueError:
                continue
            yield Segment(open_text, keys)
            open_text = ""
        if open_text:
            yield Segment(open_text)


def _readable(text: str) -> str:
    """For parsers that take no surrogates: the foreign bytes read as Latin-1."""
    return re.sub("[\udc80-\udcff]", lambda found: chr(ord(found[0]) - 0xDC00), text)


def require_readable(grammar: Grammar, path: Path, text: str) -> Domain:
    """The domain of a configuration; VerificationError with the line where it cannot be read."""
    try:
        return grammar.domain(text)
    except ValueError as error:
        raise VerificationError(f"{path}: {error}", hint="correct it, then again") from error
