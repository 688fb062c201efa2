"""A real dom0: the same agent asks the same questions of a guest that the local xl starts.

The agent and xl run in a mount namespace of their own, in which each disk's path leads to a copy
that is thrown away. So xl reads the emitted configuration as it is, and the artifact does not
change. What is mounted there goes with the last process in it: xl's own, when the guest is gone.
"""

import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import process
from pipeline.errors import Broken, EnvironmentFault, InUseError, PipelineError
from pipeline.proof.agent import Agent
from pipeline.proof.artifact import BRIDGE, Artifact
from pipeline.proof.console import Console
from pipeline.proof.handover import bridges_of, hand_keys
from pipeline.proof.names import ROOM, SECRET
from pipeline.proof.timeouts import patient
from pipeline.xen.capabilities import read_info

HOST = Path(__file__).with_name("host")
HYPERVISOR = Path("/sys/hypervisor/type")
CAPABILITIES = Path("/proc/xen/capabilities")
SETTINGS = Path("/etc/xen/xl.conf")
TOOLS = {"xl": "xen-utils", "xenstore-read": "xenstore-utils", "ssh": "openssh-client"}
COPY_S = 1800.0
RELEASE_S = 60.0
_BY_UDEV = re.compile(r"^\s*run_hotplug_scripts\s*=\s*[\"']?0", re.MULTILINE)
_LEAVE_OUT = "leave prove_with out: then QEMU emulates a dom0, on any machine"


@dataclass
class RealHost:
    """This machine's dom0 for one proof; what its programs say goes to `log`."""

    agent: Agent
    log: Path
    stack: ExitStack = field(repr=False)

    @property
    def meter(self) -> Callable[[], float] | None:
        """Nothing is emulated."""
        return None

    @property
    def is_alone(self) -> bool:
        """The guest's network is the host's own."""
        return False

    def receive(
        self, artifacts: Sequence[Artifact], work: Path, private: Collection[str] = ()
    ) -> None:
        """Copies of the disks in place of the artifact's; console and leases are watched.

        One guest alone: the host's own bridges are what they are.
        """
        if private:
            raise Broken("no bridges are made on a real dom0 for a proof")
        (artifact,) = artifacts
        room = work / "room"
        copies = [work / f"disk{n}.{kind}" for n, (_, kind) in enumerate(artifact.disks)]
        self.stack.callback(_wait_for_release, copies)
        self._start_beside(artifact, room)
        for number, (target, kind) in enumerate(artifact.disks):
            self._put_copy_in_place(work, number, target, kind)
        hand_keys([artifact], room, self.log)

    def explain(self, error: PipelineError) -> PipelineError:
        """What is not the guest's fault, as the host's."""
        return Broken.of(error)

    def _start_beside(self, artifact: Artifact, room: Path) -> None:
        """The watchers of console and leases, and the guard that destroys what is left."""
        guard = (
            f"cat >/dev/null; xl domid {shlex.quote(artifact.name)} >/dev/null 2>&1"
            f" && exec xl destroy {shlex.quote(artifact.name)}; exit 0"
        )
        daemon = process.start_daemon(["sh", "-c", guard], log=self.log, is_tethered=True)
        self.stack.callback(_let_go, daemon)
        console = room / Path(Console(self.agent, artifact.name).path).name
        macs = [card.mac for card in artifact.cards if card.mac]
        watchers: list[list[str | Path]] = [[HOST / "tap", artifact.name, console]]
        if macs:
            watchers.append([HOST / "leases", room / f"leases-{bridges_of(artifact)[0]}", *macs])
        for words in watchers:
            argv = [sys.executable, *words]
            self.stack.enter_context(process.started(argv, log=self.log))

    def _put_copy_in_place(self, work: Path, number: int, target: Path, kind: str) -> None:
        """Mounted over the disk's own path, in the namespace of the agent and of xl."""
        copy, under = work / f"disk{number}.{kind}", work / f"under{number}"
        self._demand(["touch", under])
        self._demand(["mount", "--bind", target, under])
        if kind == "qcow2":
            over: list[str | Path] = ["-f", "qcow2", "-F", "qcow2", "-b", under, copy]
            self._demand(["qemu-img", "create", "-q", *over])
        else:
            # of a file or a volume alike: what is not zero, shared where the file system can
            self._demand(["cp", "--sparse=always", "--reflink=auto", under, copy])
        self._demand(["mount", "--bind", copy, target])

    def _demand(self, argv: Sequence[str | Path]) -> None:
        self.agent.demand([str(word) for word in argv], timeout_s=patient(COPY_S))


@contextmanager
def on_dom0(work: Path, *, log: Path) -> Iterator[RealHost]:
    """The agent in its own namespace; raises EnvironmentFault where there is no dom0."""
    refuse_elsewhere()
    room = work / "room"
    room.mkdir(mode=0o700)
    mounts = f"mkdir -p {ROOM}; mount --bind {shlex.quote(str(room))} {ROOM}; mkdir {SECRET}"
    mounts += f"; mount -t tmpfs -o mode=700 tmpfs {SECRET}"
    logs = Path(Console.folder)
    mounts += f"; mkdir -p {logs}; mount --bind {ROOM} {logs}"
    with ExitStack() as stack:
        ours, its = (stack.enter_context(end) for end in socket.socketpair())
        script = f'set -e; {mounts}; exec "$@"'
        agent_argv: list[str | Path] = [sys.executable, HOST / "agent", str(its.fileno())]
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
        stack.enter_context(
            process.started([*argv, *agent_argv], log=log, keep_open=(its.fileno(),))
        )
        its.close()
        agent = Agent(ours)
        stack.callback(agent.close)
        agent.wait_until_there(timeout_s=20)
        yield RealHost(agent, log, stack)


def refuse_elsewhere() -> None:
    """Raise EnvironmentFault unless this is a dom0, with the programs and as the user it takes."""
    kind = HYPERVISOR.read_text().strip() if HYPERVISOR.is_file() else ""
    if kind != "xen":
        raise EnvironmentFault("prove_with=xl: this machine does not run Xen", hint=_LEAVE_OUT)
    if CAPABILITIES.is_file() and "control_d" not in CAPABILITIES.read_text():
        raise EnvironmentFault(
            "prove_with=xl: this machine is a guest of Xen, not its dom0", hint=_LEAVE_OUT
        )
    if os.geteuid() != 0:
        raise EnvironmentFault("prove_with=xl: xl wants root", hint="run it as root")
    process.require_tools(TOOLS)
    if SETTINGS.is_file() and _BY_UDEV.search(SETTINGS.read_text()):
        # udev knows nothing of the namespace: the guest would write to the artifact itself
        raise EnvironmentFault(
            f"prove_with=xl: {SETTINGS} leaves the block scripts to udev",
            hint="take run_hotplug_scripts=0 out of it, or leave prove_with out",
        )


def describe_xen() -> str:
    """The version of the Xen that runs here, as xl tells it: 4.17."""
    found = read_info(process.run(["xl", "info"]))
    return f"{found.get('xen_major', '?')}.{found.get('xen_minor', '?')}"


def refuse_unready(artifact: Artifact) -> None:
    """Raise InUseError when a guest of this name runs, EnvironmentFault for a missing bridge."""
    name = artifact.name
    if any(line.split()[:1] == [name] for line in process.run(["xl", "list"]).splitlines()[1:]):
        raise InUseError(
            f"a guest named {name} runs here: it would be proven beside itself",
            hint=f"shut it down first: xl shutdown {name}   or prove it without prove_with",
        )
    if any(kind == "qcow2" for _, kind in artifact.disks):
        process.require_tools({"qemu-img": "qemu-utils"})
    wanted = {card.bridge or BRIDGE for card in artifact.domain.cards}
    missing = [name for name in sorted(wanted) if not Path("/sys/class/net", name).is_dir()]
    if missing:
        raise EnvironmentFault(
            f"prove_with=xl: this host has no bridge {', '.join(missing)}",
            hint="make it, or build the guest again with a bridge= that is there",
        )


def _wait_for_release(copies: Sequence[Path]) -> None:
    """xl takes the loop devices away after the guest is gone, by scripts of its own."""
    end = time.monotonic() + patient(RELEASE_S)
    while time.monotonic() < end:
        made = [path for path in copies if path.exists()]
        found = [process.run(["losetup", "-j", path], is_cleanup=True) for path in made]
        if not any(text.strip() for text in found):
            return
        time.sleep(0.5)


def _let_go(daemon: process.Daemon) -> None:
    assert daemon.stdin is not None
    daemon.stdin.close()
    daemon.wait()
