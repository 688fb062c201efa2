"""Versions of the build host's own packages, for the inputs of stages whose bytes they change."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

STATUS = Path("/var/lib/dpkg/status")


@cache
def _read_status(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def installed_version(package: str, status: Path = STATUS) -> str:
    """The version that dpkg's status file gives for a package, "" when it is not installed."""
    head = rf"^Package: {re.escape(package)}\nStatus: \S+ \S+ installed\n"
    found = re.search(rf"{head}(?:.+\n)*?Version: (.+)$", _read_status(status), re.MULTILINE)
    return found[1] if found else ""
