"""User-Mode Linux: a kernel of our own with real device-mapper, started like any program.

Debian's user-mode-linux runs as a process and sees this machine's files through hostfs, read only;
what is written goes to memory, to its disks and to one folder for results. So LVM2, dm-snapshot,
dm-thin, md and this project's own Python work in it as they do on a Xen host, without root's help
from the kernel outside.
"""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "/usr/bin/linux.uml"
MODULES = (
    *("md/dm-mod", "md/dm-bufio", "md/dm-snapshot", "md/persistent-data/dm-persistent-data"),
    *("md/dm-bio-prison", "md/dm-thin-pool", "md/md-mod", "md/linear", "block/loop"),
    "../fs/overlayfs/overlay",
)
_LETTERS = "bcdefgh"
_INIT = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t proc proc /proc && mount -t sysfs sys /sys
for folder in /run /mnt; do mount -t tmpfs tmpfs "$folder"; done
mkdir -p /run/lock /run/tmp /run/etc/new /run/etc/work /mnt/results
mount -t hostfs -o {results} none /mnt/results
drivers=/usr/lib/uml/modules/$(uname -r)/kernel/drivers
for module in {modules}; do insmod "$drivers/$module.ko" || echo "no module $module"; done
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/new,workdir=/run/etc/work none /etc
mkdir -p /etc/xen/auto
export TMPDIR=/run/tmp PYTHONDONTWRITEBYTECODE=1 {variables}
cd {folder}
{command} < /dev/null > /mnt/results/output 2>&1
echo $? > /mnt/results/status
sync
echo o > /proc/sysrq-trigger
sleep 60
"""


@dataclass(frozen=True)
class Result:
    """How the command in it ended: status (None when it never did), its output, the console."""

    status: int | None
    output: str
    console: str


def missing_uml() -> str:
    """What is missing for a start, "" when nothing is."""
    return "" if shutil.which("linux.uml") else "user-mode-linux is not installed"


def run_in_uml(
    work: Path,
    argv: Sequence[object],
    *,
    folder: Path,
    disks: Sequence[Path] = (),
    variables: Sequence[str] = (),
    memory: str = "768M",
    timeout_s: float = 600,
) -> Result:
    """Run a command as the only program of a kernel with these files as /dev/ubdb, ubdc...

    `work` is a folder of the caller; what the command writes to /mnt/results is in work/results.
    /etc is this machine's with an empty layer over it that may be written to.
    """
    results = work / "results"
    results.mkdir(parents=True, exist_ok=True)
    init = work / "init"
    init.write_text(
        _INIT.format(
            results=results,
            modules=" ".join(MODULES),
            variables=" ".join(variables),
            folder=shlex.quote(str(folder)),
            command=shlex.join(map(str, argv)),
        )
    )
    init.chmod(0o755)
    words = [PROGRAM, f"mem={memory}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"]
    words += ["ubd0=/dev/null", *(f"ubd{n}={disk}" for n, disk in enumerate(disks, start=1))]
    words += ["con=null", "con0=null,fd:1", f"init={init}", f"uml_dir={work}", "quiet"]
    console = _run_to_end(words, work, timeout_s)
    status, output = results / "status", results / "output"
    return Result(
        int(status.read_text()) if status.is_file() else None,
        output.read_text(errors="replace") if output.is_file() else "",
        console,
    )


def _preload(work: Path) -> dict[str, str]:
    """The environment in which UML runs on this processor: see uml_xstate.c."""
    if " amx_tile " not in Path("/proc/cpuinfo").read_text():
        return {}
    library = work / "xstate.so"
    source = Path(__file__).with_name("uml_xstate.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library)}


def _run_to_end(words: Sequence[str], work: Path, timeout_s: float) -> str:
    with open(work / "console", "w+b") as console:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_preload(work)},
            start_new_session=True,
        )
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            console.write(f"\nno end after {timeout_s} s".encode())
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        console.seek(0)
        return console.read().decode(errors="replace")
