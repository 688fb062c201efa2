"""Plain QEMU, which is what KVM and Proxmox start: SeaBIOS or Debian's OVMF, virtio, no Xen.

All of it runs in namespaces of its own. Their network is a loopback on whose port 22 QEMU's user
network takes connections for the guest; whatever else the guest sends ends there.
"""

import shlex
import shutil
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline import process
from pipeline.errors import Broken, EnvironmentFault, PipelineError
from pipeline.namespace import isolated
from pipeline.proof.accelerators import QEMU
from pipeline.proof.agent import Agent
from pipeline.proof.artifact import Artifact
from pipeline.proof.handover import hand_keys
from pipeline.proof.names import ROOM, SECRET
from pipeline.proof.timeouts import patient
from pipeline.spec import GuestCard
from pipeline.spec.devices import AnyInterface

HOST = Path(__file__).with_name("host")
TOOLS = {QEMU: "qemu-system-x86", "ssh": "openssh-client", "ip": "iproute2"}
OVMF = tuple(Path("/usr/share/OVMF", f"OVMF_{part}_4M.fd") for part in ("CODE", "VARS"))
LOOPBACK = "127.0.0.1"
LEASED = "10.0.2.15"  # the first that QEMU's user network gives
CONSOLE_LOG, TERMINAL = f"{ROOM}/console.log", f"{ROOM}/terminal"
_QEMU_LOG, _ENDED = f"{ROOM}/qemu.log", f"{ROOM}/ended"
_START_S = 30.0
_ACCELERATION = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    "tcg": ("-accel", "tcg,thread=multi", "-cpu", "max"),
}
_WALLS = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_FORMATS = {"qcow2": "qcow2", "vhd": "vpc"}
# its place in QEMU's words is told once it runs; who reads it keeps the line open
_START = """
({qemu} >{log} 2>&1 </dev/null; echo $? >{ended}) &
while [ ! -e {ended} ]; do
    terminal=$(sed -n 's/^char device redirected to \\([^ ]*\\).*/\\1/p' {log})
    [ -z "$terminal" ] || break
    sleep 0.1
done
cat "$terminal" >/dev/null &
ln -s "$terminal" {terminal}
"""


@dataclass(frozen=True)
class PlainGround:
    """One start of plain QEMU: the agent that shares its namespaces, and its log here."""

    agent: Agent
    room: Path
    log: Path

    @property
    def meter(self) -> Callable[[], float] | None:
        """Its processor seconds are not counted."""
        return None

    @property
    def is_alone(self) -> bool:
        """No name server in it knows the test host's name."""
        return False

    def receive(
        self, artifacts: Sequence[Artifact], work: Path, private: Collection[str] = ()
    ) -> None:
        """What ssh needs; disks are given when it starts."""
        hand_keys(artifacts, self.room, self.log)

    def explain(self, error: PipelineError) -> PipelineError:
        """What is not the guest's fault, as this machine's."""
        return Broken.of(error)

    def start(self, argv: Sequence[str]) -> None:
        """Start QEMU; Broken where it ends at once."""
        words = {"log": _QEMU_LOG, "ended": _ENDED, "terminal": TERMINAL}
        script = _START.format(qemu=shlex.join(argv), **words)
        # what stays behind must not hold the pipe that the output is read from
        detached = f"({script}) >/dev/null 2>&1 &"
        self.agent.demand(["sh", "-c", detached])
        if not self.agent.wait_for([TERMINAL], timeout_s=patient(_START_S)) or self.has_ended():
            said = self.agent.read(_QEMU_LOG).decode(errors="replace")
            raise Broken("QEMU does not start", details=said)

    def has_ended(self, *, wait_s: float = 0.0) -> bool:
        """Whether QEMU is gone, by itself."""
        return self.agent.wait_for([_ENDED], timeout_s=wait_s)


@contextmanager
def on_plain_machine(work: Path, log: Path) -> Iterator[PlainGround]:
    """The namespaces with an agent in them; QEMU is not started yet."""
    process.require_tools(TOOLS)
    room = work / "room"
    room.mkdir(mode=0o700)
    steps = [
        "mount -t tmpfs -o mode=755 tmpfs /run",
        f"mkdir -p {ROOM}",
        f"mount --bind {shlex.quote(str(room))} {ROOM}",
        f"mkdir {SECRET}",
        f"mount -t tmpfs -o mode=700 tmpfs {SECRET}",
        "ip link set lo up",
        'exec "$@"',
    ]
    with ExitStack() as stack:
        ours, its = (stack.enter_context(end) for end in socket.socketpair())
        agent_argv: list[object] = [sys.executable, HOST / "agent", str(its.fileno())]
        alone = ["unshare", "--net", "--", "sh", "-ec", "; ".join(steps), "sh", *agent_argv]
        stack.enter_context(process.started(isolated(alone), log=log, keep_open=(its.fileno(),)))
        its.close()
        agent = Agent(ours)
        stack.callback(agent.close)
        agent.wait_until_there(timeout_s=20)
        yield PlainGround(agent, room, log)


def qemu_argv(
    artifact: Artifact, overlays: Sequence[Path], work: Path, *, is_uefi: bool, accelerator: str
) -> list[str]:
    """The command line: pc and virtio-blk with SeaBIOS, q35 and virtio-scsi with OVMF.

    Raises EnvironmentFault where this machine has no OVMF.
    """
    domain = artifact.domain
    argv = [QEMU, "-nodefaults", "-no-user-config", "-machine", "q35" if is_uefi else "pc"]
    argv += [*_ACCELERATION[accelerator], "-smp", str(domain.vcpus), "-m", f"{domain.memory_mib}M"]
    argv += ["-display", "none", "-no-reboot", "-sandbox", _WALLS, "-device", "virtio-rng-pci"]
    argv += ["-chardev", f"pty,id=console,logfile={CONSOLE_LOG}", "-serial", "chardev:console"]
    if is_uefi:
        argv += [*_firmware(work), "-device", "virtio-scsi-pci,id=scsi"]
    device = "scsi-hd,bus=scsi.0" if is_uefi else "virtio-blk-pci"
    for number, (overlay, (_, kind)) in enumerate(zip(overlays, artifact.disks, strict=True)):
        argv += _disk(overlay, kind, number)
        argv += ["-device", f"{device},drive=disk{number},bootindex={number}"]
    for card in artifact.cards:
        argv += _card(card)
    return argv


def _disk(overlay: Path, kind: str, number: int) -> list[str]:
    """The overlay takes a file's bytes, and in them is the format that Xen's toolstack reads."""
    is_raw = kind == "raw"
    path = str(overlay).replace(",", ",,")
    lowest = f"driver=file,filename={path},node-name=file{number}"
    over = f"driver=qcow2,file=file{number},node-name={'disk' if is_raw else 'over'}{number}"
    nodes = [lowest, over]
    if not is_raw:
        nodes.append(f"driver={_FORMATS[kind]},file=over{number},node-name=disk{number}")
    return [word for node in nodes for word in ("-blockdev", node)]


def _card(card: GuestCard) -> list[str]:
    """The user network; where the guest has a fixed address it is the network of that one."""
    name, fixed = f"card{card.index}", find_fixed(card)
    words = f"user,id={name}"
    if fixed is not None:
        hosts = (host for host in fixed.network.hosts() if host != fixed.ip)
        router = card.gateway or next(hosts)
        others = (host for host in hosts if host != router)
        words += f",net={fixed.network},host={router},dns={next(others)},dhcpstart={fixed.ip}"
    if card.index == 0:
        words += f",hostfwd=tcp:{LOOPBACK}:22-{fixed.ip if fixed else LEASED}:22"
    mac = f",mac={card.mac}" if card.mac else ""
    return ["-netdev", words, "-device", f"virtio-net-pci,netdev={name}{mac}"]


def find_fixed(card: GuestCard) -> AnyInterface | None:
    """Its first fixed IPv4 address with the network, None where it asks for one."""
    fixed = [address for address in card.addresses if address.version == 4]
    return fixed[0] if fixed and not card.dhcp else None


def _firmware(work: Path) -> list[str]:
    code, variables = OVMF
    if not (code.is_file() and variables.is_file()):
        raise EnvironmentFault(
            f"boots=qemu-uefi: {code} is not here",
            hint="apt-get install ovmf, or name the other boots",
        )
    own = work / "variables.fd"
    shutil.copyfile(variables, own)
    place = str(own).replace(",", ",,")
    return [
        *("-drive", f"if=pflash,format=raw,readonly=on,file={code}"),
        *("-drive", f"if=pflash,format=raw,file={place}"),
    ]
