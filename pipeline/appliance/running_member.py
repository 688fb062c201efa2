"""A member of an appliance in the test host: created, entered, asked, lost and created again.

Link-local addresses: RFC 4291, appendix A (of a MAC), section 2.5.6.
"""

import ipaddress
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline.errors import Broken, GuestFailed, PipelineError
from pipeline.proof import lifecycle, loader
from pipeline.proof.agent import Agent, Reply
from pipeline.proof.artifact import BRIDGE
from pipeline.proof.checks import holds
from pipeline.proof.console import Console
from pipeline.proof.ephemeral_key import Credential
from pipeline.proof.evidence import Evidence
from pipeline.proof.logins import ENTER_S, enter
from pipeline.proof.session import LOGIN, LOGIN_S, NO_CARD, Session, note_unasked, question
from pipeline.proof.ssh import Shell
from pipeline.proof.timeouts import patient

READY_S = 120.0
COMMAND_S = 120.0
# until the command ends with status 0, or the seconds are over; its output, its status
_UNTIL = (
    'end=$(($(date +%s)+$2)); until said=$(sh -c "$1" 2>&1 </dev/null); do'
    ' [ "$(date +%s)" -lt "$end" ] || { echo "$said"; exit 1; }; sleep 1; done; echo "$said"'
)


def link_local(mac: str) -> str:
    """The IPv6 address that a card has without anybody's doing."""
    octets = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(bytes([0xFE, 0x80, *bytes(6)]) + interface))


def run_until(command: str, seconds: float) -> list[str]:
    """Words that run a shell line again and again until it holds."""
    return ["sh", "-c", _UNTIL, "sh", command, f"{seconds:.0f}"]


@dataclass
class RunningMember:
    """One of the guests: `key` is its name in the appliance, on `private` bridges is no host.

    `shell` is open once it is ready, unless nobody is let in.
    """

    key: str
    session: Session
    private: frozenset[str]
    ready: tuple[str, ...] = ()
    credential: Credential = Credential()
    shell: Shell | None = None
    is_ready: bool = field(default=False, init=False)
    _earlier: str = field(default="", init=False)

    @property
    def name(self) -> str:
        """As a guest."""
        return self.session.artifact.name

    @property
    def agent(self) -> Agent:
        return self.session.host.agent

    @property
    def evidence(self) -> Evidence:
        return self.session.evidence

    @property
    def address(self) -> str:
        """Where others reach it: the first fixed address, or that of its lease; "" for nowhere."""
        cards = self.session.artifact.cards
        fixed = [str(address.ip) for card in cards for address in card.addresses]
        entered = self.shell.address if self.shell else ""
        return entered if entered and "%" not in entered else next(iter(fixed), "")

    def create(self) -> None:
        """Its domain, with the key of this proof in the overlay of its disk."""
        self.credential = self.session.find_credential()
        artifact = self.session.artifact
        with self.evidence.phase("create"), loader.watched(self.agent, artifact, self.evidence):
            self.session.create()

    def wait_until_ready(self) -> None:
        """The login prompt, the connection, then what its file names. Raises GuestFailed."""
        if self.is_ready:
            return
        with self.evidence.phase("boot to login"):
            self.session.wait_for_login()
        self._enter()
        with self.evidence.phase("ready"):
            for condition in self.ready:
                self._await(condition)
        self.is_ready = True

    def question(self) -> None:
        """What every guest is asked in its proof."""
        if self.shell is not None:
            with self.evidence.phase("questions"):
                question(self.shell, self.session.artifact, self.evidence)

    def run(self, command: str, *, stdin: str = "", timeout_s: float = COMMAND_S) -> Reply:
        """A shell line in it; raises Broken where nobody is inside."""
        if self.shell is None:
            raise Broken(f"{self.name}: nobody is let in who could ask: {self.credential.reason}")
        return self.shell.run(command, stdin=stdin.encode(), timeout_s=patient(timeout_s))

    def destroy(self) -> None:
        """`xl destroy`: as if somebody pulled the plug."""
        if self.shell is not None:
            self.shell.leave()
        self.agent.demand(["xl", "destroy", self.name])
        self.session.console.poll(wait_s=0)
        self._earlier += self.session.console.text
        self.agent.demand(["rm", "-f", self.session.console.path])
        self.session.console = Console(self.agent, self.name)

    def come_back(self) -> None:
        """Created again from the same disks, and entered. Raises GuestFailed."""
        self.session.create()
        self.session.console.wait_for_login(LOGIN, timeout_s=patient(LOGIN_S))
        if self.shell is not None:
            reply = self.shell.enter(self.credential.key, timeout_s=patient(ENTER_S))
            if reply.status:
                raise GuestFailed(f"{self.name}: no SSH after it came back", details=reply.output)

    def shut_down(self) -> None:
        """As its administrator does."""
        if self.shell is not None:
            self.shell.leave()
        with self.evidence.phase("shut down"):
            self.evidence.add(lifecycle.shut_down(self.agent, self.name))

    def cards_in(self, bridge: str) -> list[str]:
        """Its cards on a bridge, by the names that they have in the host."""
        domid = self.agent.demand(["xl", "domid", self.name]).strip()
        cards = self.session.artifact.domain.cards
        return [
            card.vifname or f"vif{domid}.{number}"
            for number, card in enumerate(cards)
            if (card.bridge or BRIDGE) == bridge
        ]

    def keep_evidence(self) -> None:
        """What its console showed, from first to last, whether or not the host still answers."""
        with suppress(PipelineError):
            self.session.console.poll(wait_s=0)
        self.evidence.console = self._earlier + self.session.console.text

    def _enter(self) -> None:
        cards = self.session.artifact.cards
        reason = self.credential.reason or ("" if cards else NO_CARD)
        if reason:
            note_unasked(self.evidence, reason)
            return
        with self.evidence.phase("network"):
            shell = self.session.shell_at(self._find_address())
        with self.evidence.phase("ssh"):
            enter(shell, self.evidence, self.credential.key)
        self.session.is_reached, self.shell = True, shell

    def _find_address(self) -> str:
        """On the first bridge that the host is on; else where only its own link leads."""
        cards = self.session.artifact.cards
        for index, card in enumerate(cards):
            if (card.device.bridge or BRIDGE) not in self.private:
                return self.session.find_address(index)
        return f"{link_local(cards[0].mac)}%{cards[0].device.bridge}"

    def _await(self, condition: str) -> None:
        """A condition of its file; the console's login prompt has been seen."""
        kind, _, rest = condition.partition(" ")
        if kind == "login":
            return
        started, bound = time.monotonic(), patient(READY_S)
        if kind == "port":
            words = run_until(f"bash -c 'exec 3<>/dev/tcp/{self.address}/{rest}'", bound)
        else:
            words = run_until(rest, bound)
        is_outside = (
            kind == "port" and self.shell is not None and self.shell.address == self.address
        )
        if is_outside:
            reply = self.agent.run(words, timeout_s=bound + 20)
        else:
            reply = self.run(shlex.join(words), timeout_s=READY_S + 20)
        ok = reply.status == 0
        seen = f"after {time.monotonic() - started:.0f} s" if ok else reply.output.strip()[-200:]
        self.evidence.add(holds(f"ready: {condition}", f"within {bound:.0f} s", seen, ok=ok))
        if not ok:
            raise GuestFailed(
                f"{self.name}: not ready, {condition}: nothing within {bound:.0f} s",
                details=reply.output[-2000:],
            )


def fill_in(command: str, members: Mapping[str, RunningMember], host: str) -> str:
    """The command with addresses in the place of {KEY} and {host}."""
    addresses = {key: member.address for key, member in members.items()} | {"host": host}
    for key, address in addresses.items():
        command = command.replace(f"{{{key}}}", address)
    return command
