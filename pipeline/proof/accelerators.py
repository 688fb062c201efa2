"""How QEMU runs the processor: KVM where it can really run Xen, emulation everywhere else.

Whether it can is found out by trying, once for each start of the machine: a /dev/kvm may itself be
an emulation that lacks instructions of Xen's. The answer is kept in output/cache/kvm.json.
"""

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import process
from pipeline.console.progress import print_line
from pipeline.files import write_durably
from pipeline.project import Project

QEMU = "qemu-system-x86_64"
DEVICE = Path("/dev/kvm")
TRY_S = 12.0
POLL_S = 0.1
_FAULT = re.compile(
    r"KVM internal error.*|.*Assertion.*failed.*|.*failed to .*|.*[Nn]ot supported.*"
)


@dataclass(frozen=True)
class Accelerator:
    """`words` are for QEMU's command line; `processor` what a snapshot depends on besides."""

    name: str
    words: tuple[str, ...]
    processor: str = ""


# with the models EPYC and max Xen's dom0 dies at once in QEMU's emulation; qemu64 works, and its
# emulated SVM with nested paging carries PVH and HVM guests
TCG = Accelerator("tcg", ("-accel", "tcg,thread=multi,tb-size=256", "-cpu", "qemu64,+npt"))

KVM = Accelerator("kvm", ("-accel", "kvm", "-cpu", "host"))


def choose_accelerator(
    project: Project, boot_words: Sequence[str], *, is_nested: bool, log: Path
) -> Accelerator:
    """KVM when it runs Xen here, else emulation; `is_nested`: the guest needs SVM or VMX itself.

    `boot_words` make QEMU load Xen and dom0's kernel, whose first line says that it works.
    """
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return TCG
    kept, now = project.cache.accelerator, _describe_machine()
    trouble = _read_answer(kept, now)
    if trouble is None:
        trouble = try_accelerator(KVM, boot_words, project.scratch, log=log, timeout_s=TRY_S)
        note_answer(kept, trouble)
        if trouble:
            print_line(f"  note: /dev/kvm does not run Xen ({trouble}): the processor is emulated")
    if trouble or (is_nested and not _can_nest()):
        return TCG
    return replace(KVM, processor=now["processor"])


def try_accelerator(
    tried: Accelerator, boot_words: Sequence[str], scratch: Path, *, log: Path, timeout_s: float
) -> str:
    """Start Xen and dom0's kernel; what goes wrong, "" when the kernel speaks."""
    serial = scratch / f"try-{os.getpid()}.serial"
    journal = serial.with_suffix(".log")
    argv = [QEMU, "-nodefaults", "-no-user-config", "-machine", "q35", *tried.words]
    argv += ["-smp", "2", "-m", "1024M", "-display", "none", "-no-reboot"]
    argv += ["-serial", f"file:{serial}", *boot_words]
    journal.write_bytes(b"")
    try:
        with process.started(argv, log=journal) as is_alive:
            end = time.monotonic() + timeout_s
            while time.monotonic() < end and is_alive():
                if serial.is_file() and b"Linux version" in serial.read_bytes():
                    return ""
                if _FAULT.search(_without_command(journal)):
                    break
                time.sleep(POLL_S)
        said = _without_command(journal)
        with log.open("a") as stream:
            stream.write(f"{tried.name} was tried and does not run Xen:\n{said}")
        found = _FAULT.search(said)
        return (
            found.group().strip()
            if found
            else f"dom0's kernel said nothing within {timeout_s:.0f} s"
        )
    finally:
        serial.unlink(missing_ok=True)
        journal.unlink(missing_ok=True)


def note_answer(kept: Path, trouble: str) -> None:
    """Remember in a file what KVM came to until the machine or QEMU is another."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**_describe_machine(), "trouble": trouble}, indent=1)
    write_durably(kept, f"{text}\n".encode())


def _read_answer(path: Path, now: dict[str, str]) -> str | None:
    try:
        kept = json.loads(path.read_bytes())
        return (
            str(kept.pop("trouble")) if {**kept, "trouble": ""} == {**now, "trouble": ""} else None
        )
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _describe_machine() -> dict[str, str]:
    """What the answer holds for: this start of this machine, and this QEMU."""
    models = re.findall(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "processor": models[0] if models else "",
        "qemu": process.run([QEMU, "--version"]).splitlines()[0],
    }


def _can_nest() -> bool:
    """Whether the kernel passes SVM or VMX on to a guest of KVM."""
    modules = ("kvm_intel", "kvm_amd")
    files = [Path("/sys/module", name, "parameters/nested") for name in modules]
    return any(file.is_file() and file.read_text().strip() in "Y1" for file in files)


def _without_command(journal: Path) -> str:
    return "".join(journal.read_text(errors="replace").splitlines(keepends=True)[1:])
