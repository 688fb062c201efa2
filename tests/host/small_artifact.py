"""An artifact folder as the stage config leaves one, with a real but small ext4 disk."""

import json
import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifact.sums import write_sums
from pipeline.guest.domains import domain_of
from pipeline.project import Project
from pipeline.proof.readiness import read_built_spec
from pipeline.recipe import DISKS
from pipeline.spec import Spec
from pipeline.spec.domain import FIRMWARE_FILE
from pipeline.storage.images import identity_uuid
from pipeline.xen.render import render_xl, render_xm
from tests import whole_disk

DISK_MIB = 32
ABIS = ("6.1.0-1-test", "6.1.0-2-test", "6.1.0-3-test")


@dataclass(frozen=True)
class SmallKernel:
    """A folder like one of output/store/kernel/."""

    folder: Path
    abi: str


def make_kernel(folder: Path, abi: str, *, flavour: str = "") -> SmallKernel:
    """Kernel, ramdisk and an archive of two modules; `flavour` gives other bytes for one ABI."""
    folder.mkdir(exist_ok=True)
    modules = folder / "tree/lib/modules" / abi
    (modules / "kernel/net").mkdir(parents=True)
    (modules / "modules.dep").write_text(f"kernel/net/one.ko: {flavour}\n")
    (modules / "kernel/net/one.ko").write_bytes(f"module {abi} {flavour}".encode() * 99)
    subprocess.run(
        ["tar", "-C", folder / "tree", "-cf", folder / "modules.tar", f"lib/modules/{abi}"],
        check=True,
    )
    subprocess.run(["rm", "-r", folder / "tree"], check=True)
    (folder / "vmlinuz").write_bytes(f"kernel {abi} {flavour}".encode())
    (folder / "initrd.img").write_bytes(f"ramdisk {abi} {flavour}".encode())
    (folder / "kernel.json").write_text(json.dumps({"abi": abi}))
    return SmallKernel(folder, abi)


def make_artifact(
    folder: Path, name: str, *, kernel: SmallKernel, generation: str = "one", **keys: object
) -> Path:
    """output/guests/NAME, with modules of its kernel in a disk of DISK_MIB."""
    sizes = {"size": "1G", "swap": "64M"}
    spec = Spec.model_validate({"name": name, "suite": "bookworm", "type": "pv", **sizes, **keys})
    tree = folder / "tree"
    for place in ("etc", "usr/lib/modules", "root"):
        (tree / place).mkdir(parents=True)
    (tree / "lib").symlink_to("usr/lib")
    (tree / "etc/hostname").write_text(f"{name} {generation}\n")
    subprocess.run(["tar", "-C", tree / "usr", "-xf", kernel.folder / "modules.tar"], check=True)
    make = ["mke2fs", "-q", "-F", "-t", spec.fs, "-b", "4096", "-d", str(tree)]
    root = folder / ("root.part" if spec.is_whole else "disk.img")
    subprocess.run([*make, root, f"{DISK_MIB}M"], check=True)
    subprocess.run(["rm", "-r", tree], check=True)
    if spec.is_whole:
        whole_disk.lay(root, folder / "disk.img")
    else:
        with open(folder / "swap.img", "wb") as stream:
            stream.truncate(4 << 20)
    for part in spec.parts:
        if part.is_shared and part.owner == name:
            with open(folder / f"disk-{part.name}.img", "wb") as stream:
                stream.truncate(part.size_mib << 20)
    files = () if spec.is_kernel_inside else ("vmlinuz", "initrd.img", "kernel.json")
    for file in files:
        (folder / file).write_bytes((kernel.folder / file).read_bytes())
    if spec.is_kernel_inside:
        (folder / "kernel.json").write_text('{"inside": true}\n')
    if spec.is_uefi:
        (folder / FIRMWARE_FILE).write_bytes(b"UEFI " + generation.encode())
    project = Project(folder, folder.parent.parent, folder)
    domain = domain_of(spec, project)
    (folder / f"{name}.cfg").write_text(render_xl(domain))
    if spec.type == "pv" and not spec.is_kernel_inside:
        (folder / f"{name}.xm").write_text(render_xm(domain))
    else:
        (folder / f"{name}.xm.unsupported").write_text("xend never had it\n")
    (folder / "manifest").write_text("hello 2.10-3 amd64\n")
    (folder / "spec.json").write_text(json.dumps(spec.as_json()))
    write_sums(folder, disks=DISKS)
    return folder


def modules_in(disk: Path) -> dict[str, str]:
    """Every entry of /lib/modules in a disk, hidden ones too, with the modules.dep in it."""
    text = _debugfs(disk, "ls -p /usr/lib/modules")
    names = [line.split("/")[5] for line in text.splitlines() if line.count("/") > 5]
    return {
        name: _debugfs(disk, f"cat /usr/lib/modules/{name}/modules.dep")
        for name in names
        if name not in (".", "..")
    }


def hostname_in(disk: Path) -> str:
    """What /etc/hostname in a disk says."""
    return _debugfs(disk, "cat /etc/hostname").strip()


def is_clean(disk: Path) -> bool:
    """Whether e2fsck finds nothing to do."""
    words = ["e2fsck", "-f", "-n", whole_disk.name_of(disk)]
    done = subprocess.run(words, capture_output=True, check=False)
    return done.returncode == 0


def _debugfs(disk: Path, request: str) -> str:
    done = subprocess.run(
        ["debugfs", "-R", request, whole_disk.name_of(disk)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def put_in_partition(folder: Path, tree: Path) -> None:
    """Make the artifact's disks one disk with a table, the root file system in a partition."""
    spec = read_built_spec(folder, folder.name)
    root = next(part for part in spec.parts if part.is_root)
    for name, text in (("etc/fstab", "/dev/xvda1 / ext4 defaults 0 1\n"), ("etc/os-release", "")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/tool").write_bytes(os.urandom(3 << 20))
    (tree / "bin").symlink_to("usr/bin")
    disk, part = folder / "disk.img", folder.parent / "part.img"
    make = ["mke2fs", "-q", "-F", "-t", "ext4", "-U", identity_uuid(spec, root), "-d", str(tree)]
    subprocess.run([*make, part, "38M"], check=True)
    with open(disk, "wb") as stream:
        entry = struct.pack("<B3xB3xII", 0x80, 0x83, 2048, 38 * 2048)
        stream.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")
        stream.truncate(40 << 20)
    write = ["dd", f"if={part}", f"of={disk}", "bs=1M", "seek=1", "conv=notrunc,sparse"]
    subprocess.run(write, check=True, capture_output=True)
    part.unlink()
    config = folder / f"{folder.name}.cfg"
    lines = config.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if "swap.img" not in line) + "\n")
    (folder / "swap.img").unlink()
    write_sums(folder, disks=DISKS)
