"""This project itself in a real dom0: the test host's, where /etc/xen, xl and LVM are real.

A disk made with `mke2fs -d` brings the project's source, its .venv and chosen folders; in dom0 all
of them stand at the very paths that they have here, so that artifacts keep the paths they name. An
empty disk beside it is for volume groups. The machine is a snapshot: what is done in it is gone.
"""

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.project import Project
from pipeline.proof import machine
from pipeline.proof.agent import Agent, Reply
from pipeline.proof.machine import Machine
from pipeline.proof.testhost import HOST, ensure_host
from pipeline.proof.timeouts import VARIABLE
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.stages import STAGES
from tests.conftest import ROOT, require
from tests.specs import make_spec
from tests.workshop import Workshop

SPARE_MIB = 4096
BY_ID = "/dev/disk/by-id/virtio-"
EMPTY_DISK = f"{BY_ID}empty"
CARRIED = "/carried"
# what tells why a guest or a tool in a dom0 ended
LOGS = (
    "xl list; cd /var/log/xen; for log in xl-*.log xen-hotplug.log console/*; do "
    'echo "== $log"; tail -n 40 "$log"; done; ps axf; dmesg | tail -n 20; xl dmesg | tail -n 20'
)
# of the .venv: what tests alone need stays here
_LEFT_OUT = ("mypy", "mypyc", "hypothesis", "networkx", "pygments", "ruff", "_pytest", "pip")


@dataclass(frozen=True)
class Dom0:
    """A running dom0 that holds the project; `agent` is the line into it."""

    agent: Agent
    output: Path
    machine: Machine

    def run(
        self, command: str | Sequence[str], *, stdin: bytes = b"", timeout_s: float = 300
    ) -> Reply:
        """A shell line, or words that are one command; status and all that it printed."""
        words = ["sh", "-c", command] if isinstance(command, str) else list(command)
        return self.agent.run(words, stdin=stdin, timeout_s=timeout_s)

    def demand(self, command: str | Sequence[str], *, timeout_s: float = 300) -> str:
        """The same for what must succeed; returns what it printed."""
        reply = self.run(command, timeout_s=timeout_s)
        assert reply.status == 0, f"{command}: status {reply.status}\n{reply.output}"
        return reply.output

    def doit(self, *words: str, stdin: bytes = b"", timeout_s: float = 900) -> Reply:
        """`doit WORDS...` of this checkout, in dom0, as root."""
        return self.run(f"exec {self.line(*words)}", stdin=stdin, timeout_s=timeout_s)

    def line(self, *words: str) -> str:
        """The same as one command of a shell."""
        own = (f"--chdir={ROOT}", f"DOMU_OUTPUT={self.output}", f"{VARIABLE}=3")
        return shlex.join(["env", *own, f"{ROOT}/.venv/bin/python", "-m", "doit", *words])

    def make_bridge(self, name: str = "br-xen", net: str = "10.77.0") -> None:
        """A bridge for guests with DHCP and DNS on it; leases in /run/domu-proof/leases-NAME."""
        self.demand(f"sh /proof/network {name} {net}.1/24 {net}.10 {net}.250")


@contextmanager
def running_dom0(
    workshop: Workshop,
    work: Path,
    *,
    carry: Sequence[Path] = (),
    empty_mib: int = 8192,
    spec: Spec | None = None,
) -> Iterator[Dom0]:
    """A dom0 with the project and the folders `carry` in it, and an empty disk of `empty_mib`.

    Without `carry` the workshop's guests, volumes and identities come along, its store does not:
    name what you need of it. `spec` names another Xen than bookworm's. `work` is an empty folder.
    """
    require(shutil.which("qemu-system-x86_64") is not None, "qemu-system-x86 is not installed")
    _require_the_same_python()
    output = workshop.output
    project = Project(ROOT, output, workshop.guests)
    for folder in ("store", "scratch", "logs"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    host = ensure_host(Recipe(project, STAGES), spec or make_spec(name="dom0"))
    carried = [ROOT, *(carry or [output / name for name in ("guests", "volumes", "identity")])]
    image, empty = work / "project.img", work / "empty.img"
    _make_project_disk(carried, work / "tree", image)
    with empty.open("wb") as stream:
        stream.truncate(empty_mib << 20)
    log = work / "dom0-qemu.log"
    log.touch()
    with machine.resume(host.folder, work, host.accelerator, log=log) as running:
        running.plug_disk(image, "project")
        running.plug_disk(empty, "empty")
        assert running.agent.wait_for([f"{BY_ID}project", EMPTY_DISK], timeout_s=120)
        dom0 = Dom0(running.agent, output, running)
        _put_in_place(dom0, [path for path in carried if path.exists()])
        yield dom0


def _require_the_same_python() -> None:
    """The .venv has compiled modules: dom0's Python must be of the same minor version."""
    major, minor = sys.version_info[:2]
    require(
        (major, minor) == (3, 11),
        f"the .venv is of Python {major}.{minor}, dom0 has 3.11: make it with PYTHON=python3.11",
    )


def _make_project_disk(folders: Sequence[Path], tree: Path, image: Path) -> None:
    """An ext4 image that holds each folder at its path; nothing is mounted."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            target = _below(tree, ROOT / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    _copy_environment(_below(tree, ROOT / ".venv"))
    for folder in folders:
        if folder != ROOT and folder.is_dir():
            target = _below(tree, folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", "--sparse=always", folder, target], check=True)
    used = subprocess.run(["du", "-sm", tree], stdout=subprocess.PIPE, text=True, check=True)
    size_mib = int(used.stdout.split()[0]) * 5 // 4 + SPARE_MIB
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-m", "0"]
    subprocess.run([*words, "-d", tree, image, f"{size_mib}M"], check=True)
    subprocess.run(["rm", "-rf", "--one-file-system", tree], check=True)


def _copy_environment(target: Path) -> None:
    """The .venv with dom0's own python in it, without what only tests need."""
    version = f"python3.{sys.version_info[1]}"
    packages = Path(sys.prefix, "lib", version, "site-packages")
    copy = target / "lib" / version / "site-packages"

    def leave_out(folder: str, names: list[str]) -> set[str]:
        if Path(folder) != packages:
            return set()
        return {name for name in names if name.startswith(_LEFT_OUT) or "__mypyc" in name}

    shutil.copytree(packages, copy, ignore=leave_out)
    # ./doit keeps the compiled files in .venv/pycache; dom0's python looks beside the sources
    compiled = _below(Path(sys.prefix, "pycache"), packages)
    for file in compiled.rglob("*.pyc"):
        folder = copy / file.parent.relative_to(compiled)
        if folder.is_dir():
            (folder / "__pycache__").mkdir(exist_ok=True)
            shutil.copy2(file, folder / "__pycache__" / file.name)
    (target / "bin").mkdir()
    for name in ("python", "python3"):
        (target / "bin" / name).symlink_to("/usr/bin/python3")
    (target / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")


def _below(tree: Path, path: Path) -> Path:
    return tree / path.relative_to("/")


def _put_in_place(dom0: Dom0, folders: Sequence[Path]) -> None:
    """Mount the disk, and each of its folders where it stands on this machine."""
    steps = [f"mkdir -p {CARRIED}", f"mount {BY_ID}project {CARRIED}"]
    for folder in map(str, folders):
        path = shlex.quote(folder)
        steps += [f"mkdir -p {path}", f"mount --bind {shlex.quote(CARRIED + folder)} {path}"]
    dom0.demand("set -e\n" + "\n".join(steps))
    dom0.agent.write("/proof/network", (HOST / "network").read_bytes(), mode=0o755)
    # the snapshot's clock stands where it was taken
    dom0.demand(f"date -s @{time.time():.0f}")
