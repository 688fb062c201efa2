"""The syntax of xl.cfg: assignments of strings, numbers and lists, read as libxlutil reads them.

Facts were taken from libxlutil 4.17 itself (tests/host/test_xl_real_parser.py asks it again): keys
are lower case, a carriage return is an error, a string may not span lines, escapes are those of
`_ESCAPES`, `+=` appends, `;` separates statements.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.xen.values import SyntaxFault

Value = str | int | list[str]


class Quoted(str):
    """Text that a serializer made for the target's syntax; templates print nothing else."""

    __slots__ = ()


_TOKEN = re.compile(
    r"""(?P<space>[ \t]+)
      | (?P<comment>\#[^\n]*)
      | (?P<newline>\n)
      | (?P<string>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*')
      | (?P<number>[0-9][0-9a-fx]*)
      | (?P<key>[a-z][a-z0-9_]*)
      | (?P<sign>\+=|=|\[|\]|,|;)""",
    re.VERBOSE,
)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_DEEPEST = 8
_NESTED = "[...]"  # stands for a list inside a list, which no key that we read has


@dataclass(frozen=True)
class Assignment:
    """One assignment of a configuration, with the number of the line that it begins on."""

    key: str
    value: Value
    line: int


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


def read_assignments(text: str) -> list[Assignment]:
    """Every assignment in order, `+=` already applied. Raises SyntaxFault with the line."""
    reader = _Reader(text)
    assignments: list[Assignment] = []
    known: dict[str, Value] = {}
    while (assignment := reader.next_assignment(known)) is not None:
        known[assignment.key] = assignment.value
        assignments.append(assignment)
    return assignments


def quote_string(value: str) -> str:
    """A string as xl.cfg writes it, in double quotes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class _Reader:
    """Reads tokens one by one; knows what may follow what."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_scan(text))
        self._at = 0

    def next_assignment(self, known: dict[str, Value]) -> Assignment | None:
        while self._peek().kind == "newline" or self._peek().text == ";":
            self._at += 1
        if self._peek().kind == "end":
            return None
        key = self._take("key", "a key")
        sign = self._take("sign", "= or +=")
        if sign.text not in ("=", "+="):
            raise SyntaxFault(f"line {sign.line}: {sign.text!r} where = was expected")
        value = self._value(0)
        end = self._peek()
        if end.kind not in ("newline", "end") and end.text != ";":
            raise SyntaxFault(f"line {end.line}: {end.text!r} after the value of {key.text}")
        if sign.text == "+=" and key.text in known:
            value = _append(known[key.text], value, key)
        return Assignment(key.text, value, key.line)

    def _value(self, depth: int) -> Value:
        token = self._peek()
        if token.text == "[" and token.kind == "sign":
            if depth > _DEEPEST:
                raise SyntaxFault(f"line {token.line}: lists are nested too deeply")
            return self._list(depth)
        self._at += 1
        if token.kind == "string":
            return _unquote(token)
        if token.kind == "number":
            return _read_number(token)
        raise SyntaxFault(
            f"line {token.line}: {token.text!r} is not a string, number or list; "
            "xl does not run Python"
        )

    def _list(self, depth: int) -> list[str]:
        opening = self._take("sign", "[")
        items: list[str] = []
        while True:
            self._skip_newlines()
            if self._peek().text == "]" and self._peek().kind == "sign":
                self._at += 1
                return items
            if self._peek().kind == "end":
                raise SyntaxFault(f"line {opening.line}: the list that begins here never ends")
            value = self._value(depth + 1)
            items.append(_NESTED if isinstance(value, list) else str(value))
            self._skip_newlines()
            if self._peek().text == ",":
                self._at += 1
            elif self._peek().text != "]":
                token = self._peek()
                raise SyntaxFault(f"line {token.line}: {token.text!r} where , or ] was expected")

    def _skip_newlines(self) -> None:
        while self._peek().kind == "newline":
            self._at += 1

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, kind: str, wanted: str) -> _Token:
        token = self._peek()
        if token.kind != kind:
            raise SyntaxFault(f"line {token.line}: {token.text!r} where {wanted} was expected")
        self._at += 1
        return token


def _scan(text: str) -> Iterator[_Token]:
    line, at = 1, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            shown = text[at : at + 20].split("\n")[0]
            raise SyntaxFault(f"line {line}: xl cannot read {shown!r}")
        kind = match.lastgroup or ""
        if kind not in ("space", "comment"):
            yield _Token(kind, match[0], line)
        if kind == "newline":
            line += 1
        at = match.end()
    yield _Token("end", "the end of the file", line)


def _append(old: Value, new: Value, key: _Token) -> Value:
    if isinstance(old, list) and isinstance(new, list):
        return old + new
    if isinstance(old, list) or isinstance(new, list):
        raise SyntaxFault(f"line {key.line}: {key.text} += mixes a list and a single value")
    return str(old) + str(new)


def _unquote(token: _Token) -> str:
    def escape(match: re.Match[str]) -> str:
        letter = match[1]
        if letter in "\\\"'":
            return letter
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        raise SyntaxFault(f"line {token.line}: escape \\{letter} is not one that xl knows")

    return re.sub(r"\\(.)", escape, token.text[1:-1])


def _read_number(token: _Token) -> int:
    text = token.text
    octal = text.startswith("0") and not text.startswith("0x") and len(text) > 1
    try:
        return int(text, 8) if octal else int(text, 0)
    except ValueError:
        raise SyntaxFault(f"line {token.line}: {text!r} is not a number") from None
