"""What is still to be done when a person or a signal ends a run: registered by who began it."""

from __future__ import annotations

from collections.abc import Callable

_steps: list[Callable[[], None]] = []


def at_interruption(step: Callable[[], None]) -> None:
    """Have `step` called, in the order of registration, before an interrupted process ends."""
    if step not in _steps:
        _steps.append(step)


def settle() -> None:
    """Carry out every step; called once, when no command runs any more."""
    for step in _steps:
        step()
