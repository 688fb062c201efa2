"""The guest's console as Xen logs it: what it printed, when, and typing into it."""

import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.errors import GuestFailed
from pipeline.proof.agent import Agent
from pipeline.proof.timeouts import patient

LAST_LINES = 40
PROMPT = "login prompt on hvc0"
POLL_S = 1.0
# from the last unit, or from sysvinit's first script, to a login prompt
UP_S = 90.0
SILENT_S = 150.0
_CONTROL = re.compile(rb"\x00|\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1bM|\r")
# systemd's moving stars: many lines that say the same
_STARS = re.compile(r"\[[ *]{6}\] ")


class StillWaiting(GuestFailed):
    """The time is over, and the guest has said neither what was waited for nor that it gave up."""


# what the guest says when it will not go on, so that nobody waits for the time limit
_FATAL = re.compile(
    r"Kernel panic|^initrd: .*(?:cannot be mounted|did not appear|no root=|has no root)"
    r"|ALERT!.*does not exist|You are in emergency mode|Give root password for maintenance",
    re.MULTILINE,
)


# what a guest prints when it has started all but a getty
_UP = re.compile(r"Reached target multi-user|INIT: Entering runlevel: [2-5]")


@dataclass
class Console:
    """One domain's console log in the test host."""

    agent: Agent
    domain: str
    folder: ClassVar[str] = "/var/log/xen/console"
    raw: bytes = b""
    text: str = field(default="", init=False)

    @property
    def path(self) -> str:
        """Where xenconsoled writes it."""
        return f"{self.folder}/guest-{self.domain}.log"

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
                raise StillWaiting(f"{what}: not seen on the console within {timeout_s:.0f} s")

    def wait_for_login(self, pattern: str, *, timeout_s: float) -> int:
        """Wait for the login prompt; no longer than makes sense for what the guest has shown.

        Raises GuestFailed when it gives up, is up without a prompt, or has gone silent.
        """
        what = PROMPT
        end = time.monotonic() + timeout_s
        length, grown_at, up_at = -1, time.monotonic(), 0.0
        while True:
            now = time.monotonic()
            if len(self.raw) != length:
                length, grown_at = len(self.raw), now
            up_at = up_at or (now if _UP.search(self.text) else 0.0)
            with suppress(StillWaiting):
                return self.wait_for(pattern, timeout_s=0, what=what)
            if up_at and now - up_at > patient(UP_S):
                raise GuestFailed(f"{what}: the guest has started, but there is none")
            if now - grown_at > patient(SILENT_S):
                raise GuestFailed(
                    f"{what}: not seen, and nothing new on the console for {now - grown_at:.0f} s"
                )
            if now > end:
                raise GuestFailed(f"{what}: not seen on the console within {timeout_s:.0f} s")

    def type_in(self, text: str) -> None:
        """Type on the guest's console."""
        ask = ["sh", "-c", 'xenstore-read "/local/domain/$(xl domid "$1")/console/tty"', "sh"]
        terminal = self.agent.demand([*ask, self.domain]).strip()
        self.agent.write(terminal, text.encode())


def last_lines(text: str, count: int = LAST_LINES) -> list[str]:
    """The end of what was printed, without empty lines and systemd's progress."""
    lines = [line.rstrip() for line in text.splitlines()]
    return [line for line in lines if line and not _STARS.match(line)][-count:]
