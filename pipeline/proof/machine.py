"""The emulated machine that Xen runs in: QEMU's command line, its state, its disks."""

import os
import shlex
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline import process
from pipeline.errors import Broken, PipelineError
from pipeline.proof.accelerators import QEMU, TCG, Accelerator
from pipeline.proof.agent import Agent
from pipeline.proof.qmp import Monitor

MEMORY_MIB = 6144
DOM0_MIB = 768
SLOTS = 8
PORT = "domu.proof"
ROOT, XEN, KERNEL, INITRD = "root.qcow2", "xen", "vmlinuz", "initrd.img"
RAM, STATE = "ready.ram", "ready.state"
# no defence against side channels: nothing is secret here, and each costs dearly in emulation;
# bootscrub=off leaves unused memory untouched, so that the snapshot stays small
XEN_WORDS = (
    f"dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M dom0_max_vcpus=2 console=com1 com1=115200,8n1 "
    "bootscrub=off spec-ctrl=no xpti=no loglvl=warning guest_loglvl=warning"
)
DOM0_WORDS = (
    "console=hvc0 root=/dev/vda rw rootflags=noatime init=/proof/init mitigations=off quiet"
)
# for a try of an accelerator: the kernel's first lines come on Xen's console
TRIED_WORDS = "console=hvc0 earlyprintk=xen"


@dataclass
class Machine:
    """A running test host: its monitor and its agent."""

    monitor: Monitor
    agent: Agent
    log: Path
    used_slots: int = 0

    def work_s(self) -> float:
        """Processor seconds that QEMU has used so far; 0 when it has ended."""
        thread = self.monitor.ask("query-cpus-fast")[0]["thread-id"]
        try:
            # a thread's own folder tells of its whole process: proc(5), /proc/PID/task
            fields = Path(f"/proc/{thread}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def plug_disk(self, image: Path, serial: str, *, read_only: bool = False) -> None:
        """Hot-plug a qcow2 overlay or a raw image, to be found as by-id/virtio-<serial>."""
        if self.used_slots >= SLOTS:
            raise Broken(f"the test host has only {SLOTS} slots for disks")
        kind = "qcow2" if image.suffix == ".qcow2" else "raw"
        node = f"disk{self.used_slots}"
        self.monitor.ask(
            "blockdev-add",
            **{
                "node-name": node,
                "driver": kind,
                "read-only": read_only,
                "file": {"driver": "file", "filename": str(image), "read-only": read_only},
            },
        )
        self.monitor.ask(
            "device_add",
            driver="virtio-blk-pci",
            drive=node,
            id=f"plugged-{node}",
            serial=serial,
            bus=f"slot{self.used_slots}",
        )
        self.used_slots += 1


@dataclass(frozen=True)
class Lines:
    """Descriptors of the sockets that lead to QEMU's monitor and to the agent in the test host.

    No paths: a socket's may have 107 bytes, an output folder's any number.
    """

    monitor: int = -1
    agent: int = -1


@dataclass(frozen=True)
class Start:
    """What a start of the machine needs: the folder with its files, and where else what is.

    `is_template` shares the memory file, so that what the machine writes there is kept.
    """

    host: Path
    work: Path
    root: Path
    accelerator: Accelerator
    is_template: bool


def boot_words(folder: Path, dom0_words: str = DOM0_WORDS) -> list[str]:
    """QEMU's words for Xen, dom0's kernel and its ramdisk, which are multiboot modules."""
    modules = f"{folder / KERNEL} {dom0_words},{folder / INITRD}"
    return ["-kernel", str(folder / XEN), "-append", XEN_WORDS, "-initrd", modules]


def qemu_argv(start: Start, lines: Lines) -> list[str]:
    """The command line; the first start's differs from every later one's by `-incoming` only."""
    share = "on" if start.is_template else "off"
    argv = [QEMU, "-nodefaults", "-no-user-config", "-machine", "q35,memory-backend=ram"]
    argv += [
        *start.accelerator.words,
        "-smp",
        "2",
        "-m",
        f"{MEMORY_MIB}M",
        "-display",
        "none",
        "-no-reboot",
    ]
    argv += [
        "-object",
        f"memory-backend-file,id=ram,size={MEMORY_MIB}M,mem-path={start.host / RAM},share={share}",
    ]
    argv += boot_words(start.host)
    argv += ["-drive", f"if=none,id=root,file={start.root},format=qcow2,cache=unsafe"]
    argv += ["-device", "virtio-blk-pci,drive=root"]
    argv += ["-serial", f"file:{start.work / 'dom0.log'}"]
    argv += ["-chardev", f"socket,id=agent,fd={lines.agent}"]
    argv += ["-device", "virtio-serial-pci", "-device", f"virtserialport,chardev=agent,name={PORT}"]
    argv += ["-device", "virtio-rng-pci"]
    argv += ["-chardev", f"socket,id=monitor,fd={lines.monitor}"]
    argv += ["-mon", "chardev=monitor,mode=control"]
    for slot in range(SLOTS):
        argv += ["-device", f"pcie-root-port,id=slot{slot},chassis={slot + 1},slot={slot + 1}"]
    return argv if start.is_template else [*argv, "-incoming", "defer"]


def describe(accelerator: Accelerator = TCG) -> dict[str, object]:
    """What a running snapshot depends on besides the tree: QEMU's version and the machine."""
    version = process.run([QEMU, "--version"]).splitlines()[0]
    argv = qemu_argv(Start(Path(), Path(), Path(), accelerator, is_template=True), Lines())
    processor = {"processor": accelerator.processor} if accelerator.processor else {}
    return {"qemu": version, "argv": argv, **processor}


@contextmanager
def boot(host: Path, work: Path, accelerator: Accelerator, *, log: Path) -> Iterator[Machine]:
    """Start the test host from nothing; its memory is kept in the file RAM of its folder."""
    start = Start(host, work, host / ROOT, accelerator, is_template=True)
    with _running(start, log) as machine:
        yield machine


@contextmanager
def resume(host: Path, work: Path, accelerator: Accelerator, *, log: Path) -> Iterator[Machine]:
    """Start the test host from its running snapshot, which stays as it is."""
    root = work / "root.qcow2"
    make_overlay(host / ROOT, root, base_format="qcow2", log=log)
    start = Start(host, work, root, accelerator, is_template=False)
    with _running(start, log) as machine:
        _share_memory(machine.monitor)
        machine.monitor.ask("migrate-incoming", uri=f"exec:cat {shlex.quote(str(host / STATE))}")
        machine.monitor.wait_for_migration(timeout_s=60)
        machine.monitor.ask("cont")
        yield machine


def save_state(machine: Machine, target: Path) -> None:
    """Freeze the machine and write its devices' state; its memory is in the shared file already."""
    _share_memory(machine.monitor)
    machine.monitor.ask("stop")
    machine.monitor.ask("migrate", uri=f"exec:cat > {shlex.quote(str(target))}")
    machine.monitor.wait_for_migration(timeout_s=120)


def make_overlay(
    base: Path, overlay: Path, *, base_format: str, log: Path, size_mib: int = 0
) -> None:
    """A qcow2 file that takes the writes meant for `base`, which stays as it is."""
    size = [f"{size_mib}M"] if size_mib else []
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", base_format, "-b", base, overlay]
    process.run([*argv, *size], log=log)


def _share_memory(monitor: Monitor) -> None:
    monitor.ask(
        "migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}]
    )


@contextmanager
def _running(start: Start, log: Path) -> Iterator[Machine]:
    with ExitStack() as stack:
        ours_m, its_m = (stack.enter_context(end) for end in socket.socketpair())
        ours_a, its_a = (stack.enter_context(end) for end in socket.socketpair())
        lines = Lines(its_m.fileno(), its_a.fileno())
        argv = qemu_argv(start, lines)
        kept = (lines.monitor, lines.agent)
        stack.enter_context(process.started(argv, log=log, keep_open=kept))
        # only QEMU's copies stay: its end is the end of the line
        its_m.close()
        its_a.close()
        monitor = Monitor(ours_m)
        stack.callback(monitor.close)
        agent = Agent(ours_a)
        stack.callback(agent.close)
        yield Machine(monitor, agent, log)


ANSWER_S = 10.0


def explain_fault(machine: Machine, error: PipelineError) -> Broken:
    """What went wrong around the guest, as Broken: QEMU itself is asked what state it is in."""
    state = _ask_state(machine)
    if state == "io-error":
        # QEMU's werror=enospc stops the whole machine rather than lose a write
        return Broken(
            "the test host stands still: there is no space left for what it writes",
            details=error.brief,
            hint="free space where output/scratch is, then prove again",
        )
    if state == "ended":
        return Broken("the test host's QEMU ended", details=error.brief, hint=error.hint)
    if isinstance(error, Broken):
        return error
    return Broken(error.brief, details=error.details, hint=error.hint)


def _ask_state(machine: Machine) -> str:
    try:
        machine.monitor.limit_patience(ANSWER_S)
        return str(machine.monitor.ask("query-status")["status"])
    except Broken as gone:
        return "silent" if "does not answer" in gone.brief else "ended"
