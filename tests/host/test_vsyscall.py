"""The probes of what this machine can start, really run."""

import platform
import re
from pathlib import Path

import pytest

from pipeline.preflight import Machine, has_vsyscall, probe_program_32, runs_32_bit
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


def test_a_32_bit_program_is_started_where_the_kernel_has_their_calls() -> None:
    require(platform.machine() == "x86_64", "x86-64 only")
    if not Path("/proc/sys/abi/vsyscall32").exists():
        assert not runs_32_bit()
    elif "ia32_emulation=" not in Path("/proc/cmdline").read_text():
        assert runs_32_bit()
    assert Machine.here().linux[:2] == tuple(int(n) for n in platform.release().split(".")[:2])


def test_a_program_of_another_machine_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    sparc = probe_program_32().replace(b"\x02\0\x03\0", b"\x02\0\x02\0", 1)
    monkeypatch.setattr("pipeline.preflight.probe_program_32", lambda: sparc)
    assert not runs_32_bit()
