"""An old guest's configuration as a PVH guest's: what changes, and that nothing else does."""

from pathlib import Path

import pytest

from pipeline.dom0.configuration import moved_domain, with_keys
from pipeline.errors import UsageError, VerificationError
from pipeline.foreign.modern_configuration import modern_domain, render_text, show_difference
from pipeline.foreign.old_disks import OldDisk
from pipeline.foreign.old_guest import (
    GRAMMAR,
    OldGuest,
    find_configuration_trouble,
    node_of,
    read_old_guest,
)
from pipeline.xen.boot import Direct

PYGRUB = """# Ärger mit Umlauten
bootloader = '/usr/lib/xen-4.17/bin/pygrub'
bootloader_args = [ '--kernel=x' ]
vcpus = '2'; memory = 512
root = '/dev/sda2 ro'
disk = [ 'phy:VG0/web1-disk,sda2,w',
         'file:/srv/swap.img,sda1,w' ]  # two of them
name = "web1"
vif = [ 'mac=00:16:3E:00:00:01' ]
vfb = [ 'type=vnc,vncpasswd=secret' ]
cpu_weight = 512
xen_shell = 'steve'
on_crash = 'restart'
"""


def read(folder: Path, text: str, *, encoding: str = "utf-8") -> OldGuest:
    path = folder / "web1.cfg"
    path.write_bytes(text.encode(encoding))
    return read_old_guest(path)


def test_what_pygrub_needed_goes_and_all_else_stays(tmp_path: Path) -> None:
    old = read(tmp_path, PYGRUB)
    domain = modern_domain(old, boot="grub", xen="4.17")
    text = render_text(old, moved_domain(domain, {"xvda2": "/dev/VG0/web1-xvda2.2"}, None))
    removed = [line[1:] for line in show_difference(old, text)[2:] if line[0] == "-"]
    added = [line[1:] for line in show_difference(old, text)[2:] if line[0] == "+"]
    assert removed == [
        *("bootloader = '/usr/lib/xen-4.17/bin/pygrub'", "bootloader_args = [ '--kernel=x' ]"),
        *("root = '/dev/sda2 ro'", "disk = [ 'phy:VG0/web1-disk,sda2,w',"),
        "         'file:/srv/swap.img,sda1,w' ]  # two of them",
    ]
    assert added == [
        *('kernel = "/usr/lib/grub-xen/grub-i386-xen_pvh.bin"', 'type = "pvh"', "disk = ["),
        '    "format=raw, vdev=xvda2, access=rw, target=/dev/VG0/web1-xvda2.2",',
        *('    "format=raw, vdev=xvda1, access=rw, target=/srv/swap.img",', "]"),
    ]


def test_a_resource_of_drbd_stays_one_and_its_copy_is_none(tmp_path: Path) -> None:
    old = read(tmp_path, PYGRUB.replace("phy:VG0/web1-disk", "drbd:r0"))
    domain = modern_domain(old, boot="grub", xen="4.17")
    line = '    "format=raw, vdev=xvda2, access=rw, script=block-drbd, target=r0",\n'
    assert line in render_text(old, domain)
    copied = moved_domain(domain, {"xvda2": "/dev/VG0/web1-xvda2.2"}, None)
    assert "block-drbd" not in render_text(old, copied)


def test_other_bytes_than_utf_8_pass_through(tmp_path: Path) -> None:
    old = read(tmp_path, PYGRUB, encoding="latin-1")
    text = render_text(old, modern_domain(old, boot="grub", xen="4.17"))
    assert text.encode(errors="surrogateescape").startswith("# Ärger".encode("latin-1"))


def test_dom0s_kernel_keeps_its_words_but_those_nobody_reads(tmp_path: Path) -> None:
    old = read(
        tmp_path,
        "kernel = '/boot/vmlinuz'\nramdisk = '/boot/initrd'\nroot = '/dev/hda1 ro'\n"
        "extra = 'elevator=noop xencons=tty quiet console=tty1'\nname = 'web1'\n"
        "disk = [ 'file:/srv/disk.img,hda1,w' ]\n",
    )
    domain = modern_domain(old, boot="direct", xen="4.17")
    words = "ro quiet console=hvc0"
    assert domain.boot == Direct("/boot/vmlinuz", "/boot/initrd", "/dev/xvda1", words)
    text = render_text(old, domain)
    assert GRAMMAR.domain(text) == domain
    assert text.startswith("kernel = '/boot/vmlinuz'\ntype = \"pvh\"\nramdisk = '/boot/initrd'\n")


@pytest.mark.parametrize(
    ("text", "subjects"),
    [
        (PYGRUB, {"type", "bootloader", "sda2", "sda1", "disk", "vfb type", "xen_shell"}),
        ("kernel='/k'\nname='web1'\ndisk=['/srv/a,raw,xvda,w']\n", {"type"}),
        ("type='pvh'\nkernel='/k'\nname='web1'\n", {"type", "disk"}),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, subjects: set[str]) -> None:
    found = find_configuration_trouble(read(tmp_path, text), "4.17")
    assert {finding.subject for finding in found} == subjects
    assert all(finding.hint for finding in found)


def test_two_disks_never_get_one_name(tmp_path: Path) -> None:
    old = read(tmp_path, PYGRUB.replace(",sda1,", ",hda2,"))
    with pytest.raises(UsageError, match="would both be xvda2"):
        modern_domain(old, boot="grub", xen="4.17")


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    old = read(tmp_path, f"{PYGRUB}root = '/dev/sda3'\n")
    with pytest.raises(VerificationError, match="more than once"):
        render_text(old, modern_domain(old, boot="grub", xen="4.17"))


def test_a_new_key_comes_behind_the_one_before_it() -> None:
    text = "a = 1\nb = 'x'  # why\nc = 2"
    path = Path("web1.cfg")
    assert with_keys(path, GRAMMAR, text, {"b": "x", "n": 3, "c": None}) == (
        "a = 1\nb = 'x'  # why\nn = 3\n"
    )
    assert with_keys(path, GRAMMAR, "a = 1", {"b": 2}) == "a = 1\nb = 2\n"


@pytest.mark.parametrize(
    ("name", "is_it"),
    [
        ("/dev/xvda2", True),
        ("/dev/sda2", True),
        ("UUID=1-2", True),
        ('LABEL="root"', True),
        ("/dev/xvda1", False),
        ("UUID=", False),
        ("LABEL=", False),
        ("PARTUUID=1-2", False),
    ],
)
def test_fstab_may_name_a_disk_in_many_ways(name: str, *, is_it: bool) -> None:
    disk = OldDisk(
        vdev="xvda2", path=Path("/srv/x"), format="raw", access="rw", uuid="1-2", label="root"
    )
    assert disk.is_meant(name) == is_it


def test_node_names() -> None:
    names = ["sda", "/dev/hdb3", "xvda1", "/dev/mapper/x", "/dev/sdaa1"]
    assert [node_of(name) for name in names] == [
        *("/dev/xvda", "/dev/xvdb3", "/dev/xvda1", "/dev/mapper/x", "/dev/xvdaa1")
    ]
