"""The spec: defaults by suite, derived values, and keys that do not go together."""

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.spec import Spec, derive_mac
from pipeline.spec.guest_type import choose_type
from pipeline.spec.rules import find_clashes
from tests.specs import make_spec


def clashes(**keys: Any) -> dict[str, str]:
    """The clashing keys and their messages."""
    return {clash.subject: clash.message for clash in find_clashes(make_spec(**keys))}


def test_a_name_is_enough_and_the_rest_follows_from_it_and_the_suite() -> None:
    spec = make_spec()
    assert (spec.hostname, spec.suite, spec.init, spec.fs) == (
        "web1",
        "bookworm",
        "systemd",
        "ext4",
    )
    assert spec.kernel == "linux-image-cloud-amd64"
    assert spec.components == ("main",)
    assert spec.guest_mirror == spec.mirror == "host"
    assert spec.dhcp
    assert spec.keyring == ""


def test_defaults_follow_another_suite() -> None:
    noble = make_spec(suite="noble")
    assert noble.components == ("main", "universe")
    assert noble.kernel == "linux-image-virtual"
    lenny = make_spec(suite="lenny", arch="i386")
    assert (lenny.init, lenny.fs, lenny.locale) == ("sysvinit", "ext3", "C")
    assert lenny.kernel == "linux-image-2.6-xen-686"


def test_pv_grub_gets_a_kernel_that_it_can_unpack() -> None:
    assert make_spec(boot="grub", type="pv").kernel == "linux-image-amd64"
    assert make_spec(boot="grub").kernel == "linux-image-cloud-amd64"
    lean = {"boot": "grub", "type": "pv", "kernel": "linux-image-cloud-amd64"}
    assert "lz4" in clashes(**lean)["kernel"]


@pytest.mark.parametrize(
    ("suite", "compression"), [("trixie", "zstd"), ("noble", "zstd"), ("focal", "lz4")]
)
def test_pv_grub_is_refused_where_the_suite_has_no_kernel_that_it_unpacks(
    suite: str, compression: str
) -> None:
    (found,) = find_clashes(make_spec(suite=suite, type="pv", boot="grub"))
    assert compression in found.message
    assert found.hint.startswith("leave type out")
    assert clashes(suite=suite, boot="grub") == {}
    (found,) = find_clashes(make_spec(type="pv", boot="grub", kernel="linux-image-cloud-amd64"))
    assert found.hint.startswith("take linux-image-amd64, or leave type out")


@pytest.mark.parametrize("suite", ["bullseye", "trixie", "sid", "focal", "resolute"])
def test_a_guest_is_pvh_where_its_kernel_and_its_xen_can(suite: str) -> None:
    assert make_spec(suite=suite).type == "pvh"
    assert make_spec(suite=suite, xen="4.14").type == "pvh"
    assert make_spec(suite=suite, type="pv").type == "pv"
    assert make_spec(suite=suite, boot="grub", kernel="linux-image-5.10.0-9-amd64").type == "pvh"


@pytest.mark.parametrize(
    "keys",
    [
        {"suite": "buster"},
        {"suite": "lenny", "arch": "i386"},
        {"arch": "i386"},
        {"kernel": "linux-image-686-pae"},
        {"xen": "4.13"},
        {"kernel": "host"},
        {"kernel": "/boot/vmlinuz-6.1.0-57-amd64"},
        {"kernel": "linux-image-4.19.0-1-amd64"},
        {"boot": "grub", "bootloader": "/usr/lib/grub-xen/grub-x86_64-xen.bin"},
    ],
    ids=str,
)
def test_a_guest_is_pv_where_pvh_is_not_sure(keys: dict[str, object]) -> None:
    spec = make_spec(**keys)
    assert spec.type == "pv"
    assert choose_type(spec.suite_facts, dict(spec))[1], "the reason is not told"


def test_a_spec_is_frozen_and_knows_no_other_keys() -> None:
    with pytest.raises(ValidationError):
        make_spec().size = "8G"
    with pytest.raises(ValidationError):
        make_spec(colour="red")


def test_host_names_are_taken_apart_and_put_together() -> None:
    assert make_spec(hostname="db.example.org").short_hostname == "db"
    assert make_spec(hostname="db", domain="example.org").fqdn == "db.example.org"
    assert make_spec(hostname="db.example.org", domain="example.org").fqdn == "db.example.org"
    assert make_spec().fqdn == "web1"
    assert "domain" in clashes(hostname="db.example.org", domain="example.net")


def test_sizes_are_there_in_mib() -> None:
    spec = make_spec(size="1.5G", swap="0", memory=512, maxmem="1G", snapshot_max_age="2h")
    assert (spec.size_mib, spec.swap_mib, spec.memory_mib, spec.maxmem_mib) == (1536, 0, 512, 1024)
    assert spec.snapshot_max_age_s == 7200
    assert make_spec().maxmem_mib == 256


def test_a_kernel_source_is_told_from_the_kernel() -> None:
    assert make_spec().kernel_source == "package"
    assert make_spec(kernel="host").kernel_source == "host"
    assert (
        make_spec(kernel="/boot/vmlinuz-6.1", initrd="/boot/initrd.img-6.1").kernel_source
        == "files"
    )
    assert make_spec(boot="pygrub").is_kernel_inside
    assert not make_spec().is_kernel_inside


def test_a_secret_is_neither_printed_nor_dumped_yet_a_change_shows() -> None:
    first = make_spec(root_password_hash="$6$saltsalt$" + "a" * 86)
    second = make_spec(root_password_hash="$6$saltsalt$" + "b" * 86)
    for text in (repr(first), str(first), json.dumps(first.as_json())):
        assert "saltsalt" not in text
    assert first.as_json() != second.as_json()


def test_a_spec_as_json_has_every_key() -> None:
    dumped = make_spec(interfaces=[{"bridge": "br-back"}]).as_json()
    assert set(dumped) == set(Spec.model_fields)
    assert json.loads(json.dumps(dumped)) == dumped


def test_the_mac_is_the_same_at_every_build_and_differs_by_name_and_card() -> None:
    assert derive_mac("test-drbd", 0) == make_spec(name="test-drbd").cards[0].mac
    assert len({derive_mac("web1", 0), derive_mac("web1", 1), derive_mac("web10", 0)}) == 3
    assert derive_mac("web1", 0).startswith("00:16:3E:")


def test_cards_come_resolved_and_in_order() -> None:
    spec = make_spec(
        address=["192.168.1.10", "2001:db8::5/64"],
        netmask="255.255.255.0",
        gateway="192.168.1.1",
        gateway6="fe80::1",
        nameservers="192.168.1.1",
        interfaces=[{"bridge": "br-back", "address": "10.0.0.2/30"}, {}],
    )
    first, second, third = spec.cards
    assert first.addresses == (
        ipaddress.ip_interface("192.168.1.10/24"),
        ipaddress.ip_interface("2001:db8::5/64"),
    )
    assert (first.dhcp, second.dhcp, third.dhcp) == (False, False, True)
    assert first.gateway == ipaddress.IPv4Address("192.168.1.1")
    assert first.nameservers == ("192.168.1.1",)
    assert [card.index for card in spec.cards] == [0, 1, 2]
    assert [card.device.bridge for card in spec.cards] == ["br-xen", "br-back", "br-xen"]


@pytest.mark.parametrize(
    ("keys", "clashing"),
    [
        ({"type": "pv", "boot": "firmware"}, "boot"),
        ({"type": "hvm", "boot": "firmware", "suite": "lenny"}, "boot"),
        ({"type": "pvh", "boot": "firmware"}, "boot"),
        ({"type": "hvm", "boot": "grub"}, "boot"),
        ({"type": "hvm", "boot": "pygrub"}, "boot"),
        ({"boot": "pygrub", "fs": "xfs"}, "fs"),
        ({"boot": "pygrub", "fs": "btrfs"}, "fs"),
        ({"boot": "pygrub", "kernel": "/boot/vmlinuz"}, "kernel"),
        ({"boot": "pygrub", "kernel": "host"}, "kernel"),
        ({"initrd": "/boot/initrd"}, "initrd"),
        ({"modules": "/lib/modules/6.1"}, "modules"),
        ({"bootloader": "/usr/bin/pygrub"}, "bootloader"),
        ({"type": "pvh", "xen": "4.9"}, "type"),
        ({"boot": "grub", "xen": "3.2"}, "boot"),
        ({"on_crash": "coredump-restart", "xen": "3.2"}, "on_crash"),
        ({"suite": "wheezy", "init": "systemd"}, "init"),
        ({"suite": "noble", "init": "sysvinit"}, "init"),
        ({"suite": "lenny", "fs": "ext4"}, "fs"),
        ({"suite": "trixie", "arch": "i386"}, "arch"),
        ({"memory": "512M", "maxmem": "256M"}, "maxmem"),
        ({"vcpus": 4, "maxvcpus": 2}, "maxvcpus"),
        ({"lvm_thin": "pool"}, "lvm_thin"),
        ({"lvm": "VG0", "format": "qcow2"}, "format"),
        ({"vncdisplay": 2}, "vncdisplay"),
        ({"keymap": "fr"}, "keymap"),
        ({"vnc": True, "vncdisplay": 2, "vncunused": True}, "vncunused"),
        ({"model": "e1000"}, "model"),
        ({"suite": "buster", "root_password_hash": "$y$j9T$abc$" + "a" * 43}, "root_password_hash"),
        (
            {"root_password_file": "-", "root_password_hash": "$6$saltsalt$aaaa"},
            "root_password_hash",
        ),
        ({"address": "10.0.0.5/24", "dhcp": True}, "address"),
        ({"gateway": "10.0.0.1"}, "gateway"),
        ({"address": "10.0.0.5"}, "address"),
        ({"address": "2001:db8::5", "netmask": "255.255.255.0"}, "address"),
        ({"address": "10.0.0.5/24", "netmask": "255.255.255.0"}, "netmask"),
        ({"address": "10.0.0.5/24", "gateway": "10.0.1.1"}, "gateway"),
        ({"address": "10.0.0.5/24", "gateway": "10.0.0.5"}, "gateway"),
        ({"address": "10.0.0.5/24", "gateway6": "2001:db8::1"}, "gateway6"),
        ({"address": "10.0.0.0/24"}, "address"),
        ({"address": "10.0.0.255/24"}, "address"),
        ({"address": "127.0.0.1/8"}, "address"),
        ({"address": "2001:db8::5/64", "mtu": 1000}, "mtu"),
        ({"interfaces": [{"address": "10.0.0.5"}]}, "interfaces[0].address"),
        (
            {"mac": "00:16:3E:00:00:01", "interfaces": [{"mac": "00:16:3e:00:00:01"}]},
            "interfaces[0].mac",
        ),
        ({"vifname": "a", "interfaces": [{"vifname": "a"}]}, "interfaces[0].vifname"),
        (
            {"address": "10.0.0.5/24", "interfaces": [{"address": "10.0.0.5/24"}]},
            "interfaces[0].address",
        ),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys: dict[str, Any], clashing: str) -> None:
    assert clashing in clashes(**keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"type": "pvh", "boot": "pygrub"},
        {"type": "pvh", "boot": "grub"},
        {"type": "hvm", "boot": "direct", "model": "e1000"},
        {"boot": "grub", "fs": "xfs"},
        {"boot": "pygrub", "bootloader": "/usr/lib/xen-3.2-1/bin/pygrub", "xen": "3.2"},
        {"address": "10.0.0.5/32", "gateway": "10.9.9.9"},
        {"address": "10.0.0.0/31", "gateway": "10.0.0.1"},
        {"vnc": True, "vncdisplay": 2},
        {"lvm": "VG0", "lvm_thin": "pool"},
        {"suite": "trixie", "init": "sysvinit", "swap": "0"},
        {"suite": "trixie", "arch": "i386", "kernel": "/boot/vmlinuz-5.10-686"},
        {"suite": "etch", "xen": "3.0", "root_password_hash": "$1$abcdefgh$" + "a" * 22},
    ],
)
def test_keys_that_go_together_pass(keys: dict[str, Any]) -> None:
    assert not clashes(**keys)


def test_vnc_takes_a_free_display_unless_one_is_named() -> None:
    assert make_spec(vnc=True).vncunused is True
    assert make_spec(vnc=True, vncdisplay=2).vncunused is False
    assert make_spec().vncunused is None


def test_all_clashes_are_reported_together() -> None:
    found = clashes(type="pv", boot="firmware", vncdisplay=2, maxmem="64M", gateway="10.0.0.1")
    assert {"boot", "vncdisplay", "maxmem", "gateway"} <= set(found)


@given(st.dictionaries(st.sampled_from(sorted(Spec.model_fields)), st.text(max_size=20)))
def test_any_texts_make_a_spec_or_a_validation_error(keys: dict[str, str]) -> None:
    try:
        spec = make_spec(**keys)
    except ValidationError:
        return
    assert spec.cards
    assert spec.as_json()


@pytest.mark.parametrize(
    ("keys", "has_seed"),
    [
        ({}, True),
        ({"boot": "pygrub", "kernel": "linux-image-amd64"}, False),
        ({"kernel": "/boot/vmlinuz-3.16.0-4-amd64"}, False),
        ({"fs": "ext3"}, False),
        ({"suite": "wheezy", "security": False}, False),
    ],
)
def test_checksums_have_their_own_seed_where_no_grub_reads_them(
    keys: dict[str, Any], has_seed: bool
) -> None:
    spec = make_spec(**keys)
    assert ("metadata_csum_seed" in spec.mke2fs_features(spec.fs)) is has_seed
