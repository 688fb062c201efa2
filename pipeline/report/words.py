"""Sizes, times, versions and lists as people say them, the same on every page."""

import re
from collections.abc import Sequence

MOST_NAMED = 6
_STAMP = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)\d\dZ(?:-(.+))?")


def name_cves(cves: Sequence[str]) -> str:
    """The numbers, or of many how many, and the latest."""
    if len(cves) <= MOST_NAMED:
        return ", ".join(cves)
    return f"{len(cves)} CVEs, the latest {', '.join(cves[:-4:-1])}"


def short_version(name: str) -> str:
    """A version or a night as people say it: 20261129T180647Z-d6f5 is 2026-11-29 18:06 d6f5."""
    parts = _STAMP.fullmatch(name)
    if not parts:
        return name
    year, month, day, hour, minute, rest = parts.groups()
    return f"{year}-{month}-{day} {hour}:{minute} {rest or ''}".rstrip()


def size(number: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "KiB", "MiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.2f} GiB"


def growth(number: float) -> str:
    """A difference in bytes, with its sign."""
    return f"{'+' if number > 0 else '−' if number < 0 else '±'}{size(abs(number))}"


def seconds(number: float) -> str:
    """A time as people say it."""
    if number < 120:
        return f"{number:.1f} s"
    minutes, rest = divmod(round(number), 60)
    return f"{minutes} min {rest:02} s" if minutes < 120 else f"{minutes / 60:.1f} h"


def count(number: int, noun: str) -> str:
    """`1 guest`, `3 guests`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
