"""A cold build of the same guest, ours and the peers', in turn in one run: medians and ratios."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.picture import draw_bars  # noqa: E402
from pipeline.archive.sources import host_archive  # noqa: E402

SUITE = "bookworm"
PACKAGES = ["drbd-utils"]
PAGE = ROOT / "docs" / "performance.md"
MARK = "<!-- table of benchmarks/cold_build.py -->"
# the kernel and the network tool come with our own way to boot
NOT_ASKED_FOR = ("linux-image", "grub", "usrmerge")
ROLE = """#!/bin/sh
set -e
chroot "$1" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {}
"""


@dataclass
class Contender:
    """One way to the same guest: `run` works in an empty folder and returns its disk image."""

    name: str
    run: Callable[[Path], Path]
    seconds: list[float] = field(default_factory=list)
    size_mib: int = 0
    packages: list[str] = field(default_factory=list)

    def race(self, folder: Path) -> None:
        """One round."""
        started = time.monotonic()
        image = self.run(folder)
        self.seconds.append(time.monotonic() - started)
        self.size_mib = image.stat().st_blocks * 512 >> 20
        self.packages = list_packages(image)

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


def call(argv: list[str], *, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{argv[0]} failed:\n{done.stdout[-3000:]}")


def list_packages(image: Path) -> list[str]:
    argv = ["debugfs", "-R", "cat /var/lib/dpkg/status", str(image)]
    status = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return re.findall(r"^Package: (\S+)\nStatus: install ok installed$", status, re.MULTILINE)


def build_ours(folder: Path, *words: str) -> Path:
    env = {"DOMU_OUTPUT": str(folder)}
    call([str(ROOT / "doit"), "build", "name=test-drbd", *words], env=env)
    image = folder / "guests/test-drbd/disk.img"
    return image if image.is_file() else image.with_suffix(".qcow2")


def build_xen_tools(folder: Path) -> Path:
    roles = folder / "roles"
    roles.mkdir(parents=True)
    role = roles / "bench"
    role.write_text(ROLE.format(" ".join(PACKAGES)))
    role.chmod(0o755)
    shutil.copy("/etc/xen-tools/role.d/udev", roles)
    mirror = f"--mirror={host_archive('debian')}"
    target = ["--hostname=bench", f"--dist={SUITE}", mirror, f"--dir={folder}", "--size=4G"]
    options = ["--swap=512M", "--memory=256M", "--dhcp", "--genpass=0", "--cache=no", "--force"]
    roles_given = [f"--roledir={roles}", "--role=udev,bench", f"--output={folder}"]
    call(["xen-create-image", *target, *options, *roles_given])
    return folder / "domains/bench/disk.img"


def build_floor(folder: Path) -> Path:
    folder.mkdir(parents=True)
    tree, image = folder / "tree", folder / "disk.img"
    wanted = ["systemd-sysv", "udev", "openssh-server", "iproute2", *PACKAGES]
    call(["mmdebstrap", "--variant=minbase", f"--include={','.join(wanted)}", SUITE, str(tree)])
    call(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(image), "4G"])
    return image


def run_rounds(contenders: list[Contender], rounds: int) -> None:
    for number in range(rounds):
        first = number % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            with tempfile.TemporaryDirectory(prefix="bench-") as name:
                contender.race(Path(name) / "work")
            print(
                f"round {number + 1}: {contender.name:<28} {contender.seconds[-1]:7.1f} s",
                flush=True,
            )


def run_warm(rounds: int) -> list[tuple[str, float]]:
    """Whole processes: nothing to do, and another guest from the same golden image."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name) / "work"
        build_ours(folder)
        idle, other, clone, listed = [], [], [], []
        for number in range(rounds):
            started = time.monotonic()
            build_ours(folder)
            idle.append(time.monotonic() - started)
            started = time.monotonic()
            build_ours(folder, f"hostname=other{number}")
            other.append(time.monotonic() - started)
            started = time.monotonic()
            build_ours(folder, f"hostname=clone{number}", "clone=cow")
            clone.append(time.monotonic() - started)
            started = time.monotonic()
            call([str(ROOT / "doit"), "list"], env={"DOMU_OUTPUT": str(folder)})
            listed.append(time.monotonic() - started)
            build_ours(folder)
    return [
        ("nothing to do", statistics.median(idle)),
        ("`doit list`", statistics.median(listed)),
        ("another guest, same golden image", statistics.median(other)),
        ("the same, copy-on-write", statistics.median(clone)),
    ]


def render(contenders: list[Contender], warm: list[tuple[str, float]], rounds: int) -> str:
    base = next(found for found in contenders if found.name == "xen-create-image").median
    lines = [
        f"Medians of {rounds} rounds, run in turn; {SUITE}, 4G, DHCP, {', '.join(PACKAGES)}.\n",
        "| cold build | median | ratio | image on disk | packages |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {found.name} | {found.median:.1f} s | {found.median / base:.2f} "
        f"| {found.size_mib} MiB | {len(found.packages)} |"
        for found in contenders
    ]
    lines += ["\n| warm, whole process | median | ratio |", "|---|---|---|"]
    lines += [f"| {name} | {seconds:.2f} s | {seconds / base:.4f} |" for name, seconds in warm]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line, run, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--write", action="store_true", help="put the table into docs/performance.md"
    )
    options = parser.parse_args()
    if shutil.which("xen-create-image") is None or os.geteuid() != 0:
        raise SystemExit("as root, please: apt-get install --no-install-recommends xen-tools")
    peer = Contender("xen-create-image", build_xen_tools)

    def build_same(folder: Path) -> Path:
        kernel = ["boot=pygrub", "kernel=linux-image-amd64"]
        names = [name for name in peer.packages if not name.startswith(NOT_ASKED_FOR)]
        return build_ours(folder, *kernel, f"packages={','.join(names)}")

    contenders = [
        peer,
        Contender("this pipeline", build_ours),
        Contender("this pipeline, mmdebstrap", lambda at: build_ours(at, "bootstrap=mmdebstrap")),
        Contender("this pipeline, all their packages, pygrub", build_same),
        Contender("mmdebstrap + mke2fs (floor)", build_floor),
    ]
    run_rounds(contenders, options.rounds)
    table = render(contenders, run_warm(options.rounds), options.rounds)
    print(table)
    if options.write:
        head = PAGE.read_text().partition(MARK)[0]
        PAGE.write_text(f"{head}{MARK}\n\n![medians of a cold build](performance.svg)\n\n{table}")
        medians = {found.name: found.median for found in contenders}
        title = f"Cold build of the same guest, median of {options.rounds} rounds"
        PAGE.with_suffix(".svg").write_text(draw_bars(medians, title=title))


if __name__ == "__main__":
    main()
