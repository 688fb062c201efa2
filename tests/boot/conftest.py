"""What the boot tests share."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Marker of the tests that take a minute each."""
    config.addinivalue_line("markers", "boot: boots a guest under real Xen; a minute or more")
