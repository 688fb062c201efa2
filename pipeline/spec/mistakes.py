"""What a value check raises: what is wrong, and apart from it what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_LETTERS = 500


class WrongValueError(ValueError):
    """A value that cannot be; `hint` says what can."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        # no value may move the cursor of whoever reads about it
        shown = (letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message)
        self.message = "".join(shown)
        if len(self.message) > MOST_LETTERS:
            self.message = f"{self.message[: MOST_LETTERS - 3]}..."
        self.hint = hint


def show_value(value: object) -> str:
    """A value as Python writes it, not longer than a line."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def suggest_nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'size'?`, or nothing when no known word is like this one."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{nearest[0]}'?" if nearest else ""
