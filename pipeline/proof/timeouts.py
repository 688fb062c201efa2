"""How long to wait for a guest: bounds for a machine of ordinary speed, times a factor."""

import os

from pipeline.errors import UsageError

VARIABLE = "DOMU_PROOF_PATIENCE"


def patient(seconds: float) -> float:
    """The bound on this machine: DOMU_PROOF_PATIENCE=3 waits three times as long.

    Raises UsageError when that is no positive number.
    """
    text = os.environ.get(VARIABLE, "1")
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if factor <= 0:
        raise UsageError(f"{VARIABLE}={text} is no factor", hint="write a number such as 2 or 0.5")
    return seconds * factor
