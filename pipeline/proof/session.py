"""One proof, step by step: the guest is created, asked, and shut down inside the test host."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError, UsageError
from pipeline.proof import life
from pipeline.proof.artifact import Artifact
from pipeline.proof.checks import (
    Check,
    Expectation,
    equal,
    holds,
    judge,
    modules_for,
    read_answers,
)
from pipeline.proof.console import Console
from pipeline.proof.errors import GuestFailed
from pipeline.proof.evidence import Evidence
from pipeline.proof.handover import bridges_of, make_bridges, plug_disks
from pipeline.proof.machine import Machine
from pipeline.proof.patience import patient
from pipeline.proof.shell import Shell

LOGIN = r"\blogin: ?$"
CREATE_S = 180.0
# PVH under emulated SVM on a busy machine took 240 s
LOGIN_S = 360.0
LEASE_S = 60.0
ENTER_S = 60.0


@dataclass(frozen=True)
class Asked:
    """What the person wants: a private key to enter with, and whether the long checks are made.

    `as_is`: the artifact is judged by the spec that it was built from, whatever the spec is now.
    """

    key: Path | None = None
    thorough: bool = False
    as_is: bool = False

    @property
    def key_path(self) -> Path:
        """Where the key is, for messages."""
        return self.key or Path()

    def read_key(self) -> bytes:
        """The private key's bytes; b"" for none. Raises UsageError."""
        if self.key is None:
            return b""
        try:
            return self.key.read_bytes()
        except OSError as error:
            raise UsageError(
                f"prove_key={self.key}: {error.strerror}", hint="give the private key's path"
            ) from error


@dataclass
class Session:
    """A guest in a running test host, and what was seen of it."""

    host: Machine
    artifact: Artifact
    evidence: Evidence
    asked: Asked
    create_output: str = ""
    has_lease: bool = False
    has_login: bool = False

    def __post_init__(self) -> None:
        self.console = Console(self.host.agent, self.artifact.name)

    def run(self, work: Path) -> None:
        """The whole proof; raises GuestFailed or Broken, with everything seen in the evidence."""
        try:
            with self.evidence.phase("hand over"):
                self._prepare(work)
            with self.evidence.phase("create"):
                self._create()
            with self.evidence.phase("boot to login"):
                self.console.wait_for(
                    LOGIN, timeout_s=patient(LOGIN_S), what="login prompt on hvc0"
                )
                self.has_login = True
                self.evidence.add(equal("login prompt on hvc0", "login:", "login:"))
            with self.evidence.phase("network"):
                address = self._find_address()
            self._ask(Shell(self.host.agent, address, self.artifact.spec.short_hostname))
            with self.evidence.phase("shut down"):
                self.evidence.add(life.shut_down(self.host.agent, self.artifact.name))
        finally:
            with suppress(PipelineError):
                self.console.poll(wait_s=0)
            self.evidence.console = self.console.text

    def _prepare(self, work: Path) -> None:
        agent = self.host.agent
        # the snapshot's clock stands where it was taken; guests take theirs from Xen
        agent.demand(["date", "-s", f"@{time.time():.0f}"])
        plug_disks(self.host, self.artifact, work)
        make_bridges(self.host, self.artifact)

    def _create(self) -> None:
        words = ["xl", "create", str(self.artifact.configuration)]
        reply = self.host.agent.run(words, timeout_s=patient(CREATE_S))
        self.create_output = reply.output if reply.status else ""
        if reply.status:
            raise GuestFailed(f"xl create ended with status {reply.status}", details=reply.output)

    def _find_address(self) -> str:
        """The guest's first address: of its lease, or the fixed one."""
        card = self.artifact.spec.cards[0]
        fixed = [address for address in card.addresses if address.version == 4]
        if fixed and not card.dhcp:
            self.has_lease = True
            return str(fixed[0].ip)
        end = time.monotonic() + patient(LEASE_S)
        path = f"/run/leases-{bridges_of(self.artifact)[0]}"
        while time.monotonic() < end:
            for line in self.host.agent.read(path, wait_s=0.5).decode().splitlines():
                words = line.split()
                if len(words) > 3 and words[1].lower() == card.mac.lower():
                    self.has_lease = True
                    self.evidence.add(holds("address by DHCP", "a lease", words[2], ok=True))
                    self.evidence.add(
                        equal(
                            "host name sent with DHCP", self.artifact.spec.short_hostname, words[3]
                        )
                    )
                    return words[2]
            time.sleep(0.3)
        self.evidence.add(holds("address by DHCP", "a lease", "", ok=False))
        raise GuestFailed(f"the guest asked for no address within {patient(LEASE_S):.0f} s")

    def _ask(self, shell: Shell) -> None:
        key = self.asked.read_key()
        if not key:
            with self.evidence.phase("ssh"):
                self._knock(shell)
            self._note_unasked()
            return
        with self.evidence.phase("ssh"):
            self._enter(shell, key)
        with self.evidence.phase("questions"):
            self._question(shell)
        with self.evidence.phase("stranger"):
            self._knock(shell)
        if self.asked.thorough:
            life.run_long_checks(self.evidence, self.console, shell)
        shell.leave()

    def _enter(self, shell: Shell, key: bytes) -> None:
        reply = shell.enter(key, timeout_s=patient(ENTER_S))
        seen = "entered" if reply.status == 0 else reply.output.strip().splitlines()[-1:]
        self.evidence.add(holds("SSH with the key", "entered", str(seen), ok=reply.status == 0))
        if reply.status:
            raise GuestFailed("the given key does not enter over SSH", details=reply.output)

    def _question(self, shell: Shell) -> None:
        script = (Path(__file__).with_name("host") / "questions").read_bytes()
        modules = modules_for(self.artifact.spec)
        reply = shell.run(f"sh -s -- {' '.join(modules)}", stdin=script)
        answers = read_answers(reply.output)
        self.evidence.add(*judge(answers, self._expectation(shell.address, modules)))
        terminal = shell.run("tty", tty=True).output.strip()
        ok = terminal.startswith("/dev/pts/")
        self.evidence.add(holds("ssh -t has a terminal", "/dev/pts/N", terminal, ok=ok))

    def _expectation(self, address: str, modules: tuple[str, ...]) -> Expectation:
        artifact = self.artifact
        facts = json.loads((artifact.folder / "kernel.json").read_bytes())
        lines = artifact.known_hosts.read_text().splitlines()
        keys = frozenset(" ".join(line.split()[1:3]) for line in lines if line.strip())
        fixed = [str(found.ip) for card in artifact.spec.cards for found in card.addresses]
        addresses = tuple(dict.fromkeys([address, *fixed]))
        return Expectation(artifact.spec, facts.get("abi", ""), keys, addresses, modules)

    def _knock(self, shell: Shell) -> None:
        """A key that nobody gave the guest must be refused, and no password asked for."""
        end = time.monotonic() + patient(ENTER_S)
        while True:
            reply = shell.knock()
            if "Connection refused" not in reply.output and "timed out" not in reply.output:
                break
            if time.monotonic() > end:
                break
            time.sleep(0.5)
        last = (reply.output.strip().splitlines() or [""])[-1]
        mismatch = "Host key verification failed" in reply.output
        shown = "not those of known_hosts" if mismatch else "accepted"
        self.evidence.add(equal("host key over SSH", "accepted", shown))
        ok = reply.status == 255 and "Permission denied (publickey)" in last
        self.evidence.add(
            holds(
                "another key and passwords are refused",
                "Permission denied (publickey)",
                last,
                ok=ok,
            )
        )

    def _note_unasked(self) -> None:
        """Say what could not be asked: nobody is let in without a credential."""
        why = "no key to enter with: give prove_key=PATH"
        for name in ("SSH with the key", "system state", "kernel, modules, mounts, settings"):
            self.evidence.add(Check(name, "asked in the guest", why, None))
