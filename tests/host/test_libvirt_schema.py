"""libvirt's own schema judges the XML that we render."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.xen.boot import Boot, Direct, Firmware, Grub, Pygrub
from pipeline.xen.devices import Card, Disk, Framebuffer
from pipeline.xen.domain import Domain
from pipeline.xen.render import render_libvirt

pytestmark = pytest.mark.integration

GRUB = "/usr/lib/grub-xen/grub-x86_64-xen.bin"
PVH_GRUB = "/usr/lib/grub-xen/grub-i386-xen_pvh.bin"
DIRECT = Direct("/boot/vmlinuz", "/boot/initrd.img", "/dev/xvda1", 'ro console=hvc0 a="<&>"')


@pytest.mark.parametrize("framebuffer", [None, Framebuffer(), Framebuffer(vncdisplay=2)])
@pytest.mark.parametrize(
    ("kind", "boot"),
    [
        ("pv", DIRECT),
        ("pv", Pygrub("/usr/lib/xen-4.17/bin/pygrub", ("-q",))),
        ("pv", Grub(GRUB)),
        ("pvh", DIRECT),
        ("pvh", Pygrub()),
        ("pvh", Grub(PVH_GRUB)),
        ("hvm", Firmware("bios", "dc")),
        ("hvm", Firmware("uefi", "n")),
    ],
)
def test_the_schema_of_libvirt_accepts_every_way_to_boot(
    tmp_path: Path, kind: str, boot: Boot, framebuffer: Framebuffer | None
) -> None:
    if shutil.which("virt-xml-validate") is None or shutil.which("xmllint") is None:
        pytest.skip("needs virt-xml-validate (libvirt-clients) and xmllint (libxml2-utils)")
    domain = Domain(
        name="test-drbd",
        type=kind,
        uuid="50fd08d4-94b0-4ae3-9d30-6eb638421c86",
        memory_mib=256,
        maxmem_mib=512,
        vcpus=1,
        maxvcpus=2,
        cpus="0-3,^1",
        boot=boot,
        disks=(
            Disk(target="/srv/a b&'<\".img", vdev="xvda1"),
            Disk(target="/dev/VG0/swap", vdev="xvda2", access="ro"),
            Disk(target="/srv/d.qcow2", vdev="xvdb", format="qcow2"),
            Disk(target="/srv/d.vhd", vdev="xvdc", format="vhd"),
            Disk(target="/srv/q.img", vdev="xvdd", access="shared"),
            Disk(target="", vdev="hdc", access="ro", devtype="cdrom"),
            Disk(target="/srv/a b.iso", vdev="hdd", access="ro", devtype="cdrom"),
        ),
        cards=(
            Card(mac="00:16:3e:59:2a:ed", bridge="br-xen", vifname="drbd0", rate_kbytes_s=500),
            Card(bridge="br0", ip="192.0.2.1", model="e1000" if kind == "hvm" else None),
        ),
        framebuffer=framebuffer,
        on_crash="coredump-destroy",
    )
    file = tmp_path / "guest.xml"
    file.write_text(render_libvirt(domain), encoding="utf-8")
    done = subprocess.run(
        ["virt-xml-validate", str(file), "domain"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr + file.read_text()
