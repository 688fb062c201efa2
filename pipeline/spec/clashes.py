"""A clash: keys of a spec that are good each for itself and not together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Clash:
    """The key to change, what is wrong, what is right, and the other keys that take part."""

    key: str
    message: str
    hint: str = ""
    others: tuple[str, ...] = ()
