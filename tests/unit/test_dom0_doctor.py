"""Each pitfall of the seed is named with its fix, from the files that a host has."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.dom0.doctor.configured import Configured
from pipeline.dom0.doctor.facts import HostFacts, read_facts
from pipeline.dom0.doctor.guests import (
    find_bridge_trouble,
    find_installed_trouble,
    find_link_trouble,
    find_pv_trouble,
    find_spec_trouble,
)
from pipeline.dom0.doctor.pitfalls import dom0_memory, find_pitfalls
from pipeline.dom0.inventory import Installed
from pipeline.dom0.layout import Layout
from pipeline.errors import Finding
from pipeline.xen.boot import Direct
from pipeline.xen.cfg_syntax import Value
from pipeline.xen.domain import Card, Domain
from tests.specs import make_spec

GOOD = HostFacts(
    is_dom0=True,
    xen_version="4.17.5",
    caps=("xen-3.0-x86_64", "hvm-3.0-x86_64"),
    xen_line="dom0_mem=1024M,max:1024M com2=115200,8n1 console=com2,vga",
    linux_line="console=tty0 console=hvc0",
    loader="/etc/default/grub",
    cpus=2,
    bridges=frozenset({"br-xen"}),
    services=frozenset({"xenconsoled", "oxenstored"}),
)
LENNY_GRUB = """### BEGIN AUTOMAGIC KERNELS LIST
## ## Start Default Options ##
# xenhopt=dom0_mem=256M
# xenkopt=console=tty0
## ## End Default Options ##
title Xen 3.2-1-i386 / Debian GNU/Linux
### END DEBIAN AUTOMAGIC KERNELS LIST
"""
LENNY_XEND = """# -*- sh -*-
(vif-script vif-bridge)
#(dom0-min-mem 196)
(dom0-min-mem 196)
(dom0-cpus 0)
"""


def host(root: Path, files: Mapping[str, str]) -> HostFacts:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_facts(root, None, is_dom0=True, has_vsyscall=True)


def texts(found: list[Finding]) -> str:
    return "\n".join(f"{finding.message} / {finding.hint}" for finding in found)


def test_a_host_that_is_well_is_told_nothing() -> None:
    assert find_pitfalls(GOOD) == []


def test_a_machine_that_is_no_dom0_is_not_told_how_to_be_one() -> None:
    assert find_pitfalls(HostFacts()) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dom0_mem=256M", (256.0, None)),
        ("dom0_mem=1G,max:2G", (1024.0, 2048.0)),
        ("noreboot dom0_mem=max:1024M,524288", (512.0, 1024.0)),
        ("dom0_mem=min:1G,2048M", (2048.0, None)),
        ("loglvl=all", (None, None)),
    ],
)
def test_dom0s_memory_is_read_in_every_form(
    line: str, expected: tuple[float | None, float | None]
) -> None:
    assert dom0_memory(line) == expected


def test_memory_set_in_two_places_that_differ_is_named_with_both(tmp_path: Path) -> None:
    facts = host(
        tmp_path, {"boot/grub/menu.lst": LENNY_GRUB, "etc/xen/xend-config.sxp": LENNY_XEND}
    )
    said = texts(find_pitfalls(facts))
    assert "dom0_mem=256M (/boot/grub/menu.lst), (dom0-min-mem 196)" in said
    assert "write (dom0-min-mem 256), or dom0_mem=196M" in said
    assert "(dom0-cpus 1)" in said
    alike = LENNY_XEND.replace("(dom0-min-mem 196)", "(dom0-min-mem 256)")
    facts = host(tmp_path, {"etc/xen/xend-config.sxp": alike.replace("cpus 0", "cpus 1")})
    assert "dom0-min-mem" not in texts(find_pitfalls(facts))
    assert "dom0-cpus" not in texts(find_pitfalls(facts))


def test_memory_that_is_not_fixed_is_named_with_the_message_it_ends_in(tmp_path: Path) -> None:
    said = texts(find_pitfalls(host(tmp_path, {"etc/default/grub": 'GRUB_CMDLINE_XEN=""\n'})))
    assert "memory squeeze" in said
    assert "dom0_mem=1024M,max:1024M" in said


@pytest.mark.parametrize("share", ["25%", "1G+10%,max:4G", "-2G", "max:8G,50%"])
def test_a_share_of_the_hosts_memory_is_memory_that_is_fixed(tmp_path: Path, share: str) -> None:
    files = {"etc/default/grub": f'GRUB_CMDLINE_XEN="dom0_mem={share} loglvl=all"\n'}
    assert find_pitfalls(host(tmp_path, files)) == []


def test_autoballoon_against_fixed_memory(tmp_path: Path) -> None:
    files = {
        "etc/default/grub": 'GRUB_CMDLINE_XEN_DEFAULT="dom0_mem=1G,max:1G"\n',
        "etc/xen/xl.conf": '#autoballoon="auto"\nautoballoon="on"\n',
    }
    assert 'autoballoon="off"' in texts(find_pitfalls(host(tmp_path, files)))


def test_a_later_file_of_grub_wins(tmp_path: Path) -> None:
    facts = host(
        tmp_path,
        {
            "etc/default/grub": 'GRUB_CMDLINE_XEN="dom0_mem=1G"\nGRUB_CMDLINE_LINUX="quiet"\n',
            "etc/default/grub.d/xen.cfg": "GRUB_CMDLINE_XEN='dom0_mem=2G,max:2G'\n",
        },
    )
    assert facts.xen_line == "dom0_mem=2G,max:2G"
    assert facts.linux_line == "quiet"


def test_a_stolen_serial_line_is_named_with_hvc0(tmp_path: Path) -> None:
    files = {
        "etc/default/grub": (
            'GRUB_CMDLINE_XEN="dom0_mem=1G,max:1G com1=115200,8n1 console=com1,vga"\n'
            'GRUB_CMDLINE_LINUX="console=ttyS0,115200"\n'
        )
    }
    said = texts(find_pitfalls(host(tmp_path, files)))
    assert "Xen takes com1 (ttyS0)" in said
    assert "co:2345:respawn:/sbin/getty -h -L hvc0 115200 ansi" in said


def test_a_serial_line_without_a_login_and_without_a_speed(tmp_path: Path) -> None:
    files = {
        "etc/default/grub": 'GRUB_CMDLINE_XEN="dom0_mem=1G,max:1G console=com2,vga"\n',
        "etc/inittab": "1:2345:respawn:/sbin/getty 38400 tty1\n#co:23:respawn:/sbin/getty hvc0\n",
    }
    said = texts(find_pitfalls(host(tmp_path, files)))
    assert "nobody can log in there" in said
    assert "com2=115200,8n1 console=com2,vga" in said


def test_xen_3_0_takes_the_ports_unless_xencons_says_otherwise() -> None:
    old = replace(
        GOOD, xen_version="3.0.3-1", xen_line="dom0_mem=256M,max:256M", xend={"dom0-cpus": "1"}
    )
    old = replace(old, xend={**old.xend, "dom0-min-mem": "256"}, gettys=frozenset({"ttyS1"}))
    assert "xencons=tty6" in texts(find_pitfalls(old))
    assert "xencons" not in texts(find_pitfalls(replace(old, linux_line="xencons=tty6")))


def test_pae_on_both_sides() -> None:
    assert "PAE-less CPU" in texts(find_pitfalls(replace(GOOD, has_pae=False)))
    plain = replace(GOOD, caps=("xen-3.0-x86_32",))
    assert "PAE mode mismatch" in texts(find_pitfalls(plain))
    assert "PAE" not in texts(find_pitfalls(replace(GOOD, caps=("xen-3.0-x86_32p",))))


def test_old_libraries() -> None:
    said = texts(find_pitfalls(replace(GOOD, machine="i686", has_vsyscall=False)))
    assert "libc6-xen" in said
    assert "vsyscall=emulate" in said


def test_many_processors_and_missing_daemons() -> None:
    said = texts(find_pitfalls(replace(GOOD, cpus=32, services=frozenset({"init"}))))
    assert "dom0_max_vcpus=2" in said
    assert "xenconsoled does not run" in said
    assert "xenstored does not run" in said


def test_lvm_that_looks_into_guests() -> None:
    facts = replace(GOOD, groups=("VG0",))
    assert "global_filter" in texts(find_pitfalls(facts))
    assert find_pitfalls(replace(facts, lvm_devices=True)) == []


def test_a_spec_against_the_host() -> None:
    old = make_spec(name="old", suite="lenny", arch="i386")
    said = texts([*find_spec_trouble(old, GOOD)])
    assert "libc6-xen" in said
    assert "no 32-bit PV guests" in said
    pvh = make_spec(name="new", type="pvh")
    assert "VT-x" in texts([*find_spec_trouble(pvh, replace(GOOD, caps=("xen-3.0-x86_64",)))])
    assert [*find_spec_trouble(pvh, GOOD)] == []


def test_pv_guests_that_would_run_as_pvh_are_named_in_one_line(tmp_path: Path) -> None:
    pv = {name: make_spec(name=name, type="pv") for name in ("web1", "web2")}
    others = {
        "old": make_spec(name="old", suite="lenny"),
        "new": make_spec(name="new"),
        "own": make_spec(name="own", kernel="/boot/vmlinuz-6.1.0-57-amd64"),
    }
    (found,) = find_pv_trouble({**pv, **others}, {}, GOOD)
    assert (found.level, found.message.rpartition(": ")[2]) == ("warning", "web1, web2")
    assert "doit rebuild name=web1" in found.hint
    assert [*find_pv_trouble(others, {}, GOOD)] == []
    elders: dict[str, dict[str, Value]] = {
        "elder": {"disk": ["phy:/dev/VG0/elder,xvda1,w"], "bootloader": "pygrub"},
        "pc": {"disk": ["phy:/dev/VG0/pc,xvda,w"], "builder": "hvm"},
        "settings": {"autoballoon": "off"},
    }
    guests = (Configured(Path(f"/etc/xen/{name}.cfg"), values) for name, values in elders.items())
    (found,) = find_pv_trouble(pv, {}, replace(GOOD, configured=tuple(guests)))
    assert found.message.endswith("web1, web2, elder")
    assert found.hint.endswith("doit modernize cfg=/etc/xen/elder.cfg dry=yes")
    for host_of_pv in ({"caps": ("xen-3.0-x86_64",)}, {"xen_version": "4.11"}, {"is_dom0": False}):
        assert [*find_pv_trouble(pv, {}, replace(GOOD, **host_of_pv))] == []


def test_an_ovmf_that_starts_no_xen_guest(tmp_path: Path) -> None:
    stanza = "Package: ovmf\nStatus: install ok installed\nVersion: {}\n\n"
    files = {
        "etc/xen/uefi.cfg": 'type = "hvm"\nbios = "ovmf"\n',
        "etc/xen/pc.cfg": 'type = "hvm"\nbios = "seabios"\n',
        "etc/xen/own.cfg": 'type = "hvm"\nfirmware = "uefi"\nbios_path_override = "/srv/OVMF.fd"\n',
        "etc/xen/broken.cfg": "bios = [\n",
        "var/lib/dpkg/status": stanza.format("2022.11-6+deb12u2"),
    }
    facts = host(tmp_path, files)
    assert [guest.name for guest in facts.configured] == ["own", "pc", "uefi"]
    assert "uefi: ovmf 2022.11-6+deb12u2 starts no Xen guest" in texts(find_pitfalls(facts))
    trixie = replace(facts, ovmf="2025.02-8+deb13u1")
    assert "uefi: ovmf 2025.02-8+deb13u1 starts no Xen guest" in texts(find_pitfalls(trixie))
    assert "ovmf" not in texts(find_pitfalls(replace(facts, ovmf="2020.11-2+deb11u1")))
    assert "ovmf" not in texts(find_pitfalls(replace(facts, configured=())))


def test_a_bridge_that_is_not_there_and_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    domain = Domain(
        name="web1",
        type="pv",
        memory_mib=256,
        vcpus=1,
        boot=Direct("/boot/vmlinuz"),
        cards=(Card(bridge="br-lan"), Card(bridge="br-xen")),
    )
    said = texts([*find_bridge_trouble(domain, GOOD)])
    assert "no bridge br-lan" in said
    assert "br-xen;" not in said
    layout = Layout(tmp_path)
    layout.auto.mkdir(parents=True)
    (layout.auto / "gone.cfg").symlink_to("../gone.cfg")
    assert "leads nowhere" in texts([*find_link_trouble(layout)])


def test_a_grub_that_is_not_there_is_a_package_of_debian(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    text = f'name = "web1"\ntype = "pvh"\nkernel = "{tmp_path}/grub-i386-xen_pvh.bin"\n'
    layout.configs.mkdir(parents=True)
    layout.config("web1").write_text(text)
    record = Installed(
        name="web1",
        word="install",
        generation=1,
        changed_at=0,
        config_text=text,
        is_autostarted=False,
        disks=(),
    )
    (finding,) = find_installed_trouble(record, layout, GOOD)
    assert (finding.code, finding.hint) == ("target", "apt-get install grub-xen-host")
