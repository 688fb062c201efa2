"""What differs between releases: one frozen `Suite` for each, all of them in `SUITES`."""

from __future__ import annotations

import difflib

from pipeline.suites.suite import InitName, Suite
from pipeline.suites.table import SUITES

__all__ = ["SUITES", "InitName", "Suite", "nearest_suite"]


def nearest_suite(name: str) -> str:
    """The known suite whose name is most like this one; empty when none is."""
    return next(iter(difflib.get_close_matches(name, SUITES, n=1)), "")
