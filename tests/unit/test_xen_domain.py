"""The domain model refuses what makes no domain, and each renderer what its target cannot say."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.xen import libvirt, xl, xm
from pipeline.xen.boot import Direct, Firmware, Grub, Pygrub
from pipeline.xen.devices import Card, Disk, Framebuffer
from pipeline.xen.domain import Domain
from pipeline.xen.render import XL, render_libvirt, render_xl, render_xm
from pipeline.xen.values import SyntaxFault, Unsupported

ROOT = Disk(target="/dev/VG0/test-drbd-disk", vdev="xvda1")
DIRECT = Direct("/boot/vmlinuz", "/boot/initrd.img", "/dev/xvda1", "ro console=hvc0")


def make_domain(**changes: Any) -> Domain:
    fields: dict[str, Any] = {"name": "test-drbd", "type": "pv", "memory_mib": 256, "vcpus": 1}
    fields |= {"boot": DIRECT, "disks": (ROOT,), **changes}
    return Domain(**fields)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": "../x"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"type": "xen"}, "pv, pvh, hvm"),
        ({"uuid": "12"}, "not a UUID"),
        ({"memory_mib": 0}, "memory"),
        ({"maxmem_mib": 128}, "maxmem"),
        ({"vcpus": 2, "maxvcpus": 1}, "maxvcpus"),
        ({"on_reboot": "coredump-destroy"}, "on_reboot"),
        ({"type": "hvm", "boot": Pygrub()}, "firmware"),
        ({"boot": Firmware()}, "firmware"),
        ({"type": "hvm", "boot": Direct("/x/hvmloader")}, "is firmware"),
        ({"boot": Grub("/g/grub-i386-xen_pvh.bin")}, "GRUB for pvh"),
        ({"boot": Pygrub(), "disks": ()}, "first disk"),
        ({"disks": (ROOT, ROOT)}, "two disks are called xvda1"),
        ({"cards": (Card(mac="00:16:3e:00:00:01"),) * 2}, "same MAC"),
        ({"cards": (Card(model="e1000"),)}, "only hvm"),
    ],
)
def test_a_domain_that_makes_no_sense_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make_domain(**changes)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"target": "x.img"}, "absolute"),
        ({"target": "/srv/"}, "directory"),
        ({"target": "/x\0y"}, "character"),
        ({"target": "/x", "vdev": "xvda1,w"}, "vdev"),
        ({"target": "/x", "format": "vmdk"}, "raw, qcow2, vhd"),
        ({"target": "/dev/x", "format": "qcow2"}, "only be raw"),
        ({"target": "/x", "devtype": "cdrom"}, "read only"),
    ],
)
def test_a_disk_that_makes_no_sense_is_refused(fields: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Disk(**{"vdev": "xvda1", **fields})


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"mac": "00:16:3e:59:2a"}, "mac"),
        ({"mac": "01:16:3e:59:2a:ed"}, "cannot be a card"),
        ({"mac": "00:00:00:00:00:00"}, "cannot be a card"),
        ({"bridge": "br0,mac=x"}, "bridge"),
        ({"bridge": "a-name-far-too-long"}, "not an interface name"),
        ({"ip": "10.0.0.300"}, "ip"),
        ({"vlan": 4095}, "vlan"),
        ({"mtu": 20}, "mtu"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Card(**fields)


@pytest.mark.parametrize("cmdline", ["root=/dev/xvda1", "a  b", " a", "a\nb", "a\x00"])
def test_a_command_line_that_no_target_could_carry_is_refused(cmdline: str) -> None:
    with pytest.raises(ValueError, match="cmdline"):
        Direct("/boot/vmlinuz", cmdline=cmdline)


@pytest.mark.parametrize(
    ("xen", "changes", "text"),
    [
        ("4.9", {"type": "pvh"}, "no PVH guests"),
        ("4.17", {"cards": (Card(vlan=3),)}, "4.19"),
        ("3.2", {}, "xm"),
        ("4.17", {"framebuffer": Framebuffer(vnclisten="::1")}, "colon"),
    ],
)
def test_xl_refuses_what_that_version_would_ignore(
    xen: str, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(Unsupported, match=text):
        render_xl(make_domain(**changes), xen=xen)


@pytest.mark.parametrize(
    ("xen", "changes", "text"),
    [
        ("3.2", {"type": "pvh"}, "pvh"),
        ("3.0", {"disks": (Disk(target="/x", vdev="xvda", format="qcow2"),)}, "raw"),
        ("3.2", {"disks": (Disk(target="/a,b", vdev="xvda"),)}, "comma"),
        ("3.2", {"cards": (Card(mtu=1400),)}, "mtu"),
        ("3.2", {"cards": (Card(vlan=4),)}, "vlan"),
        ("3.0", {"framebuffer": Framebuffer()}, "3.0.4"),
        ("3.2", {"on_crash": "coredump-destroy"}, "on_crash"),
        ("3.2", {"boot": Grub("/g/grub-i386-xen.bin")}, "3.3"),
        ("3.2", {"type": "hvm", "boot": Firmware("uefi")}, "uefi"),
        ("3.2", {"boot": Direct("/boot/é")}, "ASCII"),
        ("4.17", {}, "xend"),
    ],
)
def test_xm_refuses_what_xend_could_not_do(xen: str, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(Unsupported, match=text):
        render_xm(make_domain(**changes), xen=xen)


@pytest.mark.parametrize(
    ("card", "text"),
    [
        (Card(), "bridge"),
        (Card(bridge="b", vlan=2), "vlan"),
        (Card(bridge="b", mtu=1400), "mtu"),
        (Card(bridge="b", vifname="vif1"), "vnet"),
    ],
)
def test_libvirt_refuses_cards_that_its_xen_driver_would_change(card: Card, text: str) -> None:
    with pytest.raises(Unsupported, match=text):
        render_libvirt(make_domain(cards=(card,)))


def test_the_xm_configuration_is_written_as_its_users_know_it() -> None:
    card = Card(mac="00:16:3E:59:2A:ED", bridge="br-xen")
    text = render_xm(make_domain(cards=(card,), framebuffer=Framebuffer()), xen="3.2")
    assert "root = '/dev/xvda1 ro'\n" in text
    assert "extra = 'console=hvc0'\n" in text
    assert "'phy:/dev/VG0/test-drbd-disk,xvda1,w'" in text
    assert "'bridge=br-xen, mac=00:16:3e:59:2a:ed'" in text
    assert "'type=vnc,vncunused=1'" in text
    assert "bootloader = '/usr/lib/xen-3.2-1/bin/pygrub'\n" in render_xm(
        make_domain(boot=Pygrub()), xen="3.2"
    )


def test_a_handwritten_xm_configuration_is_read() -> None:
    domain = xm.parse(
        "# lenny\nkernel  = '/boot/vmlinuz-2.6.26-2-xen-686'\n"
        "ramdisk = '/boot/initrd.img-2.6.26-2-xen-686'\n"
        "memory = '256'\nname='test-drbd'\nroot = '/dev/xvda2 ro'\nextra = 'xencons=tty'\n"
        "disk = ['phy:VG0/test-drbd-disk,xvda2,w', 'tap:aio:/srv/swap.img,xvda1,w',\n"
        "        'file:/srv/cd.iso,hdc:cdrom,r']\n"
        "vif  = [ 'bridge=br-xen, mac=00:16:3E:59:2A:ED' ]\nvfb = ['type=vnc,vncdisplay=2']\n"
    )
    assert domain.boot == Direct(
        "/boot/vmlinuz-2.6.26-2-xen-686",
        "/boot/initrd.img-2.6.26-2-xen-686",
        "/dev/xvda2",
        "ro xencons=tty",
    )
    assert [disk.target for disk in domain.disks] == [
        "/dev/VG0/test-drbd-disk",
        "/srv/swap.img",
        "/srv/cd.iso",
    ]
    assert domain.disks[2].devtype == "cdrom"
    assert domain.framebuffer == Framebuffer(vncdisplay=2)
    assert domain.on_crash == "restart"


@pytest.mark.parametrize(
    "text",
    ["import os\n", "name = 'x' + str(1)\n", "for i in x:\n  pass\n", "a = (\n", "a.b = 1\n"],
)
def test_an_xm_configuration_that_is_a_program_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(SyntaxFault, match="line 1"):
        xm.parse(text)


def test_the_deprecated_disk_prefixes_are_read_from_an_xl_configuration() -> None:
    text = 'name="x"\nkernel="/k"\ndisk=["phy:/dev/VG0/a,xvda1,w","tap:qcow2:/srv/b,xvdb,r"]\n'
    assert xl.parse(text).disks == (
        Disk(target="/dev/VG0/a", vdev="xvda1"),
        Disk(target="/srv/b", vdev="xvdb", format="qcow2", access="ro"),
    )


REPLICATED = Disk(target="/dev/drbd/by-res/r0/0", vdev="xvda1", script="block-drbd")


def test_a_drbd_resource_of_the_host_is_named_to_its_script() -> None:
    domain = make_domain(disks=(REPLICATED,))
    text = render_xl(domain)
    assert '"format=raw, vdev=xvda1, access=rw, script=block-drbd, target=r0"' in text
    assert xl.parse(text) == domain
    text = render_xm(domain, xen="3.2")
    assert "'drbd:r0,xvda1,w'" in text and xm.parse(text) == domain
    with pytest.raises(Unsupported, match="block-drbd"):
        render_libvirt(domain)


@pytest.mark.parametrize(
    "line",
    [
        "drbd:r0,xvda1,w",
        "script=block-drbd,vdev=xvda1,target=r0",
        "r0,raw,xvda1,rw,script=/etc/xen/scripts/block-drbd",
    ],
)
def test_the_ways_to_write_a_drbd_resource_are_read_as_one(line: str) -> None:
    assert xl.parse(f'name="x"\nkernel="/k"\ndisk=["{line}"]\n').disks == (REPLICATED,)


SHARED = Disk(target="/srv/shop-a/disk-q.img", vdev="xvda3", access="shared")


def test_a_shared_disk_goes_past_the_script_that_would_refuse_it() -> None:
    domain = make_domain(disks=(SHARED,))
    text = render_xl(domain)
    line = "format=raw, vdev=xvda3, access=rw, backendtype=qdisk, target=/srv/shop-a/disk-q.img"
    assert f'"{line}"' in text and xl.parse(text) == domain
    text = render_xm(domain, xen="3.2")
    assert "'file:/srv/shop-a/disk-q.img,xvda3,w!'" in text and xm.parse(text) == domain
    text = render_libvirt(domain)
    assert "<shareable/>" in text and libvirt.parse(text).disks == (SHARED,)
    on_device = Disk(target="/dev/VG0/shop-a-q", vdev="xvda3", access="shared")
    text = render_libvirt(make_domain(disks=(on_device,)))
    assert '<driver name="qemu" type="raw"/>' in text, "the script is phy's"


@pytest.mark.parametrize(
    "line",
    [
        "/srv/x,raw,xvda3,ro,backendtype=qdisk",
        "/srv/x,qcow2,xvda3,rw,backendtype=qdisk",
        "/srv/x,raw,hdc,rw,devtype=cdrom,backendtype=qdisk",
        "/srv/x,raw,xvda3,rw,backendtype=phy",
        "vdev=xvda3,script=block-drbd,backendtype=qdisk,target=r0",
    ],
)
def test_another_disk_with_a_backend_of_its_own_is_not_ours(line: str) -> None:
    with pytest.raises(Unsupported, match="our model has no backendtype"):
        xl.parse(f'name="x"\nkernel="/k"\ndisk=["{line}"]\n')


@pytest.mark.parametrize(
    "keys",
    [
        {"format": "qcow2"},
        {"devtype": "cdrom"},
        {"target": "/dev/drbd/by-res/r0/0", "script": "block-drbd"},
    ],
)
def test_only_a_raw_disk_is_shared(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot be shared"):
        replace(SHARED, **keys)


def test_a_plain_device_of_drbd_stays_plain_and_other_scripts_are_not_ours() -> None:
    plain = Disk(target="/dev/drbd/by-res/r0/0", vdev="xvda1")
    assert "script" not in render_xl(make_domain(disks=(plain,)))
    with pytest.raises(ValueError, match="no DRBD resource"):
        Disk(target="/dev/sdb1", vdev="xvda1", script="block-drbd")
    with pytest.raises(Unsupported, match="no script but"):
        xl.parse('name="x"\nkernel="/k"\ndisk=["script=block-iscsi,vdev=xvda,target=iqn=x"]\n')


def test_positional_disks_of_xl_are_read() -> None:
    text = 'name="x"\nkernel="/k"\ndisk=["/srv/a,,xvda","/srv/i.iso,raw,hdc,devtype=cdrom"]\n'
    first, second = xl.parse(text).disks
    assert first == Disk(target="/srv/a", vdev="xvda")
    assert second == Disk(target="/srv/i.iso", vdev="hdc", access="ro", devtype="cdrom")


def test_keys_outside_the_model_are_named_unless_the_reader_is_told_to_leave_them() -> None:
    text = 'name="x"\nkernel="/k"\nlocaltime=1\n'
    with pytest.raises(Unsupported, match="localtime"):
        xl.parse(text)
    assert xl.parse(text, strict=False).name == "x"


def test_the_rate_of_a_card_is_read_in_all_units() -> None:
    for rate, kbytes in (("10Mb/s", 1250), ("250KB/s", 250), ("1MB/s@20ms", 1000)):
        text = f'name="x"\nkernel="/k"\nvif=["rate={rate}"]\n'
        assert xl.parse(text).cards[0].rate_kbytes_s == kbytes


def test_a_template_refuses_a_value_that_no_serializer_has_seen() -> None:
    screen = Framebuffer(vncdisplay=1)
    fields = xl.fields(make_domain(type="hvm", boot=Firmware(), framebuffer=screen), xen="4.17")
    assert "vnc = 1\n" in XL.render(fields)
    with pytest.raises(TypeError, match="without a serializer"):
        XL.render(fields | {"screen_keys": [("vnc", "1\nevil")]})


def test_libvirt_xml_with_a_document_type_is_refused() -> None:
    with pytest.raises(SyntaxFault, match="document type"):
        libvirt.parse('<!DOCTYPE x [<!ENTITY a "b">]><domain/>')


def test_an_image_in_memory_is_a_file_although_it_lies_below_dev() -> None:
    assert Disk(target="/dev/shm/web1/disk.qcow2", vdev="xvda1", format="qcow2").kind == "file"
    assert Disk(target="/dev/VG0/web1-disk", vdev="xvda1").kind == "block"
