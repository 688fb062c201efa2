"""KEY="value" lines of shell files and xl.conf, and words of command lines: read, set in place.

What is set leaves every other byte of the file as it was: comments, order, other keys.
"""

import re
from collections.abc import Iterable

_ASSIGN = re.compile(r"^\s*([A-Za-z0-9_]+)\s*\+?=\s*(?:\"([^\"]*)\"|'([^']*)'|(\S*))", re.MULTILINE)


def read_assignments(text: str) -> dict[str, str]:
    """KEY="value" lines of shell or xl.conf; `+=` and a second `=` win over what was before."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {key: double or single or plain for key, double, single, plain in _ASSIGN.findall(lines)}


def set_assignment(text: str, key: str, value: str) -> str:
    """The text with KEY="value" for the last line that sets the key."""
    if read_assignments(text).get(key) == value:
        return text
    active = [*re.finditer(rf"^[ \t]*{key}[ \t]*\+?=[^\n]*", text, re.MULTILINE)]
    example = rf"^#[ \t]*{key}[ \t]*=[^\n]*"
    return put_line(text, f'{key}="{value}"', active[-1:], example)


def put_line(text: str, line: str, spots: Iterable[re.Match[str]], example: str = r"(?!)") -> str:
    """`line` for the first of `spots`; without one, below the last comment like `example`.

    At the end of the text where there is neither.
    """
    for spot in spots:
        return f"{text[: spot.start()]}{line}{text[spot.end() :]}"
    for spot in [*re.finditer(example, text, re.MULTILINE)][-1:]:
        return f"{text[: spot.end()]}\n{line}{text[spot.end() :]}"
    return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{line}\n"


def keys_of(words: Iterable[str]) -> set[str]:
    """What stands before the = of each."""
    return {word.partition("=")[0] for word in words}


def replace_words(line: str, words: Iterable[str]) -> str:
    """A command line with `words` at its end, instead of those that it has of the same keys."""
    mine = [*words]
    keys = keys_of(mine)
    return " ".join([*(word for word in line.split() if keys.isdisjoint(keys_of([word]))), *mine])
