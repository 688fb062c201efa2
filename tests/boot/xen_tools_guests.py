"""Guests of the real xen-create-image, made once a session (or kept by DOMU_TEST_WORKSHOP).

One run of debootstrap serves all: each is installed from its tar. A guest with dom0's kernel takes
distributions.conf without the word pygrub, which --nopygrub does not overrule (xen-tools #67).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.mirror.apt_sources import host_archive
from tests.conftest import require

SUITE = "bookworm"
_SETTINGS = Path("/etc/xen-tools/distributions.conf")
_PARTS = """[root]
size={root}M
type=ext4
mountpoint=/
options=errors=remount-ro

[swap]
size=64M
type=swap

[{other}]
size={rest}M
type=ext4
mountpoint=/{other}
options=nodev

[home]
size=64M
type=ext3
mountpoint=/home
options=nodev,nosuid
"""
_PLAIN = ["--size=1500M", "--swap=64M"]
KINDS = ("pygrub", "direct", "pygrub-parts", "direct-parts")


@dataclass(frozen=True)
class XenToolsGuest:
    """Where xen-create-image has left it."""

    folder: Path
    name: str

    @property
    def config(self) -> Path:
        return self.folder / f"{self.name}.cfg"

    @property
    def disks(self) -> list[Path]:
        return sorted((self.folder / "domains" / self.name).iterdir())

    @property
    def root(self) -> Path:
        return next(disk for disk in self.disks if disk.stem in ("disk", "root"))

    def copied(self, target: Path) -> XenToolsGuest:
        """The same somewhere else, its configuration with it."""
        subprocess.run(["cp", "-a", "--sparse=always", self.folder, target], check=True)
        copy = XenToolsGuest(target, self.name)
        copy.config.write_text(self.config.read_text().replace(f"{self.folder}/", f"{target}/"))
        return copy


def make_guest(home: Path, kind: str) -> XenToolsGuest:
    """One of KINDS below `home`, made where it is not there yet."""
    require(shutil.which("xen-create-image") is not None, "xen-tools is not installed")
    require(os.geteuid() == 0, "xen-create-image wants root")
    home.mkdir(exist_ok=True)
    name = f"old-{kind}"
    guest = XenToolsGuest(home / name, name)
    if guest.config.is_file():
        return guest
    subprocess.run(["rm", "-rf", guest.folder], check=True)
    guest.folder.mkdir()
    tar = _make_base(home)
    words = ["xen-create-image", f"--hostname={name}", f"--dist={SUITE}", "--dhcp", "--genpass=0"]
    words += [f"--mirror={host_archive('debian')}", "--memory=512M", "--role=udev", "--cache=no"]
    words += [f"--dir={guest.folder}", f"--output={guest.folder}", "--bridge=br-xen"]
    words += [f"--mac=00:16:3E:AA:00:0{KINDS.index(kind)}"]
    words += ["--install-method=tar", f"--install-source={tar}", *_disk_options(home, kind)]
    steps = []
    if kind.startswith("direct"):
        kernel, initrd, modules = _kernel_of_dom0(home)
        words += [f"--kernel={kernel}", f"--initrd={initrd}", f"--modules={modules}"]
        settings = home / "distributions.conf"
        text = re.sub(rf"(?m)^({SUITE}\s*=\s*debian) pygrub", r"\1", _SETTINGS.read_text())
        settings.write_text(text)
        steps = [["mount", "--bind", str(settings), str(_SETTINGS)]]
    _run_alone([*steps, words])
    assert guest.config.is_file()
    _wait_for_its_disks(guest)
    if not kind.startswith("direct"):
        _demand_a_kernel(guest)
    return guest


def _wait_for_its_disks(guest: XenToolsGuest) -> None:
    """Mounts end with their namespace, but a little later than its last process."""
    end = time.monotonic() + 60
    while any(subprocess.check_output(["losetup", "--associated", disk]) for disk in guest.disks):
        assert time.monotonic() < end, f"{guest.name}: its disks are still mounted somewhere"
        time.sleep(0.1)


def _demand_a_kernel(guest: XenToolsGuest) -> None:
    """xen-create-image goes on where apt failed in the guest: its log says why there is none."""
    if not _files_of_boot(guest.root, "vmlinuz-"):
        log = Path("/var/log/xen-tools", f"{guest.name}.log").read_text(errors="replace")
        subprocess.run(["rm", "-rf", guest.folder], check=True)
        raise AssertionError(f"{guest.name} has no kernel: {log[-6000:]}")


def _files_of_boot(disk: Path, start: str) -> list[str]:
    listed = subprocess.check_output(["debugfs", "-R", "ls -p /boot", disk], text=True)
    names = [line.split("/")[5] for line in listed.splitlines() if line.count("/") > 5]
    return [name for name in names if name.startswith(start)]


def _run_alone(commands: Sequence[Sequence[str]]) -> None:
    """In mount and PID namespaces that end with it."""
    script = " && ".join(map(shlex.join, commands))
    words = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def _make_base(home: Path) -> Path:
    """What xen-create-image would have debootstrap make, for all of them."""
    tar = home / "base.tar"
    if not tar.is_file():
        tree = str(home / "tree")
        pack = ["tar", "-C", tree, "--numeric-owner", "-cf", f"{tar}.new", "."]
        remove = ["rm", "-rf", "--one-file-system", tree]
        _run_alone([["debootstrap", SUITE, tree, host_archive("debian")], pack, remove])
        Path(f"{tar}.new").rename(tar)
    return tar


def _disk_options(home: Path, kind: str) -> list[str]:
    """The issue's hardest case has /usr in a file system of its own."""
    if not kind.endswith("parts"):
        return _PLAIN
    other, root, rest = ("usr", 700, 1200) if kind.startswith("direct") else ("var", 1500, 700)
    path = home / f"{kind}.conf"
    path.write_text(_PARTS.format(other=other, root=root, rest=rest))
    return [f"--partitions={path}"]


def _kernel_of_dom0(home: Path) -> tuple[Path, Path, Path]:
    """Kernel, initrd and modules as a dom0 has them: those of the guest with its own kernel."""
    folder = home / "dom0"
    if not folder.is_dir():
        disk = make_guest(home, "pygrub").root
        new = home / "dom0.new"
        subprocess.run(["rm", "-rf", new], check=True)
        new.mkdir()
        for source in ("/boot", "/usr/lib/modules"):
            words = ["debugfs", "-R", f"rdump {source} {new}", str(disk)]
            subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
        new.rename(folder)
    (kernel,) = (folder / "boot").glob("vmlinuz-*")
    (initrd,) = (folder / "boot").glob("initrd.img-*")
    (modules,) = (folder / "modules").iterdir()
    return kernel, initrd, modules
