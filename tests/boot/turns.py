"""Boots too long for every run: one of them a day, all by `pytest -m boot tests/boot`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

STORIES = ("a guest's life in a dom0", "nights", "an old guest")


def in_turn(story: str) -> list[pytest.MarkDecorator]:
    """The marks of a story: none on its day, else the one that leaves it out."""
    today = STORIES[datetime.now(UTC).toordinal() % len(STORIES)]
    return [] if story == today else [pytest.mark.boot]
