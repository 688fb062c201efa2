"""The ways to one guest: bookworm, drbd-utils, sshd, DHCP, a 4 GiB ext4 disk; from nothing."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measurement import ROOT, Cost, Costs, call, call_peer, measured
from pipeline.mirror.apt_sources import host_archive, host_security
from pipeline.stages.dib.dib import SHIMS
from pipeline.suites import SUITES

SUITE, GUEST, PACKAGES, SIZE = "bookworm", "test-drbd", ["drbd-utils"], "4G"
PEER, OURS = "xen-create-image", "this pipeline"
# the kernel and the network tool come with our own way to boot
NOT_ASKED_FOR = ("linux-image", "grub", "usrmerge")
ROLE = """#!/bin/sh
set -e
chroot "$1" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {}
"""


@dataclass
class Contender:
    """One way to the guest: `run` works in an empty folder and returns its disk image."""

    name: str
    run: Callable[[Path], Path]
    often: bool = False
    costs: Costs = field(default_factory=Costs)
    size_mib: int = 0
    packages: list[str] = field(default_factory=list)
    kept: Path | None = None
    stages: list[dict[str, float]] = field(default_factory=list)

    def race(self, folder: Path) -> Cost:
        """One round, in an empty folder."""
        with measured() as cost:
            image = self.run(folder)
        self.costs.runs.append(cost)
        self.size_mib = image.stat().st_blocks * 512 >> 20
        self.packages = list_packages(image)
        if self.kept is not None:
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            call(["cp", "--sparse=always", image, self.kept])
        return cost


def list_packages(image: Path) -> list[str]:
    """The names of the packages in an ext4 image."""
    argv = ["debugfs", "-R", "cat /var/lib/dpkg/status", str(image)]
    status = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return re.findall(r"^Package: (\S+)\nStatus: install ok installed$", status, re.MULTILINE)


def run_doit(output: Path, *words: str) -> str:
    """`./doit` as a user types it, with its own output folder."""
    return call([ROOT / "doit", *words], env={"DOMU_OUTPUT": str(output)})


def build_ours(folder: Path, *words: str, stages: list[dict[str, float]] | None = None) -> Path:
    """Ours; the seconds of its stages, as it says them, are added to `stages`."""
    said = run_doit(folder, "build", f"name={GUEST}", *words)
    if stages is not None:
        found = re.findall(r"^  (\w+) +\S+ +built +([\d.]+) s", said, re.MULTILINE)
        stages.append({name: float(seconds) for name, seconds in found})
    image = folder / "guests" / GUEST / "disk.img"
    return image if image.is_file() else image.with_suffix(".qcow2")


def build_xen_tools(folder: Path) -> Path:
    """The classic, with the role that the seed names and a second one for the packages."""
    roles = folder / "roles"
    roles.mkdir(parents=True)
    role = roles / "bench"
    role.write_text(ROLE.format(" ".join(PACKAGES)))
    role.chmod(0o755)
    shutil.copy("/etc/xen-tools/role.d/udev", roles)
    mirror = f"--mirror={host_archive('debian')}"
    target = ["--hostname=bench", f"--dist={SUITE}", mirror, f"--dir={folder}", f"--size={SIZE}"]
    options = ["--swap=512M", "--memory=256M", "--dhcp", "--genpass=0", "--cache=no", "--force"]
    roles_given = [f"--roledir={roles}", "--role=udev,bench", f"--output={folder}"]
    call_peer([PEER, *target, *options, *roles_given])
    return folder / "domains/bench/disk.img"


def build_dib(folder: Path) -> Path:
    """Stock disk-image-create: its own minimal Debian, written as a tar, then mke2fs."""
    for name in ("home", "tmp", "bin"):
        (folder / name).mkdir(parents=True)
    shutil.copy(SHIMS / "sudo", folder / "bin")  # root has none on a bare machine
    programs = Path(sysconfig.get_path("scripts"))
    env = {
        "PATH": f"{folder / 'bin'}:{programs}:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "TMP_DIR": str(folder / "tmp"),
        "DIB_RELEASE": SUITE,
        "DIB_DISTRIBUTION_MIRROR": host_archive("debian"),
        "DIB_DEBIAN_SECURITY_MIRROR": host_security(SUITES[SUITE]),
        "DIB_IMAGE_CACHE": str(folder / "cache"),
    }
    elements = ["debian-minimal", "openssh-server", "-p", ",".join(PACKAGES)]
    program = [programs / "disk-image-create", "-t", "tar", "-o", folder / "image"]
    call_peer([*program, *elements], env=env)
    tree = folder / "tree"
    tree.mkdir()
    call(["tar", "-C", tree, "--numeric-owner", "-xpf", folder / "image.tar"])
    return _make_disk(tree, folder / "disk.img")


def build_floor(folder: Path) -> Path:
    """What is left when a guest is nothing but packages in a file system."""
    folder.mkdir(parents=True)
    tree = folder / "tree"
    wanted = ["systemd-sysv", "udev", "openssh-server", "iproute2", *PACKAGES]
    call_peer(["mmdebstrap", "--variant=minbase", f"--include={','.join(wanted)}", SUITE, tree])
    return _make_disk(tree, folder / "disk.img")


def _make_disk(tree: Path, image: Path) -> Path:
    call(["mke2fs", "-q", "-t", "ext4", "-d", tree, image, SIZE])
    return image


def list_contenders(kept: Path | None = None) -> list[Contender]:
    """All of them; the first two run in every round, the others once."""
    peer = Contender(PEER, build_xen_tools, often=True)
    stages: list[dict[str, float]] = []

    def build_same(folder: Path) -> Path:
        kernel = ["boot=pygrub", "kernel=linux-image-amd64", "documentation=true"]
        names = [name for name in peer.packages if not name.startswith(NOT_ASKED_FOR)]
        return build_ours(folder, *kernel, f"packages={','.join(names)}")

    found = [
        peer,
        Contender(OURS, lambda at: build_ours(at, stages=stages), often=True, stages=stages),
        Contender("disk-image-create debian-minimal", build_dib),
        Contender("mmdebstrap + mke2fs (floor)", build_floor),
        Contender(
            "this pipeline, by mmdebstrap", lambda at: build_ours(at, "bootstrap=mmdebstrap")
        ),
        Contender("this pipeline, all their packages, pygrub", build_same),
    ]
    for number, contender in enumerate(found):
        contender.kept = kept and kept / f"{number}.img"
    return found


def require_peers() -> None:
    """End the program with a word on what is missing."""
    missing = [name for name in (PEER, "mmdebstrap", "mke2fs") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        sys.exit(f"as root, please, with xen-tools and mmdebstrap installed ({', '.join(missing)})")
