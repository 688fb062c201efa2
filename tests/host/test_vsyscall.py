"""The vsyscall probe, really run."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from pipeline.preflight import has_vsyscall
from tests.conftest import require

pytestmark = pytest.mark.integration


def test_the_probe_agrees_with_what_the_kernel_was_told_where_it_was_told() -> None:
    require(platform.machine() == "x86_64", "x86-64 only")
    answer = has_vsyscall()
    told = re.search(r"vsyscall=(\w+)", Path("/proc/cmdline").read_text())
    if told:
        assert answer == (told[1] in ("emulate", "native", "xonly"))
    elif "[vsyscall]" not in Path("/proc/self/maps").read_text():
        assert not answer
    else:
        assert answer
