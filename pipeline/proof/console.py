"""The guest's console as Xen logs it: what it printed, when, and typing into it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from pipeline.proof.agent import Agent
from pipeline.proof.errors import GuestFailed

LAST_LINES = 40
POLL_S = 1.0
_CONTROL = re.compile(rb"\x00|\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r")
# what the guest says when it will not go on, so that nobody waits for the time limit
_FATAL = re.compile(
    r"Kernel panic|^initrd: .*(?:cannot be mounted|did not appear|no root=|has no root)"
    r"|ALERT!.*does not exist|You are in emergency mode|Give root password for maintenance",
    re.MULTILINE,
)


@dataclass
class Console:
    """One domain's console log in the test host."""

    agent: Agent
    domain: str
    raw: bytes = b""
    text: str = field(default="", init=False)

    @property
    def path(self) -> str:
        """Where xenconsoled writes it."""
        return f"/var/log/xen/console/guest-{self.domain}.log"

    def poll(self, *, wait_s: float = POLL_S) -> None:
        """Take in what came since the last time."""
        fresh = self.agent.read(self.path, offset=len(self.raw), wait_s=wait_s)
        if fresh:
            self.raw += fresh
            self.text = _CONTROL.sub(b"", self.raw).decode("utf-8", "replace")

    def wait_for(self, pattern: str, *, timeout_s: float, after: int = 0, what: str) -> int:
        """Wait until the console shows `pattern` behind position `after`; returns where it ends.

        Raises GuestFailed naming `what` when the guest gives up or the time is over.
        """
        end = time.monotonic() + timeout_s
        while True:
            self.poll()
            found = re.search(pattern, self.text[after:], re.MULTILINE)
            if found:
                return after + found.end()
            if fatal := _FATAL.search(self.text[after:]):
                self.poll(wait_s=POLL_S)
                raise GuestFailed(f"{what}: the guest gave up: {fatal.group().strip()}")
            if time.monotonic() > end:
                raise GuestFailed(f"{what}: not seen on the console within {timeout_s:.0f} s")

    def type_in(self, text: str) -> None:
        """Type on the guest's console."""
        ask = ["sh", "-c", 'xenstore-read "/local/domain/$(xl domid "$1")/console/tty"', "sh"]
        terminal = self.agent.demand([*ask, self.domain]).strip()
        self.agent.write(terminal, text.encode())

    def last_lines(self, count: int = LAST_LINES) -> str:
        """The end of what it printed."""
        lines = [line.rstrip() for line in self.text.splitlines() if line.strip()]
        return "\n".join(lines[-count:])
