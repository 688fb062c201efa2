"""Configurations of others as specs: what is taken, what is said of the rest, what is refused."""

import ctypes
import os
import tomllib
from pathlib import Path

import pytest

from pipeline.errors import Finding, UsageError
from pipeline.foreign.import_elements import ASPECTS, ELEMENTS
from pipeline.foreign.import_file import Imported, import_text, look_at
from pipeline.foreign.import_keys import KEYS, NETWORK_KEYS, XL_ASPECTS, XM_ASPECTS
from pipeline.foreign.import_page import documents
from pipeline.foreign.import_spec import Host, guess_suite
from pipeline.foreign.import_text import kind_of
from pipeline.xen import xl
from pipeline.xen.keys import XL_DEAD_KEYS, XL_KEYS, XL_LATER_KEYS, XM_KEYS, XM_LATER_KEYS
from tests.conftest import ROOT

NOTHING_LOST = "What it says and a spec cannot: nothing"
IN_OPEN = 0x20  # inotify(7)
XEN_TOOLS = """\
bootloader = 'pygrub'
vcpus       = '2'
memory      = '512'
root        = '/dev/xvda2 ro'
disk        = [
                  'phy:/dev/vg0/web1-disk,xvda2,w',
                  'phy:/dev/vg0/web1-swap,xvda1,w',
              ]
name        = 'web1'
vif         = [ 'ip=192.168.1.10,mac=00:16:3E:12:34:56,bridge=xenbr0' ]
on_crash    = 'restart'
"""
ETCH = """\
kernel = '/boot/vmlinuz-2.6.18-6-xen-686'
ramdisk = '/boot/initrd.img-2.6.18-6-xen-686'
memory = '128'
vcpus = 4
root = '/dev/sda1 ro'
disk = ['file:/srv/old/disk.img,sda1,w', 'file:/srv/old/swap.img,sda2,w']
name = 'Old'
ip = '192.168.1.7'
netmask = '255.255.255.0'
gateway = '192.168.1.1'
vif = ['']
extra = '4 console=tty1'
device_model = '/usr/lib/xen-3.0.3-1/bin/qemu-dm'
"""
LIBVIRT = """\
<domain type='xen' id='7'>
  <name>web2</name>
  <title>the second</title>
  <uuid>50fd08d4-94b0-4ae3-9d30-6eb638421c86</uuid>
  <memory unit='KiB'>1048576</memory>
  <currentMemory unit='KiB'>524288</currentMemory>
  <vcpu placement='static' current='1' cpuset='0-3'>2</vcpu>
  <cputune><vcpupin vcpu='0' cpuset='1'/></cputune>
  <os><type arch='x86_64' machine='xenpvh'>xenpvh</type>
    <kernel>/usr/lib/grub-xen/grub-i386-xen_pvh.bin</kernel></os>
  <clock offset='utc'/>
  <on_reboot>restart</on_reboot>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
      <source file='/srv/web2.qcow2'/><target dev='xvda' bus='xen'/><iotune/></disk>
    <disk type='network' device='disk'><source protocol='rbd' name='pool/x'/>
      <target dev='xvdb' bus='xen'/></disk>
    <interface type='bridge'><mac address='00:16:3e:aa:bb:cc'/><source bridge='br0'/>
      <model type='netfront'/></interface>
    <hostdev mode='subsystem' type='pci'/>
    <strange/>
  </devices>
</domain>
"""


def take(guests: Path, text: str, *, suite: str = "", host: Host | None = None) -> Imported:
    source = Path("/etc/xen/given.cfg")
    return import_text(text, source, guests, suite=suite, host=host or Host())


def row(imported: Imported, key: str) -> Finding:
    (found,) = [finding for finding in imported.findings if finding.subject == key]
    return found


def test_a_guest_of_xen_tools_becomes_a_spec_that_says_the_same(guests: Path) -> None:
    host = Host(sizes={"/dev/vg0/web1-disk": 4096, "/dev/vg0/web1-swap": 512}, autostart=True)
    imported = take(guests, XEN_TOOLS, suite="bookworm", host=host)
    path = imported.spec.write()
    assert tomllib.loads(path.read_text()) == {
        "suite": "bookworm",
        "type": "pv",
        "boot": "pygrub",
        "size": "4G",
        "swap": "512M",
        "lvm": "vg0",
        "memory": "512M",
        "vcpus": 2,
        "bridge": "xenbr0",
        "mac": "00:16:3E:12:34:56",
        "on_crash": "restart",
        "autostart": True,
    }
    ip = row(imported, "vif[0] ip")
    assert (ip.level, ip.code) == ("warning", "cannot be said")
    assert 'address = "192.168.1.10/24"' in ip.hint
    assert "vif[0] ip = 192.168.1.10" in path.read_text()


def test_a_guest_of_xend_keeps_its_address_and_its_release_is_guessed(guests: Path) -> None:
    imported = take(guests, ETCH)
    spec = imported.spec.spec
    assert imported.kind == "xm"
    assert (spec.name, spec.suite, spec.arch, spec.type) == ("old", "etch", "i386", "pv")
    assert (spec.address, spec.netmask) == (("192.168.1.7",), "255.255.255.0")
    assert (spec.gateway, spec.cmdline, spec.swap) == ("192.168.1.1", "4", "512M")
    assert "a guess by the name of" in row(imported, "suite").message
    assert row(imported, "kernel").code == "cannot be said"
    assert row(imported, "vcpus").message == "4 -> vcpus = 4"
    assert row(imported, "device_model").code == "not needed"


def test_an_hvm_guest_of_xend_keeps_its_disk_and_card(guests: Path) -> None:
    text = """kernel = 'hvmloader'
builder = 'hvm'
name = 'full'
cpus = ['2', '3']
cpu_cap = 50
vif = [ 'mac=00:16:3e:00:00:11, type=netfront, bridge=br0' ]
disk = [ 'file:/srv/full.img,ioemu:xvda,w', ',hdc:cdrom,r' ]
device_model = 'qemu-dm'
vnc = 1
opengl = 1
"""
    imported = take(guests, text, suite="bookworm")
    spec = imported.spec.spec
    assert (spec.type, spec.boot, spec.bridge, spec.vnc) == ("hvm", "firmware", "br0", True)
    assert spec.cap == 50
    assert imported.domain.disks[0].target == "/srv/full.img"
    outcomes = {finding.subject: finding.code for finding in imported.findings}
    lost = {key for key, code in outcomes.items() if code == "cannot be said"}
    assert lost == {"cpus", "disk[1]", "opengl"}


def test_a_kernel_of_the_host_that_is_there_is_taken(guests: Path, tmp_path: Path) -> None:
    kernel, initrd = tmp_path / "vmlinuz-6.1.0-1", tmp_path / "initrd.img-6.1.0-1"
    text = f'name = "a"\nkernel = "{kernel}"\nramdisk = "{initrd}"\nextra = "quiet ip=dhcp"\n'
    domain = xl.parse(text)
    assert look_at(domain, tmp_path / "a.cfg").files == frozenset()
    kernel.touch()
    initrd.touch()
    host = look_at(domain, tmp_path / "a.cfg")
    imported = take(guests, text, suite="bookworm", host=host)
    spec = imported.spec.spec
    assert (spec.kernel, spec.initrd, spec.cmdline) == (str(kernel), str(initrd), "quiet")
    assert spec.dhcp
    assert imported.spec.remarks == (f"From {imported.source} (xl). {NOTHING_LOST}",)


def test_sizes_are_those_of_the_disks_that_can_be_seen(tmp_path: Path) -> None:
    raw, qcow2 = tmp_path / "disk.img", tmp_path / "disk.qcow2"
    with raw.open("wb") as stream:
        stream.truncate((3 << 30) + 1)
    qcow2.write_bytes(b"QFI\xfb" + bytes(20) + (5 << 30).to_bytes(8, "big") + bytes(72))
    text = f'name = "a"\nkernel = "/k"\ndisk = ["{raw},raw,xvda1", "{qcow2},qcow2,xvda2"]\n'
    auto = tmp_path / "auto"
    auto.mkdir()
    (tmp_path / "a.cfg").write_text(text)
    (auto / "a").symlink_to("../a.cfg")
    host = look_at(xl.parse(text), tmp_path / "a.cfg")
    assert host.sizes == {str(raw): 3073, str(qcow2): 5120}
    assert host.autostart


def test_only_files_and_block_devices_are_opened_for_their_size(tmp_path: Path) -> None:
    """To open another device may be an act: /dev/watchdog restarts the host a minute later."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    libc = ctypes.CDLL(None, use_errno=True)
    with open(libc.inotify_init1(os.O_NONBLOCK), "rb", buffering=0) as events:
        assert libc.inotify_add_watch(events.fileno(), bytes(fifo), IN_OPEN) > 0
        text = (
            f'name = "a"\nkernel = "/k"\ndisk = ["{fifo},raw,xvda1", "/proc/self/mem,raw,xvda2"]\n'
        )
        assert look_at(xl.parse(text), tmp_path / "a.cfg").sizes == {}
        assert events.read(4096) is None
        os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))
        assert events.read(4096) is not None


def test_libvirts_xml_has_an_answer_for_every_element(guests: Path) -> None:
    imported = take(guests, LIBVIRT, suite="trixie")
    spec = imported.spec.spec
    assert (spec.type, spec.boot, spec.format, spec.description) == (
        *("pvh", "grub", "qcow2"),
        "the second",
    )
    assert (spec.memory_mib, spec.maxmem_mib, spec.vcpus, spec.maxvcpus) == (512, 1024, 1, 2)
    outcomes = {finding.subject: finding.code for finding in imported.findings}
    lost = {key for key, code in outcomes.items() if code == "cannot be said"}
    assert lost == {"cputune", "devices/disk[1]", "devices/hostdev", "devices/strange"}
    assert spec.cpus == "0-3"
    assert spec.uuid == "50fd08d4-94b0-4ae3-9d30-6eb638421c86"
    assert outcomes["devices/interface[0]/model"] == "not needed"
    assert outcomes["devices/interface[0]/mac"] == "taken"


def test_no_spec_has_a_build_write_over_the_disks_that_are_there(guests: Path) -> None:
    text = 'name = "a"\nkernel = "/k"\ndisk = ["/dev/sdb1,raw,xvda1", "/dev/sdb2,raw,xvda2"]\n'
    imported = take(guests, text, suite="bookworm")
    spec = imported.spec.spec
    assert not spec.image_dev
    assert not any(part.device for part in spec.parts)
    assert "write over /dev/sdb1" in row(imported, "disk[0]").message
    assert row(imported, "disk[1]").code == "cannot be said"


def test_every_key_of_the_tables_has_its_own_answer() -> None:
    xl_keys = XL_KEYS | set(XL_LATER_KEYS)
    assert not xl_keys - set(KEYS) - set(XL_ASPECTS)
    assert not (XM_KEYS | set(XM_LATER_KEYS)) - set(KEYS) - set(XM_ASPECTS) - set(NETWORK_KEYS)
    known = xl_keys | XM_KEYS | set(XM_LATER_KEYS) | XL_DEAD_KEYS
    assert set(KEYS) | set(XL_ASPECTS) | set(XM_ASPECTS) <= known
    assert not set(ASPECTS) & set(ELEMENTS)


def test_the_page_of_keys_is_made_of_the_tables() -> None:
    for name, text in documents().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, name


def test_what_a_spec_refuses_is_left_out_with_its_reason(guests: Path) -> None:
    text = 'name = "a"\nkernel = "/k"\nmemory = 1\nextra = "a=$HOME"\nvif = ["vifname=x/y"]\n'
    imported = take(guests, text + 'on_reboot = "soft-reset"\n', suite="bookworm")
    codes = {key: row(imported, key).code for key in ("memory", "extra", "vif[0] vifname")}
    assert set(codes.values()) == {"cannot be said"}
    assert "soft-reset" in row(imported, "on_reboot").message
    assert imported.spec.spec.memory == "256M"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kernel = '/k'\nimport os\nname = 'x'\nos.system('id')\n", "line 2: this is program"),
        ("for a in range(3):\n    kernel = '/k'\ndisk = []\n", "line 1: this is program code"),
        ("kernel = '/boot/' + 'vmlinuz'\n", "line 1: this is computed"),
        ("kernel = open('/etc/shadow').read()\n", "line 1: this is computed"),
        ("kernel = " + "[" * 5000, "nested"),
        ("disk = " + "-" * 100_000 + "1", "nested"),
        ("kernel = 'a\0b'\nname = 'x'\n", "line 1: a NUL"),
        ("memory = 512\nname = 'x'\n", "nothing would boot"),
        ("kernel = '/k'\nname = '../../x'\n", "name"),
        ("<domain type='xen'><name>x</name></domain>", "nothing would boot"),
        ("<!DOCTYPE d [<!ENTITY a 'b'>]><domain/>", "document type"),
        ("<?xml version='1.0'?>\n<!DOCTYPE d SYSTEM '/etc/passwd'><domain/>", "document type"),
        ("<domain>&a;</domain>", "not XML"),
        ("<network><name>x</name></network>", "<network> where <domain>"),
        ("<domain><name>x</name>" + "<a>" * 50_000 + "</a>" * 50_000 + "</domain>", ""),
        ("<domain type='kvm'><name>x</name></domain>", "kvm"),
    ],
)
def test_what_is_hostile_or_no_guest_is_refused_with_its_line(
    guests: Path, text: str, said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        take(guests, text)
    assert said in refused.value.brief
    assert refused.value.brief.startswith("/etc/xen/given.cfg: ")
    assert len(refused.value.brief) < 400
    assert not list(guests.iterdir())


def test_a_spec_that_is_there_is_not_written_over(guests: Path) -> None:
    (guests / "web1.toml").write_text('suite = "bookworm"\n')
    with pytest.raises(UsageError) as refused:
        take(guests, XEN_TOOLS)
    assert "replace=yes" in refused.value.hint
    assert (guests / "web1.toml").read_text() == 'suite = "bookworm"\n'


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (XEN_TOOLS, "xl"),
        (ETCH, "xm"),
        (LIBVIRT, "libvirt"),
        ("size = 4G\nmemory = 256M\ndist = bookworm\n", "xen-tools"),
        ("[root]\nsize=1G\ntype=ext3\n", "partitions"),
        ('vif.default.script="vif-bridge"\n', "none"),
        ("", "none"),
    ],
)
def test_the_kind_is_told_by_the_content(text: str, kind: str) -> None:
    assert kind_of(text) == kind


def test_the_release_is_guessed_by_the_kernels_name() -> None:
    names = {
        "/boot/vmlinuz-6.1.0-26-amd64": "bookworm",
        "/boot/vmlinuz-6.12.48+deb13-amd64": "trixie",
        "/boot/vmlinuz-5.15.0-91-generic": "jammy",
        "/boot/vmlinuz-2.6.26-2-xen-686": "lenny",
        "/boot/vmlinuz": "",
        "/boot/vmlinuz-7.9.1": "",
    }
    assert {name: guess_suite(name) for name in names} == names


def test_a_disk_of_drbd_below_a_guest_is_read_and_not_written_over(guests: Path) -> None:
    text = 'name="web5"\nkernel="/k"\nmemory=64\n'
    text += 'disk=["drbd:web5,xvda1,w","script=block-drbd,vdev=xvda2,target=web5-swap"]\n'
    imported = take(guests, text, suite="bookworm")
    root, swap = row(imported, "disk[0]"), row(imported, "disk[1]")
    assert "/dev/drbd/by-res/web5/0" in root.text and "image_dev" in root.hint
    assert "swap" in swap.text
