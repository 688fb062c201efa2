"""Runs that are killed at random: nothing is left, what is there is whole, the next is right.

A kill is KILL, TERM, INT or HUP to doit alone, to its group or to everything that it has started,
at any moment of a run. A run is one of those that people make (KINDS).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.program import Ground, Run
from tests.torture.verdict import (
    bytes_of,
    find_attached,
    find_half,
    find_leftovers,
    find_processes,
    find_unfit,
)

GUEST = "one"
NAME = f"name={GUEST}"
HOSTS = ("web1", "web2", GUEST)
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TARGETS = ("doit", "group", "tree")
# by how often each is taken
KINDS = {
    "cold build": 3,
    "build": 5,
    "publish": 3,
    "install": 3,
    "rebuild": 2,
    "remove": 1,
    "lock": 2,
    "gc": 2,
}
DONE_ALREADY = ("is installed already", "is not installed here")


class WrongAfterwards(AssertionError):
    """What a killed run left is not what it should be."""


@dataclass
class Torture:
    """Random runs in one ground, ended at random; the same seed gives the same choices."""

    ground: Ground
    seed: int
    random: random.Random = field(init=False)
    lasted_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.6))
    ended: Counter[str] = field(default_factory=Counter)
    store: dict[str, str] = field(default_factory=dict)
    guests: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        for version in "12":
            for host in HOSTS:
                self._run_well("build", NAME, f"hostname={host}", version=version)
                made = bytes_of(self.ground)
                self.store |= {k: v for k, v in made.items() if k.startswith(("store", "identity"))}
                own = {k: v for k, v in made.items() if k.startswith(("guests", "volumes"))}
                self.guests[version, host] = own

    def _run_well(self, *argv: str, version: str) -> str:
        code, said = self.ground.run(*argv, version=version)
        if code and not any(text in said for text in DONE_ALREADY):
            raise WrongAfterwards(f"{' '.join(argv)}: exit code {code}: {said}")
        return said

    def kill_one(self) -> None:
        """A run, a kill, and everything that has to be true after it."""
        kind = self.random.choices(list(KINDS), [*KINDS.values()])[0]
        version, host = self.random.choice("12"), self.random.choice(HOSTS)
        host = GUEST if kind == "rebuild" else host  # it builds what the spec says
        number, target = self.random.choice(SIGNALS), self.random.choice(TARGETS)
        share = self.random.uniform(0, 1.1)
        argv = self._prepare(kind, version, host)
        text = f"{kind} ({version}, {host}), {number.name} to {target} at {share:.3f}"
        started = time.monotonic()
        run = self.ground.start(*argv, version=version)
        is_over = self._wait(run, share * self.lasted_s[kind])
        self._kill(run, number, target)
        code, said = run.wait()
        if is_over:
            self.lasted_s[kind] = 0.5 * self.lasted_s[kind] + 0.5 * (time.monotonic() - started)
        try:
            self._judge(run, number, code, said)
            self._judge_next(kind, argv, version, host)
        except AssertionError as wrong:
            shutil.rmtree(self.ground.host, ignore_errors=True)  # the next is not to suffer for it
            raise WrongAfterwards(f"seed {self.seed}: {text}: {wrong}; it said: {said}") from wrong
        outcome = "too late" if is_over else "landed"
        self.ended[f"{number.name} to {target}"] += not is_over
        self.ended[kind] += not is_over
        self.ended[outcome] += 1

    def _prepare(self, kind: str, version: str, host: str) -> tuple[str, ...]:
        if kind == "cold build":
            for part in ("store", "volumes", "guests"):
                shutil.rmtree(self.ground.output / part, ignore_errors=True)
        build = ("build", NAME, f"hostname={host}")
        if kind in ("cold build", "build"):
            return build
        self._run_well(*build, version=version)
        if kind == "gc":
            return ("gc", "keep=0")
        if kind == "lock":
            shutil.rmtree(self.ground.output / "locked", ignore_errors=True)
            return ("lock", NAME, f"hostname={host}")
        if kind in ("rebuild", "remove"):
            self._run_well("install", NAME, "unproven=yes", version=version)
        elif kind == "install":
            self._run_well("remove", NAME, "yes=yes", version=version)
        return {
            "publish": ("publish", NAME, "unproven=yes", "keep=2"),
            "install": ("install", NAME, "unproven=yes"),
            "rebuild": ("rebuild", NAME, "unproven=yes"),
            "remove": ("remove", NAME, "yes=yes"),
        }[kind]

    def _wait(self, run: Run, seconds: float) -> bool:
        """Until the moment of the kill; True when the run has ended before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return True
            time.sleep(0.001)
        return False

    def _kill(self, run: Run, number: int, target: str) -> None:
        with suppress(ProcessLookupError):
            if target == "doit":
                os.kill(run.pid, number)
            elif target == "group":
                os.killpg(run.pid, number)
            else:
                for pid in (run.pid, *descendants(run.pid)):
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)

    def _judge(self, run: Run, number: signal.Signals, code: int, said: str) -> None:
        end = time.monotonic() + 60
        while left := find_processes(run.pid):
            assert time.monotonic() < end, f"still there: {left}"
            time.sleep(0.01)
        assert "Traceback" not in said
        assert "a bug of the pipeline" not in said
        assert not find_half(self.ground)
        assert not find_unfit(self.ground, GUEST)
        if number != signal.SIGKILL:
            # before Python can answer, a signal ends the program as it ends any other
            assert code in (0, 130, -number), f"exit code {code}"
            left = find_leftovers(self.ground)
            assert not left, f"left: {left}"

    def _judge_next(self, kind: str, argv: tuple[str, ...], version: str, host: str) -> None:
        self._run_well(*argv, version=version)
        left = find_leftovers(self.ground)
        assert not left, f"left after the next run: {left}"
        assert not find_half(self.ground)
        assert not find_unfit(self.ground, GUEST)
        made = bytes_of(self.ground)
        known = self.store | self.guests[version, host]
        other = [name for name, digest in made.items() if known.get(name, digest) != digest]
        assert not other, f"other bytes: {other}"
        if "build" in kind and kind != "rebuild":
            assert not self.guests[version, host].keys() - made.keys()
        mounts, loops = find_attached(self.ground.root)
        assert not mounts + loops, f"left: {mounts + loops}"


def descendants(pid: int) -> list[int]:
    """Every process below one."""
    found, frontier = [], [pid]
    while frontier:
        parent = frontier.pop()
        with suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                lower = [int(text) for text in (task / "children").read_text().split()]
                found += lower
                frontier += lower
    return found
