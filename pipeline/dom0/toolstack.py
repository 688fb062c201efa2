"""The host's toolstack, xl or the older xm: what runs, and the commands of a guest's day."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline import process
from pipeline.errors import EnvironmentFault, PipelineError
from pipeline.xen.capabilities import read_info

CAPABILITIES = Path("/proc/xen/capabilities")
DOM0 = "Domain-0"
_STATES = {"r": "running", "b": "running", "p": "paused", "s": "shutting down", "c": "crashed"}
_POLL_S = 0.5


@dataclass(frozen=True)
class Running:
    """A domain as `xl list` shows it; `state` in words."""

    name: str
    memory_mib: int
    vcpus: int
    state: str
    seconds: float


@dataclass(frozen=True)
class Toolstack:
    """xl or xm on a dom0. Raises CommandFailed with the program's own words."""

    program: str
    log: Path | None = None

    def domains(self) -> dict[str, Running]:
        """Every domain by name, dom0 left out."""
        found = parse_list(self.run("list"))
        return {name: one for name, one in found.items() if name != DOM0}

    def run(self, *words: object, env: Mapping[str, str] | None = None) -> str:
        """One command of the toolstack."""
        return process.run([self.program, *words], log=self.log, env=env)

    def host_facts(self) -> dict[str, str]:
        """What it tells of the host and its Xen."""
        return read_info(self.run("info"))

    def wait_until_gone(self, names: list[str], *, timeout_s: float) -> list[str]:
        """Wait for domains to end; returns those that still run."""
        end = time.monotonic() + timeout_s
        left = [name for name in names if name in self.domains()]
        while left and time.monotonic() < end:
            time.sleep(_POLL_S)
            left = [name for name in left if name in self.domains()]
        return left


def find_toolstack(log: Path | None = None) -> Toolstack | None:
    """The toolstack of this dom0; None where this machine is none, or has neither program."""
    if not is_dom0():
        return None
    for program in ("xl", "xm"):
        if process.find_tool(program):
            return Toolstack(program, log)
    return None


def is_dom0() -> bool:
    """Whether this system controls a Xen host."""
    try:
        return "control_d" in CAPABILITIES.read_text()
    except OSError:
        return False


def require_toolstack(log: Path | None = None) -> Toolstack:
    """Raises EnvironmentFault with what is missing."""
    found = find_toolstack(log)
    if found is not None:
        return found
    if is_dom0():
        raise EnvironmentFault(
            "neither xl nor xm is installed", hint="apt-get install xen-utils-common xen-utils-4.17"
        )
    raise EnvironmentFault(
        "this machine is no Xen host: /proc/xen/capabilities names no control_d",
        hint="run this in the dom0; on any machine, doit prove boots the guest in an emulated one",
    )


def parse_list(text: str) -> Mapping[str, Running]:
    """`xl list` or `xm list`: name, id, memory, virtual processors, state letters, seconds."""
    found = {}
    for line in text.splitlines():
        words = line.rsplit(maxsplit=5)
        if len(words) != 6 or not words[1].lstrip("-").isdigit():
            continue
        name, _, memory, vcpus, letters, seconds = words
        if name == "(null)":
            continue  # it is being taken down and has no name any more
        state = next((_STATES[letter] for letter in letters if letter in _STATES), "running")
        if "d" in letters:
            state = "dying"
        found[name] = Running(name, int(memory), int(vcpus), state, float(seconds))
    if not found:
        raise PipelineError("the toolstack's list of domains is empty", details=text)
    return found
