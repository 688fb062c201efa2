"""What is asked of a mirror's signed state: how old it may be, and how old-fashioned."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.suites import Suite

MAX_LAG_S = 3 * 86400


@dataclass(frozen=True)
class Terms:
    """How a Release file is judged.

    `is_archived`: an expired key and SHA-1 are accepted. `grace_s`: seconds after Valid-Until in
    which it is still accepted, infinite for "ignore". `max_lag_s`: how many seconds older than the
    newest state seen of the same suite, through whatever mirror, it may be.
    """

    is_archived: bool = False
    grace_s: float = 0
    max_lag_s: float = MAX_LAG_S

    @classmethod
    def for_suite(cls, suite: Suite) -> Terms:
        """What a suite's age alone asks for."""
        if suite.is_archived:
            return cls(is_archived=True, grace_s=math.inf, max_lag_s=math.inf)
        return cls()

    def combined(self, suite: Terms) -> Terms:
        """A mirror's own terms, and what the suite's age forgives."""
        return suite if suite.is_archived else self

    @property
    def checks_valid_until(self) -> bool:
        """Whether Valid-Until counts at all."""
        return not math.isinf(self.grace_s)
