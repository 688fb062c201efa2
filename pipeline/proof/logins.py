"""Who may enter the guest: the given key, nobody else; on the console root, if at all."""

import re
import time
from dataclasses import dataclass, field

from pipeline.errors import Finding, GuestFailed
from pipeline.proof.artifact import Artifact
from pipeline.proof.checks import equal, holds
from pipeline.proof.console import Console
from pipeline.proof.evidence import Evidence
from pipeline.proof.ssh import Shell
from pipeline.proof.timeouts import patient

ENTER_S = 60.0
TYPED_S = 60.0
CONSOLE_LOGIN = "root's login on hvc0"
_WRONG = "not-the-password"
# the kernel may go on in the line of a prompt; one that is cut off, as "amd64 #1", is none
_END = r"(?:$|\[ *\d+\.\d+\] )"
_PROMPT = rf"\blogin: ?{_END}"
_SHELL = rf"[#$] {_END}"
_TIMED_OUT = "Login timed out"
TRIES = 3
_REFUSED = r"Login incorrect|Permission denied|Authentication failure"
# the answer is computed, so that the echo of the question is not taken for it
_ASK, _ANSWER = "echo proof-$((6*7))\n", "proof-42"


WITH_KEY = "SSH with the key"


def enter(shell: Shell, evidence: Evidence, key: bytes, *, may_refuse: bool = False) -> str:
    """The key must enter; the connection stays open. Raises GuestFailed.

    Where it `may_refuse`, as somebody else's guest does that has an agreement with nobody, what
    sshd said is returned; "" once it is entered.
    """
    reply = shell.enter(key, timeout_s=patient(ENTER_S))
    last = (reply.output.strip().splitlines() or [""])[-1]
    if reply.status and may_refuse:
        return last
    seen = "entered" if reply.status == 0 else last
    evidence.add(holds(WITH_KEY, "entered", seen, ok=reply.status == 0))
    if reply.status:
        raise GuestFailed("the key does not enter over SSH", details=reply.output)
    return ""


def knock(shell: Shell, artifact: Artifact, evidence: Evidence) -> None:
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
    if artifact.known_hosts:
        mismatch = "Host key verification failed" in reply.output
        shown = "not those of known_hosts" if mismatch else "accepted"
        evidence.add(equal("host key over SSH", "accepted", shown))
    # other people's guests may ask for passwords: only the key is judged
    wanted = "Permission denied (publickey)" if artifact.spec else "Permission denied"
    name = "another key and passwords are refused" if artifact.spec else "another key is refused"
    evidence.add(holds(name, wanted, last, ok=reply.status == 255 and wanted in last))


@dataclass
class ConsoleLogin:
    """Root at the guest's console, in steps between which others work: nobody waits for it.

    `password` is the one that must work, b"" where root is locked and any must be refused.
    """

    console: Console
    password: bytes
    _seen: int = field(default=-1, init=False)
    _fault: str = field(default="", init=False)
    _tries: int = field(default=0, init=False)

    def begin(self) -> None:
        """Type the name at the login prompt that has been seen."""
        self.console.poll(wait_s=0)
        self._seen = len(self.console.text)
        self.console.type_in("root\n")

    def answer(self) -> None:
        """Type the password: before login(1) has waited its minute, or name and password again."""
        try:
            self._answer()
        except GuestFailed as error:
            self._fault = error.brief

    def finish(self) -> Finding:
        """See what comes of it."""
        wanted = "a shell" if self.password else "refused"
        if self._fault:
            return holds(CONSOLE_LOGIN, wanted, self._fault, ok=False)
        try:
            start = self._seen
            while not self._is_in_time(rf"{_REFUSED}|{_SHELL}"):
                start = self._seen
                self._answer()
            if re.search(_REFUSED, self.console.text[start : self._seen]):
                return holds(CONSOLE_LOGIN, wanted, "refused", ok=not self.password)
            self.console.type_in(_ASK)
            self._wait(_ANSWER)
            self.console.type_in("exit\n")
            self._wait(_PROMPT)
        except GuestFailed as error:
            return holds(CONSOLE_LOGIN, wanted, error.brief, ok=False)
        return holds(CONSOLE_LOGIN, wanted, "a shell", ok=bool(self.password))

    def _answer(self) -> None:
        while not self._is_in_time(rf"Password:(?!.*\n{_TIMED_OUT})"):
            pass
        self.console.type_in(f"{(self.password or _WRONG.encode()).decode()}\n")

    def _is_in_time(self, pattern: str) -> bool:
        """Wait for it; false when login(1) gave up before, which then has the name again."""
        end = self._wait(rf"{pattern}|{_TIMED_OUT}")
        if not self.console.text[:end].endswith(_TIMED_OUT):
            return True
        self._tries += 1
        if self._tries == TRIES:
            raise GuestFailed(_TIMED_OUT)
        self._wait(_PROMPT)
        self.console.type_in("root\n")
        return False

    def _wait(self, pattern: str) -> int:
        self._seen = self.console.wait_for(
            pattern, timeout_s=patient(TYPED_S), after=self._seen, what="logging in"
        )
        return self._seen
