"""A disk as KVM has it: MBR, GRUB for BIOS, vda in fstab, ens3, an initrd with virtio alone."""

import re
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.namespace import isolated
from pipeline.process import run

MIB = 1 << 20
# /boot, /, swap: start and size
LAYOUT = ((1, 160), (161, 1200), (1361, 64))
_MODULES = "biosdisk part_msdos ext2 normal linux search configfile serial terminal minicmd ls echo"
PACKAGES = (
    *("systemd-sysv", "udev", "linux-image-amd64", "initramfs-tools", "busybox", "zstd"),
    *("grub-pc-bin", "ifupdown", "isc-dhcp-client", "openssh-server", "iproute2", "netbase"),
)
FILES = {
    "etc/hostname": "kvm1\n",
    "etc/fstab": "/dev/vda2 / ext4 errors=remount-ro 0 1\n/dev/vda1 /boot ext4 defaults 0 2\n"
    "/dev/vda3 none swap sw 0 0\n",
    "etc/network/interfaces": "auto lo\niface lo inet loopback\n\n"
    "allow-hotplug ens3\niface ens3 inet dhcp\n",
    "etc/initramfs-tools/initramfs.conf": "MODULES=list\nBUSYBOX=auto\nCOMPRESS=zstd\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
    "etc/default/grub": 'GRUB_CMDLINE_LINUX="console=ttyS0"\n',
}
_MENU = """set default=0
set timeout=0
serial --unit=0 --speed=115200
terminal_output serial

menuentry 'Debian GNU/Linux' {{
    search --no-floppy --label --set=root kvmboot
    linux /vmlinuz-{abi} root=/dev/vda2 ro console=ttyS0,115200
    initrd /initrd.img-{abi}
}}
"""


def make_tree(tree: Path, mirror: str) -> Path:
    """A bookworm by mmdebstrap, with its own kernel and an initrd that has virtio alone."""
    words = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    for name, text in FILES.items():
        if name.startswith("etc/initramfs-tools"):  # before the kernel comes
            put = f'mkdir -p "$1/etc/initramfs-tools"; printf %s {_quote(text)} >"$1/{name}"'
            words.append(f"--extract-hook={put}")
    words.append("--dpkgopt=force-confold")
    run([*words, "bookworm", tree, mirror])
    for name, text in FILES.items():
        (tree / name).write_text(text)
    (abi,) = (path.name for path in (tree / "lib/modules").iterdir())
    (tree / "boot/grub").mkdir(exist_ok=True)
    (tree / "boot/grub/grub.cfg").write_text(_MENU.format(abi=abi))
    return tree


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def make_disk(tree: Path, disk: Path, work: Path) -> Path:
    """The tree on it, in two file systems, and GRUB in front of them."""
    run(["truncate", "-s", f"{sum(LAYOUT[-1]) + 1}M", disk])
    loader = tree / "usr/lib/grub/i386-pc"
    first = work / "first.cfg"
    first.write_text("search --no-floppy --label --set=root kvmboot\nset prefix=($root)/grub\n")
    core = work / "core.img"
    make = ["grub-mkimage", "-O", "i386-pc", "-d", loader, "-p", "/grub", "-c", first, "-o", core]
    run([*make, *_MODULES.split()])
    sector = bytearray((loader / "boot.img").read_bytes()[:512])
    put_table(sector)
    with open(disk, "r+b") as stream:
        stream.write(sector)
        stream.write(core.read_bytes())
        assert stream.tell() < MIB
    boot, rest = work / "boot", work / "rest"
    run(["mv", tree / "boot", boot])
    (tree / "boot").mkdir()
    mkfs: list[object] = ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0"]
    run([*mkfs, "-L", "kvmboot", "-d", boot, work / "1.img", f"{LAYOUT[0][1]}M"])
    run([*mkfs, "-d", tree, work / "2.img", f"{LAYOUT[1][1]}M"])
    run(["truncate", "-s", f"{LAYOUT[2][1]}M", work / "3.img"])
    run(["mkswap", "-q", work / "3.img"])
    for number, (start, _) in enumerate(LAYOUT, 1):
        image = work / f"{number}.img"
        run(["dd", f"if={image}", f"of={disk}", "bs=1M", f"seek={start}", "conv=notrunc,sparse"])
        image.unlink()
    run(["rm", "-rf", "--", boot, rest])
    return disk


def put_table(sector: bytearray) -> None:
    """The partitions of LAYOUT, and the mark of an MBR."""
    sector[440:444] = b"KVM1"
    for place, (start, size) in enumerate(LAYOUT):
        kind = 0x82 if place == 2 else 0x83
        sector[446 + 16 * place] = 0x80 if place == 0 else 0
        struct.pack_into("<3xB3xII", sector, 447 + 16 * place, kind, start * 2048, size * 2048)
    sector[510:] = b"\x55\xaa"


def boot_in_qemu(disk: Path, console: Path, *, patience_s: float = 600) -> str:
    """What its console shows until it asks for a login, in plain QEMU; the disk stays as it is."""
    words: Sequence[object] = [
        *("qemu-system-x86_64", "-m", "512", "-display", "none", "-no-reboot"),
        *("-serial", f"file:{console}", "-drive", f"file={disk},format=raw,if=virtio,snapshot=on"),
        *("-nic", "user,model=virtio-net-pci"),
    ]
    console.touch()
    machine = subprocess.Popen([str(word) for word in isolated(words)])
    try:
        end = time.monotonic() + patience_s
        while time.monotonic() < end and machine.poll() is None:
            shown = console.read_text(errors="replace")
            if re.search(r"login: *$", shown, re.MULTILINE):
                return shown
            time.sleep(1)
    finally:
        machine.kill()
        machine.wait()
    raise AssertionError(console.read_text(errors="replace")[-3000:])
