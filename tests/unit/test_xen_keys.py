"""Keys that a toolstack would ignore are named, with what to write instead."""

import pytest

from pipeline.xen.boot import Boot, Direct, Firmware, Pygrub
from pipeline.xen.devices import Card, Disk, Framebuffer
from pipeline.xen.domain import Domain
from pipeline.xen.keys import check_keys
from pipeline.xen.render import render_xl, render_xm

BASE = 'name = "x"\ntype = "pv"\nkernel = "/k"\n'


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('dhcp = "dhcp"', "dhcp: xl ignores it; put ip=dhcp into extra="),
        ('gateway = "10.0.0.1"', "extra="),
        ('vfb = ["type=vnc,vncunused=1"]', "write vnc=1"),
        ('vif = ["mac=00:16:3e:00:00:01,brigde=br0"]', "did you mean bridge?"),
        ('vif = ["vlan=3"]', "before Xen 4.19"),
        ("memroy = 3", "did you mean memory?"),
        ('boot = "c"', "only for hvm"),
        ('device_model = "x"', "device_model_override"),
        ('disk = ["foo=1,vdev=xvda,target=/x"]', "disk foo"),
        ("name = 'y'", "overrides line 1"),
        ('root = "/dev/xvda1"\ncmdline = "quiet"', "beside cmdline="),
        ('llc_colors = ["1"]', "before Xen 4.20"),
        ("vnc = 1\nvfb = ['vnc=1']", "put it into vfb"),
    ],
)
def test_a_key_that_xl_would_ignore_is_named(line: str, wanted: str) -> None:
    (problem,) = check_keys(f"{BASE}{line}\n", target="xl", xen="4.17")
    assert wanted in problem


def test_a_newer_xen_reads_more_keys() -> None:
    text = BASE + 'vif = ["vlan=3"]\nllc_colors = ["1"]\n'
    assert check_keys(text, target="xl", xen="4.20") == []
    assert len(check_keys(text, target="xl", xen="4.18")) == 2


def test_an_old_xen_does_not_read_type() -> None:
    (problem,) = check_keys(BASE, target="xl", xen="4.8")
    assert "builder" in problem


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("type = 'pvh'", "builder"),
        ("bootloader_args = ['-q']", "xm ignores it"),
        ("vif = ['mtu=9000']", "vif mtu"),
        ("vfb = ['vnc=1']", "vfb vnc"),
        ("hap = 1", "before Xen 3.3"),
    ],
)
def test_a_key_that_xm_would_ignore_is_named(line: str, wanted: str) -> None:
    (problem,) = check_keys(f"name = 'x'\n{line}\n", target="xm", xen="3.2")
    assert wanted in problem


@pytest.mark.parametrize("kind", ["pv", "pvh", "hvm"])
def test_nothing_that_we_render_would_be_ignored(kind: str) -> None:
    plain: list[Boot] = [Pygrub(args=("-q",)), Direct("/k", "/i", "/r")]
    boots: list[Boot] = [Firmware("uefi")] if kind == "hvm" else plain
    for boot in boots:
        domain = Domain(
            name="x",
            type=kind,
            memory_mib=64,
            maxmem_mib=128,
            vcpus=1,
            maxvcpus=2,
            boot=boot,
            disks=(Disk(target="/x", vdev="xvda"), Disk(target="/y", vdev="xvdb", format="vhd")),
            cards=(Card(bridge="b", vifname="v", mtu=1400, rate_kbytes_s=1, ip="10.0.0.1"),),
            framebuffer=Framebuffer(vncdisplay=1, vnclisten="0.0.0.0", keymap="fr"),
        )
        assert check_keys(render_xl(domain), target="xl", xen="4.17") == []


def test_nothing_that_we_render_for_xm_would_be_ignored() -> None:
    boots: list[Boot] = [Direct("/k"), Firmware(), Pygrub(args=("-q",))]
    for boot in boots:
        kind = "hvm" if isinstance(boot, Firmware) else "pv"
        domain = Domain(
            name="x",
            type=kind,
            memory_mib=64,
            vcpus=1,
            maxvcpus=2,
            boot=boot,
            disks=(Disk(target="/x", vdev="xvda"),),
            cards=(Card(bridge="b", vifname="v", rate_kbytes_s=1),),
            framebuffer=Framebuffer(vncdisplay=1),
        )
        assert check_keys(render_xm(domain, xen="3.2"), target="xm", xen="3.2") == []
