"""Small PV guests as xen-create-image leaves them: ext4 in a file, a configuration of its form."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit.test_kernel_image import make_bzimage, make_elf, xz

NAME = "old1"
ABI = "6.1.0-56-amd64"
DISK_MIB = 32
_PVH_NOTE = 18
PROGRAM = b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e\x00" + bytes(40)
FILES: Mapping[str, str | bytes] = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/hostname": f"{NAME}\n",
    "etc/fstab": "/dev/xvda1 none swap sw 0 0\n/dev/xvda2 / ext4 noatime 0 1\n",
    "etc/network/interfaces": "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n",
    "usr/lib/systemd/systemd": PROGRAM,
    "usr/sbin/init": "-> /lib/systemd/systemd",
    "lib": "-> usr/lib",
    "sbin": "-> usr/sbin",
    "boot/grub/menu.lst": f"title x\nkernel /boot/vmlinuz-{ABI} root=/dev/xvda2 ro\n",
    f"usr/lib/modules/{ABI}/modules.builtin": "kernel/drivers/block/xen-blkfront.ko\n",
    "etc/kernel/postinst.d/initramfs-tools": "#!/bin/sh\n",
    "srv/data": "what the guest is there for\n",
}
PYGRUB = """#
# by xen-tools 4.9.2
#
bootloader = 'pygrub'
vcpus       = '1'
memory      = '512'

root        = '/dev/xvda2 ro'
disk        = [
                  'file:{folder}/disk.img,xvda2,w',
                  'file:{folder}/swap.img,xvda1,w',
              ]
name        = 'old1'   # its name
dhcp        = 'dhcp'
vif         = [ 'mac=00:16:3E:00:00:01,bridge=br-xen' ]
on_crash    = 'restart'
"""
DIRECT = """kernel = '{folder}/vmlinuz'
extra = 'elevator=noop'
name = 'old1'
memory = '512'
root = '/dev/sda2 ro'
disk = [ 'phy:{folder}/disk.img,sda2,w', 'file:{folder}/swap.img,sda1,w' ]
"""


@dataclass
class OldGuest:
    """A guest's disks in a folder, its configuration in a host's /etc/xen below `root`."""

    folder: Path
    root: Path
    more: Mapping[str, str | bytes | None] = field(default_factory=dict)

    def make(self, configuration: str = PYGRUB) -> None:
        """Everything, anew."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "vmlinuz").write_bytes(make_kernel())
        make_disk(self.folder, self.more)
        with open(self.folder / "swap.img", "wb") as stream:
            stream.truncate(4 << 20)
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text(configuration.replace("{folder}", str(self.folder)))
        self.config.chmod(0o640)

    @property
    def config(self) -> Path:
        return self.root / "etc/xen" / f"{NAME}.cfg"

    @property
    def disk(self) -> Path:
        return self.folder / "disk.img"

    @property
    def new_disk(self) -> Path:
        return self.root / "var/lib/xen/images" / NAME / "2/xvda2.img"


def make_kernel(*, pvh: bool = True) -> bytes:
    """A bzImage with the note that PVH wants, or without."""
    return make_bzimage(xz(make_elf([(_PVH_NOTE if pvh else 0, b"\1\0\0\0")])) + b"size")


def make_disk(folder: Path, more: Mapping[str, str | bytes | None]) -> None:
    """disk.img; None in `more` takes a file away, "-> x" is a link."""
    tree = folder / "tree"
    files: dict[str, str | bytes | None] = {**FILES, f"boot/vmlinuz-{ABI}": make_kernel(), **more}
    for name, content in files.items():
        place = tree / name
        if content is None:
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str) and content.startswith("-> "):
            place.symlink_to(content.removeprefix("-> "))
        else:
            place.write_bytes(content if isinstance(content, bytes) else content.encode())
    make = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", str(tree)]
    (folder / "disk.img").unlink(missing_ok=True)
    subprocess.run([*make, folder / "disk.img", f"{DISK_MIB}M"], check=True)
    subprocess.run(["rm", "-rf", tree], check=True)


def files_in(disk: Path, work: Path) -> dict[str, bytes | str]:
    """Every file and link of a file system, with its content."""
    work.mkdir()
    subprocess.run(
        ["debugfs", "-R", f"rdump / {work}", disk], check=True, stderr=subprocess.DEVNULL
    )
    found: dict[str, bytes | str] = {}
    for path in sorted(work.rglob("*")):
        name = str(path.relative_to(work))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
    subprocess.run(["rm", "-rf", work], check=True)
    return found
