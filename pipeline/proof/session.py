"""One proof, step by step: the guest is created, asked, and shut down inside the test host."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Broken, Finding, GuestFailed, PipelineError, UsageError
from pipeline.proof import lifecycle, loader, logins, mirror
from pipeline.proof.artifact import BRIDGE, Artifact
from pipeline.proof.causes import Seen, find_host_fault
from pipeline.proof.checks import (
    Answer,
    Answers,
    Expectation,
    equal,
    holds,
    judge,
    modules_for,
    read_answers,
    unasked,
)
from pipeline.proof.console import PROMPT, Console
from pipeline.proof.ephemeral_key import Credential, inject_key
from pipeline.proof.evidence import Evidence
from pipeline.proof.first_screen import (
    OFFERED,
    judge_service,
    note_unseen,
    offered_line,
    see_runs,
    watch,
)
from pipeline.proof.handover import BROUGHT, bridge_address, bridges_of, nearest_address
from pipeline.proof.logins import ConsoleLogin
from pipeline.proof.mirror import Supplies
from pipeline.proof.names import ROOM, SCREENSHOT
from pipeline.proof.screen import find_display, look
from pipeline.proof.seals import Seal
from pipeline.proof.ssh import Shell
from pipeline.proof.testbed import Ground
from pipeline.proof.timeouts import patient
from pipeline.xen.devices import Framebuffer

QUESTIONS = Path(__file__).with_name("host") / "questions"
NO_KEY = "nothing is put into a guest on a real dom0: give prove_key=PATH"
NO_CARD = "the guest has no card"
NO_SSHD = "there is no sshd in it"
# a service or the kernel may go on in the line of the prompt
LOGIN = r"\blogin: ?$|^[\w.-]+ login: "
CREATE_S = 180.0
# Xen's hotplug scripts have bounds of their own, which a busy machine breaks
CREATE_TRIES = 3
# PVH under emulated SVM on a busy machine took 240 s
LOGIN_S = 360.0
LEASE_S = 60.0


@dataclass(frozen=True)
class Asked:
    """What the person wants: a private key and root's password to enter with, the long checks.

    `as_is`: the artifact is judged by the spec that it was built from, whatever the spec is now.
    `with_xl`: this machine is a dom0 itself. `as_json`: what is found is printed for a program.
    `netboot`: the file that a guest is offered that starts from the network, with its folder.
    `boots`: the ways in which a whole disk is started (boots.py).
    """

    key: Path | None = None
    thorough: bool = False
    as_is: bool = False
    password: Path | None = None
    with_xl: bool = False
    as_json: bool = False
    netboot: Path | None = None
    boots: tuple[str, ...] = ("own",)

    @property
    def key_path(self) -> Path:
        """Where the key is, for messages."""
        return self.key or Path()

    def read_key(self) -> bytes:
        """The private key's bytes; b"" for none. Raises UsageError."""
        return _read(self.key, "prove_key", "give the private key's path")

    def read_password(self) -> bytes:
        """Root's password, the first line of its file; b"" for none. Raises UsageError."""
        text = _read(self.password, "prove_password", "give the path of a file with the password")
        return text.partition(b"\n")[0].rstrip(b"\r")


def _read(path: Path | None, variable: str, hint: str) -> bytes:
    if path is None:
        return b""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{variable}={path}: {error.strerror}", hint=hint) from error


@dataclass
class Session:
    """A guest in a running test host, and what was seen of it.

    `seal` returns the digests of the artifact; nothing is put into its overlays before. `number`
    tells it from others in the same host.
    """

    host: Ground
    artifact: Artifact
    evidence: Evidence
    asked: Asked
    supplies: Supplies | None = None
    seal: Callable[[], dict[str, Seal]] = dict
    credential: Credential = Credential()
    create_output: str = ""
    has_login: bool = False
    is_reached: bool = False
    number: int = 0

    def __post_init__(self) -> None:
        self.console = Console(self.host.agent, self.artifact.name)

    def run(self, work: Path) -> None:
        """The whole proof; raises GuestFailed or Broken, with everything seen in the evidence."""
        try:
            with self.evidence.phase("hand over"):
                self._prepare(work)
            with self.evidence.phase("key"):
                self.credential = self.find_credential()
            watched = loader.watched(self.host.agent, self.artifact, self.evidence)
            with self.evidence.phase("create"), watched:
                self.create()
            if self.artifact.starts_from:
                with self.evidence.phase("first screen"):
                    self._see_first_screen(self.artifact.starts_from)
            else:
                self._see_inside()
        finally:
            with suppress(PipelineError):
                self.console.poll(wait_s=0)
            self.evidence.console = self._without_password(self.console.text)

    def _see_inside(self) -> None:
        """A guest that boots its own system: from the login prompt to the end."""
        with self.evidence.phase("boot to login"):
            self.wait_for_login()
        login = self._begin_login()
        with self.evidence.phase("network"):
            shell = self.shell_at(self.find_address())
        self._ask(shell, login)
        with self.evidence.phase("shut down"):
            self.evidence.add(self.shut_down(shell))

    def _see_first_screen(self, place: str) -> None:
        """A guest that starts from its CD or the network: from outside alone."""
        agent, artifact, screen = self.host.agent, self.artifact, self.artifact.domain.framebuffer
        is_served = place == "the network" and self.host.is_alone
        card = artifact.cards[0] if artifact.cards else None
        if screen is not None:
            display, viewer = find_display(agent, artifact.name, screen)
            self.evidence.add(display)
            if viewer is not None:
                is_ours = is_served and card and card.mac and not artifact.netboot
                wanted = offered_line(bridge_address(0), card.mac) if card and is_ours else ""
                self.evidence.add(watch(viewer, place, artifact.evidence, wanted))
                self.evidence.facts["screenshot"] = SCREENSHOT
        if is_served:
            log = agent.read_whole(f"/run/dnsmasq-{bridges_of(artifact)[0]}.log").decode()
            file = artifact.netboot.name if artifact.netboot else OFFERED
            self.evidence.add(*judge_service(log, card.mac if card else "", file))
        unseen = note_unseen(place, has_screen=screen is not None, is_alone=self.host.is_alone)
        self.evidence.add(see_runs(agent, artifact.name), *unseen)

    def _without_password(self, text: str) -> str:
        """A guest that reads the password where it does not ask for it echoes it."""
        password = self.asked.read_password().decode("utf-8", "replace")
        return text.replace(password, "(password)") if password else text

    @property
    def seen(self) -> Seen:
        """What its failure is judged by."""
        return Seen(
            console=self.console.text,
            create=self.create_output,
            type=self.artifact.domain.type,
            boot=type(self.artifact.domain.boot).__name__.lower(),
            has_login=self.has_login,
            is_reached=self.is_reached,
        )

    def _prepare(self, work: Path) -> None:
        self.supplies = mirror.lay_out(self.supplies, work / BROUGHT / mirror.FOLDER)
        self.host.receive([self.artifact], work)
        self.evidence.digests = self.seal()

    def find_credential(self) -> Credential:
        """The given key; else a fresh one, put into the overlays of the guest's disks."""
        if self.artifact.starts_from:
            return Credential()
        if not self.artifact.has_sshd:
            return Credential(reason=NO_SSHD)
        if key := self.asked.read_key():
            return Credential(key)
        if not self.artifact.cards:
            return Credential(reason=NO_CARD)
        if not self.host.is_alone:
            return Credential(reason=NO_KEY)
        credential = inject_key(self.host.agent, self.artifact)
        self.evidence.injected = credential.injected
        return credential

    def create(self) -> None:
        """`xl create`; raises GuestFailed, or Broken where the host is at fault."""
        words = ["xl", "create", str(self.artifact.configuration)]
        for attempt in range(CREATE_TRIES):
            reply = self.host.agent.run(words, timeout_s=patient(CREATE_S))
            if reply.status == 0:
                return
            fault = find_host_fault(reply.output)
            if not (fault and attempt + 1 < CREATE_TRIES):
                break
            self.host.agent.run(["xl", "destroy", self.artifact.name])
        if fault:
            raise Broken(f"xl create: {fault}", details=reply.output)
        self.create_output = reply.output
        faults = [line for line in reply.output.splitlines() if "error" in line]
        seen = (faults or [f"status {reply.status}"])[0]
        self.evidence.add(holds("xl create", "the domain starts", seen, ok=False))
        raise GuestFailed(f"xl create ended with status {reply.status}", details=reply.output)

    def wait_for_login(self) -> None:
        """The prompt on its console; raises GuestFailed."""
        try:
            self.console.wait_for_login(LOGIN, timeout_s=patient(LOGIN_S))
        except GuestFailed as error:
            seen = error.brief.removeprefix(f"{PROMPT}: ")
            self.evidence.add(holds(PROMPT, "login:", seen, ok=False))
            raise
        self.has_login = True
        self.evidence.add(equal(PROMPT, "login:", "login:"))

    def shell_at(self, address: str) -> Shell:
        """The way into it, at this address; nobody has entered yet."""
        known, alias = bool(self.artifact.known_hosts), self.artifact.host_alias
        return Shell(self.host.agent, address, alias, has_known_hosts=known, number=self.number)

    def find_address(self, index: int = 0) -> str:
        """A card's address: the first fixed one, or that of its lease; "" without a card."""
        if not self.artifact.cards:
            return ""
        card = self.artifact.cards[index]
        fixed = [address for address in card.addresses if address.version == 4]
        if fixed and not card.dhcp:
            return str(fixed[0].ip)
        end = time.monotonic() + patient(LEASE_S)
        path = f"{ROOM}/leases-{card.device.bridge or BRIDGE}"
        while time.monotonic() < end:
            for line in self.host.agent.read(path, wait_s=0.5).decode().splitlines():
                words = line.split()
                if len(words) > 3 and words[1].lower() == (card.mac or words[1]).lower():
                    self._note_lease(words[2], words[3])
                    return words[2]
            time.sleep(0.3)
        self.evidence.add(holds("address by DHCP", "a lease", "", ok=False))
        raise GuestFailed(f"the guest asked for no address within {patient(LEASE_S):.0f} s")

    def _note_lease(self, address: str, name: str) -> None:
        self.evidence.add(holds("address by DHCP", "a lease", address, ok=True))
        if wanted := self.artifact.short_hostname:
            self.evidence.add(equal("host name sent with DHCP", wanted, name))

    def _ask(self, shell: Shell, login: ConsoleLogin | None) -> None:
        is_inside = self._enter(shell)
        if is_inside:
            if login is not None:
                login.answer()
            with self.evidence.phase("questions"):
                alone = self.host.is_alone
                answers = question(shell, self.artifact, self.evidence, is_alone=alone)
            with self.evidence.phase("apt-get update"):
                self.evidence.add(self._update(shell, answers))
        if shell.address and self.artifact.has_sshd:
            with self.evidence.phase("stranger"):
                logins.knock(shell, self.artifact, self.evidence)
            self.is_reached = True
        if login is not None:
            with self.evidence.phase("console login"):
                if not is_inside:
                    login.answer()
                self.evidence.add(login.finish())
        if self.artifact.domain.framebuffer is not None:
            with self.evidence.phase("screen"):
                self._look(self.artifact.domain.framebuffer)
        if is_inside and self.asked.thorough:
            kernel = self.supplies.kernel if self.supplies else ""
            moves = "" if self.host.is_alone else self.artifact.domain.type
            lifecycle.run_long_checks(self.evidence, self.console, shell, kernel, moves=moves)

    def shut_down(self, shell: Shell) -> Finding:
        """Its end, as its host asks for it."""
        shell.leave()
        return lifecycle.shut_down(self.host.agent, self.artifact.name)

    def _enter(self, shell: Shell) -> bool:
        """Whether the guest can be asked; why not is in the evidence."""
        credential = self.credential
        reason = credential.reason if shell.address else NO_CARD
        if not reason:
            is_strange = bool(credential.injected) and self.artifact.spec is None
            with self.evidence.phase("ssh"):
                key = credential.key
                said = logins.enter(shell, self.evidence, key, may_refuse=is_strange)
            reason = f"the guest lets no root in by key: {said}" if said else ""
            self.is_reached = True
        if reason:
            note_unasked(self.evidence, reason)
        return not reason

    def _look(self, screen: Framebuffer) -> None:
        found = look(self.host.agent, self.artifact.name, screen, self.artifact.evidence)
        self.evidence.add(*found)
        if all(check.level == "ok" for check in found):
            self.evidence.facts["screenshot"] = SCREENSHOT

    def _update(self, shell: Shell, answers: Answers) -> Finding:
        """`apt-get update` against the kept state of the guest's mirror."""
        if not self.host.is_alone:
            why = "outside the test host nothing answers for the mirrors in its sources"
            return unasked(mirror.UPDATE, why)
        if self.supplies is None:
            why = "the state of the mirror that it was built from is not kept"
            return unasked(mirror.UPDATE, why)
        if not any(card.dhcp or card.nameservers for card in self.artifact.cards):
            why = "the guest has no name server"
            return unasked(mirror.UPDATE, why)
        bridge, address = nearest_address(self.artifact)
        sources = answers["sources"].text if "sources" in answers else ""
        trouble = mirror.serve(self.host.agent, sources, address, bridge)
        if trouble:
            return unasked(mirror.UPDATE, trouble)
        return mirror.ask_update(shell, self.supplies)

    def _begin_login(self) -> ConsoleLogin | None:
        """Root at hvc0, when it is known whether that must work, and with what password."""
        spec = self.artifact.spec
        has_password = spec is None or bool(spec.root_password_file or spec.root_password_hash)
        password = self.asked.read_password()
        if has_password and not password:
            why = "its password is not known here: give prove_password=FILE"
            self.evidence.add(unasked(logins.CONSOLE_LOGIN, why, "a shell"))
            return None
        login = ConsoleLogin(self.console, password if has_password else b"")
        login.begin()
        return login


def question(
    shell: Shell, artifact: Artifact, evidence: Evidence, *, is_alone: bool = True
) -> dict[str, Answer]:
    """Ask everything once and note what it comes to; returns the answers."""
    modules = modules_for(artifact.spec)
    reply = shell.run(f"sh -s -- {' '.join(modules)}", stdin=QUESTIONS.read_bytes())
    answers = read_answers(reply.output)
    # a link-local address is known without the card that it is reached over
    address = shell.address.partition("%")[0]
    expected = expectation(artifact, address, modules, is_alone=is_alone)
    evidence.add(*judge(answers, expected))
    terminal = (shell.run("tty", tty=True).output.splitlines() or [""])[0].strip()
    ok = terminal.startswith("/dev/pts/")
    evidence.add(holds("ssh -t has a terminal", "/dev/pts/N", terminal, ok=ok))
    return answers


def expectation(
    artifact: Artifact, address: str, modules: tuple[str, ...], *, is_alone: bool
) -> Expectation:
    """What the answers are judged against."""
    lines = artifact.known_hosts.splitlines()
    keys = frozenset(" ".join(line.split()[1:3]) for line in lines if line.strip())
    fixed = [str(found.ip) for card in artifact.cards for found in card.addresses]
    return Expectation(
        spec=artifact.spec,
        cards=artifact.cards,
        abi=artifact.abi,
        host_keys=keys or None,
        addresses=tuple(dict.fromkeys([address, *fixed])),
        modules=modules,
        is_alone=is_alone,
        firmware=artifact.firmware,
    )


def note_unasked(evidence: Evidence, why: str) -> None:
    """Say what could not be asked: nobody is let in without a credential."""
    for name in (logins.WITH_KEY, "system state", "kernel, modules, mounts, settings"):
        evidence.add(unasked(name, why))
