"""What differs between releases: one frozen `Suite` for each, all of them in `SUITES`."""

import difflib

from pipeline.suites.ages import describe_age, facts_of
from pipeline.suites.debian import DEBIAN
from pipeline.suites.suite import EXT2, EXT3, EXT4_MODERN, EXT4_OLD, HashName, InitName, Suite
from pipeline.suites.ubuntu import UBUNTU

SUITES: dict[str, Suite] = {suite.name: suite for suite in (*DEBIAN, *UBUNTU)}

__all__ = [
    "EXT2",
    "EXT3",
    "EXT4_MODERN",
    "EXT4_OLD",
    "SUITES",
    "HashName",
    "InitName",
    "Suite",
    "describe_age",
    "facts_of",
    "nearest_suite",
]


def nearest_suite(name: str) -> str:
    """The known suite whose name is most like this one; empty when none is."""
    return next(iter(difflib.get_close_matches(name, SUITES, n=1)), "")
