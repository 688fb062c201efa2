"""Machines of a fleet, as processes with folders of their own: started, killed, looked at."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipeline.files import digest_tree
from pipeline.walls.certificates import make_authority, make_party
from tests.fleet.programs import PROGRAM
from tests.patience import free_port, wait_for
from tests.workshop import ROOT

BUILD_S = 480.0
GUEST = 'suite = "bookworm"\nsize = "256M"\nswap = "2M"\n'
PARTIES = ("scheduler", "build1", "build2", "desk")


@dataclass
class Machines:
    """A fleet below `root`; `port` is its scheduler's."""

    root: Path
    port: int = 0
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def certificates(self) -> Path:
        return self.root / "certificates"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def address(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    def write_guests(
        self, *names: str, machine: str = "desk", first: int = 0, locale: str = "C.UTF-8"
    ) -> None:
        """Guests with golden images of their own, two by two, and none besides on a desk."""
        folder = self.root / machine / "guests"
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.toml") if machine == "desk" else ():
            path.unlink()
        for number, name in enumerate(names, first):
            text = f'packages = ["package-{number // 2}"]\nlocale = "{locale}"\n'
            (folder / f"{name}.toml").write_text(GUEST + text)

    def start(self, name: str, *words: str, slow_s: float = 0.2, root: Path = ROOT) -> None:
        """A program of the fleet, in a session of its own."""
        log = open(self.root / f"{name}.log", "wb")  # noqa: SIM115 - the program has it
        env = {
            **os.environ,
            "FLEET_SLOW_S": str(slow_s),
            "PYTHONPATH": str(root),
            "PYTHONPYCACHEPREFIX": str(self.root / "pycache"),
        }
        argv = [sys.executable, "-m", PROGRAM, *words]
        with log:
            self.running[name] = subprocess.Popen(
                argv,
                cwd=root,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start_scheduler(self, party: str = "scheduler") -> None:
        """On the same port each time."""
        if not self.port:
            self.port = free_port()
        folder = self.root / "scheduler"
        self.start(
            "scheduler", "scheduler", str(folder), str(self.certificates), party, self.address
        )
        self.wait_for("scheduler", "scheduler at")

    def start_worker(
        self,
        name: str,
        *,
        slots: int = 2,
        certificates: Path | None = None,
        slow_s: float = 0.2,
        root: Path = ROOT,
        waits: str = "works for",
    ) -> None:
        """A worker whose party has its name."""
        folder = self.root / name
        trust = str(certificates or self.certificates)
        words = ["worker", str(folder), trust, name, self.address, str(slots)]
        self.start(name, *words, slow_s=slow_s, root=root)
        self.wait_for(name, waits)

    def start_build(
        self, name: str = "desk", *, certificates: Path | None = None, word: str = "build"
    ) -> None:
        """Build all of its guests, or prove them, beside the test."""
        self.store.mkdir(exist_ok=True)
        trust = str(certificates or self.certificates)
        store = f"file://{self.store}"
        self.start(name, word, str(self.root / name), trust, "desk", self.address, store)

    def end_build(self, name: str = "desk", *, ends: int = 0) -> str:
        """Wait for it; what it said."""
        code = self.running.pop(name).wait(timeout=BUILD_S)
        said = self.said(name)
        assert code == ends, said
        return said

    def said(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text(errors="replace")

    def wait_for(self, name: str, text: str) -> None:
        """Until a program says so."""

        def is_said() -> bool:
            has_ended = self.running[name].poll() is not None
            is_there = text in self.said(name)
            assert is_there or not has_ended, self.said(name)
            return is_there

        wait_for(is_said, f"{name} says {text!r}")

    def kill(self, name: str) -> None:
        """kill -9 of the program alone: what it has started has to die by itself."""
        child = self.running.pop(name)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()

    def end(self) -> None:
        for child in self.running.values():
            child.terminate()
        for child in self.running.values():
            child.wait(timeout=240)
        self.running.clear()

    def events(self, name: str = "desk") -> list[dict[str, object]]:
        """What the build told of the fleet."""
        return list(json.loads((self.root / name / "events.json").read_text()))

    def artifacts(self, name: str = "desk") -> dict[str, dict[str, str]]:
        """What a machine has: artifact -> file -> digest, but for what differs each time."""
        found = {}
        for folder in sorted((self.root / name / "output").glob("store/*/*")):
            if folder.parent.name.startswith("."):
                continue
            files = digest_tree(folder)
            files.pop("buildinfo.json", None)
            found[f"{folder.parent.name}/{folder.name}"] = files
        return found


@contextmanager
def machines(root: Path) -> Iterator[Machines]:
    """A fleet with certificates, ended with the block."""
    fleet = Machines(root)
    now = datetime.now(UTC)
    make_authority(fleet.certificates, now)
    for party in PARTIES:
        make_party(fleet.certificates, party, ["127.0.0.1"], now)
    try:
        yield fleet
    finally:
        fleet.end()
