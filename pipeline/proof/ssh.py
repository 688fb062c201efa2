"""SSH from the test host into the guest, with the guest's published host keys and no other."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.proof.agent import Agent, Reply
from pipeline.proof.names import HANDED, ROOM, SECRET

STRANGER = f"{ROOM}/stranger"
SEEN_HOSTS = f"{ROOM}/seen-hosts"
KNOWN_HOSTS = f"{HANDED}/known_hosts"
# cheap ones first: both ends are emulated
_KEX = "curve25519-sha256,ecdh-sha2-nistp256,diffie-hellman-group14-sha256"


@dataclass(frozen=True)
class Shell:
    """The way into one guest: its address and the name that known_hosts has for it.

    Without known host keys the first ones that are seen are taken for the guest's. `number` tells
    its key and its connection from those of others in the same host.
    """

    agent: Agent
    address: str
    alias: str
    has_known_hosts: bool = True
    number: int = 0

    @property
    def key_file(self) -> str:
        """Where its private key is, once it has been entered."""
        return f"{SECRET}/key{self.number}"

    def knock(self) -> Reply:
        """Try to enter with a key that the guest has never seen; ssh says what it would accept."""
        words = [*self._options(STRANGER), f"root@{self.address}", "true"]
        return self.agent.run(["ssh", *words], timeout_s=60)

    def enter(self, key: bytes, *, timeout_s: float, through: Sequence[str] = ()) -> Reply:
        """Open one connection that all further commands share; tries until the guest listens.

        `through` are words before ssh, for a connection that begins in a network namespace.
        """
        self.agent.write(self.key_file, key, mode=0o600)
        end = time.monotonic() + timeout_s
        words = [*through, "ssh", "-M", "-N", "-f"]
        words += [*self._options(self.key_file), f"root@{self.address}"]
        # the connection that stays behind must not hold the pipe that its output is read from
        script = f"{shlex.join(words)} >{ROOM}/ssh.log 2>&1 || {{ cat {ROOM}/ssh.log; exit 1; }}"
        while True:
            reply = self.agent.run(["sh", "-c", script], timeout_s=60)
            refused = "Permission denied" in reply.output or "Host key" in reply.output
            if reply.status == 0 or refused or time.monotonic() > end:
                return reply
            time.sleep(0.5)

    def run(
        self, command: str, *, stdin: bytes = b"", tty: bool = False, timeout_s: float = 150
    ) -> Reply:
        """Run a command in the guest over the open connection; a new one is never made."""
        only_open = ["-o", "ProxyCommand=false"]
        words = ["ssh", *(["-tt"] if tty else []), *only_open, *self._options(self.key_file)]
        return self.agent.run(
            [*words, f"root@{self.address}", command], stdin=stdin, timeout_s=timeout_s
        )

    def leave(self) -> None:
        """Close the shared connection, whether or not it still works."""
        self.agent.run(["ssh", "-O", "exit", *self._options(self.key_file), f"root@{self.address}"])

    def _options(self, key: str) -> Sequence[str]:
        settings = {
            "UserKnownHostsFile": KNOWN_HOSTS if self.has_known_hosts else SEEN_HOSTS,
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": self.alias,
            "StrictHostKeyChecking": "yes" if self.has_known_hosts else "accept-new",
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "ConnectTimeout": "10",
            "ControlPath": "none" if key == STRANGER else f"{ROOM}/ssh-to-guest{self.number}",
            "KexAlgorithms": _KEX,
        }
        words = ["-F", "/dev/null", "-i", key]
        for name, value in settings.items():
            words += ["-o", f"{name}={value}"]
        return words
