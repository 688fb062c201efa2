"""How a proof ends when it does not succeed: the test host is broken, or the guest has failed."""

from __future__ import annotations

from pipeline.errors import EnvironmentFault, VerificationError


class Broken(EnvironmentFault):
    """The test host does not work; nothing is said about the guest (exit code 3)."""


class GuestFailed(VerificationError):
    """The guest does not do what it must (exit code 5); the details show what was seen."""
