"""The emulated machine that Xen runs in: QEMU's command line, its state, its disks."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline import command
from pipeline.proof.agent import Agent
from pipeline.proof.errors import Broken
from pipeline.proof.qmp import Monitor, connect

QEMU = "qemu-system-x86_64"
MEMORY_MIB = 6144
DOM0_MIB = 768
SLOTS = 6
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


@dataclass(frozen=True)
class Accelerator:
    """How QEMU runs the processor: `tcg` everywhere, `kvm` where the machine has it."""

    name: str
    words: tuple[str, ...]


# with the models EPYC and max Xen's dom0 dies at once in QEMU's emulation; qemu64 works, and its
# emulated SVM with nested paging carries PVH guests
TCG = Accelerator("tcg", ("-accel", "tcg,thread=multi,tb-size=256", "-cpu", "qemu64,+npt"))


@dataclass
class Machine:
    """A running test host: its monitor and its agent."""

    monitor: Monitor
    agent: Agent
    log: Path
    used_slots: int = 0

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
                "file": {
                    "driver": "file",
                    "filename": str(image),
                    "read-only": read_only,
                },
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


def qemu_argv(host: Path, work: Path, root: Path, ram: Path, *, is_template: bool) -> list[str]:
    """The command line; the same for the first start and for every later one but for `-incoming`.

    `is_template` shares the memory file, so that what the machine writes there is kept.
    """
    share = "on" if is_template else "off"
    modules = f"{host / KERNEL} {DOM0_WORDS},{host / INITRD}"
    argv = [QEMU, "-nodefaults", "-no-user-config", "-machine", "q35,memory-backend=ram"]
    argv += [*TCG.words, "-smp", "2", "-m", f"{MEMORY_MIB}M", "-display", "none", "-no-reboot"]
    argv += [
        "-object",
        f"memory-backend-file,id=ram,size={MEMORY_MIB}M,mem-path={ram},share={share}",
    ]
    argv += ["-kernel", str(host / XEN), "-append", XEN_WORDS, "-initrd", modules]
    argv += ["-drive", f"if=none,id=root,file={root},format=qcow2,cache=unsafe"]
    argv += ["-device", "virtio-blk-pci,drive=root"]
    argv += ["-serial", f"file:{work / 'dom0.log'}"]
    argv += ["-chardev", f"socket,id=agent,path={work / 'agent'},server=on,wait=off"]
    argv += ["-device", "virtio-serial-pci", "-device", f"virtserialport,chardev=agent,name={PORT}"]
    argv += ["-device", "virtio-rng-pci"]
    argv += ["-qmp", f"unix:{work / 'monitor'},server=on,wait=off"]
    for slot in range(SLOTS):
        argv += ["-device", f"pcie-root-port,id=slot{slot},chassis={slot + 1},slot={slot + 1}"]
    return argv if is_template else [*argv, "-incoming", "defer"]


def describe() -> dict[str, object]:
    """What a running snapshot depends on besides the tree: QEMU's version and the machine."""
    version = command.run([QEMU, "--version"]).splitlines()[0]
    here = Path()
    return {"qemu": version, "argv": qemu_argv(here, here, here, here, is_template=True)}


@contextmanager
def boot(host: Path, work: Path, *, log: Path) -> Iterator[Machine]:
    """Start the test host from nothing; its memory is kept in the file RAM of its folder."""
    argv = qemu_argv(host, work, host / ROOT, host / RAM, is_template=True)
    with _running(argv, work, log) as machine:
        yield machine


@contextmanager
def resume(host: Path, work: Path, *, log: Path) -> Iterator[Machine]:
    """Start the test host from its running snapshot, which stays as it is."""
    root = work / "root.qcow2"
    make_overlay(host / ROOT, root, base_format="qcow2", log=log)
    argv = qemu_argv(host, work, root, host / RAM, is_template=False)
    with _running(argv, work, log) as machine:
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
    command.run([*argv, *size], log=log)


def _share_memory(monitor: Monitor) -> None:
    monitor.ask(
        "migrate-set-capabilities",
        capabilities=[{"capability": "x-ignore-shared", "state": True}],
    )


@contextmanager
def _running(argv: list[str], work: Path, log: Path) -> Iterator[Machine]:
    with ExitStack() as stack:
        is_alive = stack.enter_context(command.started(argv, log=log))
        monitor = Monitor(connect(work / "monitor", is_alive=is_alive, timeout_s=20))
        stack.callback(monitor.close)
        agent = Agent(connect(work / "agent", is_alive=is_alive, timeout_s=20))
        stack.callback(agent.close)
        yield Machine(monitor, agent, log)
