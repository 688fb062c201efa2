"""Stanzas of fields, which Debian's files are made of (deb822(5)): every reader of ours.

An index of packages may have 65 000 stanzas in 70 MiB. A search through its bytes takes 0.06 s, so
only the stanzas that are wanted are read into fields: all of them take 1.4 s here, 12 s in
python-debian.
"""

import re
from collections.abc import Collection, Iterator

_BLANK = re.compile(r"\n[ \t\r]*\n")
_START = b"Package: "


def read_fields(stanza: str | bytes) -> dict[str, str]:
    """The fields of one stanza by their names in lower case; further lines are lines of the value.

    Comments are passed over, blanks around a line are no part of it. Raises ValueError for what is
    no field, and for a field that is there twice.
    """
    text = stanza if isinstance(stanza, str) else stanza.decode("utf-8", "replace")
    fields: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.split("\n"):
        if line[:1] in (" ", "\t"):
            lines.append(line.strip())
        elif line.strip() and line[0] != "#":
            name, colon, value = line.partition(":")
            name = name.strip().lower()
            if not colon or not name or name in fields:
                raise ValueError(f"line {line[:40]!r}")
            lines = fields[name] = [value.strip()]
    return {name: "\n".join(lines) for name, lines in fields.items()}


def read_stanzas(text: str) -> Iterator[dict[str, str]]:
    """The fields of every stanza of a file that is not large. Raises ValueError."""
    return filter(None, map(read_fields, _BLANK.split(text)))


def find_stanzas(text: bytes, value: str, *, field: str = "Package") -> Iterator[bytes]:
    """The stanzas with a line that is this field with this value."""
    line = f"{field}: {value}\n".encode()
    at = text.find(line)
    while at >= 0:
        if text[at - 1 : at] in (b"\n", b""):
            yield stanza_at(text, at)
        at = text.find(line, at + len(line))


def select_stanzas(text: bytes, names: Collection[str]) -> Iterator[bytes]:
    """The stanzas that begin with any of these names of packages."""
    wanted = {name.encode() for name in names}
    return (one for one in split_stanzas(text) if package_of(one) in wanted)


def split_stanzas(text: bytes) -> list[bytes]:
    """All stanzas, as they are."""
    return [stripped for one in text.split(b"\n\n") if (stripped := one.lstrip(b"\n"))]


def stanza_at(text: bytes, at: int) -> bytes:
    """The stanza around a position."""
    start, end = text.rfind(b"\n\n", 0, at), text.find(b"\n\n", at)
    return text[start + 2 if start >= 0 else 0 : end if end >= 0 else len(text)].lstrip(b"\n")


def package_of(stanza: bytes) -> bytes:
    """The name of a package in the first line of its stanza, which may be its last."""
    return stanza.partition(b"\n")[0].removeprefix(_START)


def find_lines(text: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each line that begins so, but a file's first: the package of its stanza, the line's rest."""
    sign = b"\n" + start
    at = text.find(sign)
    while at >= 0:
        end = at + len(sign)
        gap = text.rfind(b"\n\n", 0, at)
        head = gap + 2 if gap >= 0 else 0
        yield package_of(text[head : text.find(b"\n", head)]), text[end : text.find(b"\n", end)]
        at = text.find(sign, end - 1)
