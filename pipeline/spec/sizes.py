"""Sizes and times as people write them: 4G, 512M, 1.5G, 2000Mb, 24h."""

from __future__ import annotations

import re
from fractions import Fraction

from pipeline.spec.mistakes import WrongValueError

_SIZE = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,6})?) ?(?P<unit>[MGT])(i?B)?", re.IGNORECASE)
_MIB = {"M": 1, "G": 1024, "T": 1024**2}
_DURATION = re.compile(r"(?P<number>[0-9]{1,7})(?P<unit>[smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

DISK_MIB = (256, 16 * 1024**2)
PART_MIB = (1, 16 * 1024**2)
SWAP_MIB = (1, 1024**2)
MEMORY_MIB = (64, 12 * 1024**2)  # Xen's own limit of a PV guest is 16 TiB less the hypervisor


def parse_size(text: str) -> int:
    """MiB in a size such as 4G, 512M, 1.5G or 2000Mb; raises WrongValueError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise WrongValueError(f"'{text}' is not a size", "write it as 4G, 512M")
    size_mib = Fraction(match["number"]) * _MIB[match["unit"].upper()]
    if size_mib.denominator != 1:
        raise WrongValueError(f"'{text}' is not a whole number of MiB", "write it as 4G, 512M")
    return int(size_mib)


def check_size(value: object, limits: tuple[int, int]) -> str:
    """The size as it was written, if it lies within `limits` (MiB); raises WrongValueError."""
    if not isinstance(value, str):
        raise WrongValueError(f"{value!r} is not a size", 'write it with a unit: "4G", "512M"')
    least, most = limits
    if not least <= parse_size(value) <= most:
        bounds = f"between {show_size(least)} and {show_size(most)}"
        raise WrongValueError(f"'{value}' is out of range", f"a size {bounds}")
    return value


def check_disk_size(value: object) -> str:
    """A root disk's size."""
    return check_size(value, DISK_MIB)


def check_part_size(value: object) -> str:
    """A partition's size."""
    return check_size(value, PART_MIB)


def check_swap_size(value: object) -> str:
    """A swap disk's size; "0" or 0 means none."""
    if value in ("0", 0) and not isinstance(value, bool):
        return "0"
    return check_size(value, SWAP_MIB)


def check_memory_size(value: object) -> str:
    """A guest's memory; a plain number is MiB, as in an xl configuration."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    is_digits = isinstance(value, str) and value.isascii() and value.isdigit()
    return check_size(f"{value}M" if is_number or is_digits else value, MEMORY_MIB)


def parse_duration(text: str) -> int:
    """Seconds in a time such as 90s, 30m, 24h, 7d; raises WrongValueError."""
    match = _DURATION.fullmatch(text)
    if text == "0":
        return 0
    if match is None:
        raise WrongValueError(f"'{text}' is not a time", "write it as 30m, 24h, 7d, or 0")
    return int(match["number"]) * _SECONDS[match["unit"]]


def check_duration(value: object) -> str:
    """A time as it was written."""
    if not isinstance(value, str):
        raise WrongValueError(f"{value!r} is not a time", 'write it as "30m", "24h", "7d", or "0"')
    parse_duration(value)
    return value


def show_size(size_mib: int) -> str:
    """The shortest exact way to write so many MiB: 4G, 512M, 16T."""
    for unit in ("T", "G"):
        if size_mib and size_mib % _MIB[unit] == 0:
            return f"{size_mib // _MIB[unit]}{unit}"
    return f"{size_mib}M"
