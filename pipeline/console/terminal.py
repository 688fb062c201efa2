"""Foreign text on a person's terminal: what could steer it is shown, never obeyed."""

from __future__ import annotations

import re

# C0 without tab and newline, DEL, C1 (ECMA-48), what turns the direction of text (UAX 9), and
# surrogates, which no encoding can print
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with every character that steers a terminal as \\xNN or \\uNNNN."""
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)
