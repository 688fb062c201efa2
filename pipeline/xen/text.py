"""Checks shared by the model: text that every target can carry, choices, ranges, Xen versions."""

from __future__ import annotations

import re

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\..*)?")


class Unsupported(ValueError):
    """The target cannot express this, or would ignore it; the message says which and why."""


class SyntaxFault(ValueError):
    """A configuration text that the target's own parser would refuse; the message has the line."""


def check_text(field: str, value: str) -> None:
    """Refuse control characters, lone surrogates and white space at the ends: ValueError."""
    for character in value:
        if ord(character) < 32 or ord(character) == 127 or 0xD800 <= ord(character) < 0xE000:
            raise ValueError(f"{field}: {value!r} holds a character that no target can carry")
        if ord(character) in (0x85, 0x2028, 0x2029, 0xFFFE, 0xFFFF):
            raise ValueError(f"{field}: {value!r} holds a line separator or non-character")
    if value != value.strip():
        raise ValueError(f"{field}: {value!r} begins or ends with white space")


def check_path(field: str, value: str) -> None:
    """Refuse anything but an absolute path of a file in carriable text: ValueError."""
    check_text(field, value)
    if not value.startswith("/"):
        raise ValueError(f"{field}: {value!r} is not an absolute path")
    if value.endswith("/"):
        raise ValueError(f"{field}: {value!r} is a directory, not a file or a device")


def check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value outside `choices`: ValueError."""
    if value not in choices:
        raise ValueError(f"{field}: {value!r} is not one of {', '.join(choices)}")


def check_range(field: str, value: int, low: int, high: int) -> None:
    """Refuse a number outside low..high, both included: ValueError."""
    if not low <= value <= high:
        raise ValueError(f"{field}: {value} is not between {low} and {high}")


def parse_version(text: str) -> tuple[int, int]:
    """Major and minor of a Xen version: "4.17" and "4.17.5" give (4, 17). Raises ValueError."""
    match = _VERSION.fullmatch(text)
    if match is None:
        raise ValueError(f"xen: {text!r} is not a version such as 4.17")
    return int(match[1]), int(match[2])
