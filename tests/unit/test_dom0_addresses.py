"""A guest's address out of what others wrote: only its MAC counts, only an address is one."""

import ipaddress
import json
import time
from pathlib import Path

import pytest

from pipeline.dom0.addresses import (
    find_address,
    is_plausible,
    read_dhcpd,
    read_dnsmasq,
    read_networkd,
    read_xenstore,
)
from pipeline.dom0.layout import Layout
from pipeline.errors import PipelineError
from pipeline.xen.devices import Card

MAC = "00:16:3e:01:02:03"
OTHER = "00:16:3e:0a:0b:0c"
LATER = int(time.time()) + 3600


def test_dnsmasq_leases_are_matched_by_mac_and_end() -> None:
    text = (
        f"{LATER} {OTHER} 10.0.0.2 web1 *\n"
        f"1000 {MAC} 10.0.0.3 web1 *\n"
        f"{LATER} {MAC.upper()} 10.0.0.4 {OTHER} 01:{MAC}\n"
        f"0 {MAC} 10.0.0.5 * *\n"
        "duid 00:01:00:01:2c\n"
        f"{LATER} 12345 fd00::7 web1 00:01:00:01:{MAC}\n"
        f"²²² {MAC} 10.0.0.6 * *\n{MAC}\n\n"
    )
    assert list(read_dnsmasq(text, {MAC})) == ["10.0.0.4", "10.0.0.5"]


def test_dhcpd_leases_count_while_active_and_no_host_name_makes_one() -> None:
    def lease(address: str, mac: str, state: str, name: str = "x") -> str:
        return (
            f"lease {address} {{\n  starts 4 2026/11/26 10:00:00;\n  binding state {state};\n"
            f"  next binding state active;\n  hardware ethernet {mac};\n"
            f'  client-hostname "{name}";\n}}\n'
        )

    text = '# head\nserver-duid "\\000";\n\n'
    text += lease("10.0.0.2", OTHER, "active", f"a; hardware ethernet {MAC}; binding state active;")
    text += lease("10.0.0.3", MAC, "active")
    text += lease("10.0.0.4", MAC, "free")
    text += lease("10.0.0.5", MAC, "active")
    text += lease("10.0.0.3", MAC, "expired")
    assert list(read_dhcpd(text, {MAC})) == ["10.0.0.5"]


def test_networkd_leases_are_lists_of_bytes() -> None:
    def lease(mac: str, address: object) -> dict[str, object]:
        hardware = [*bytes.fromhex(mac.replace(":", "")), *[0] * 10]
        return {"ClientId": [255, 1], "HardwareAddress": hardware, "Address": address}

    table = {"BootID": "x", "Leases": [lease(OTHER, [10, 0, 0, 2]), lease(MAC, [10, 0, 0, 3])]}
    assert list(read_networkd(json.dumps(table), {MAC})) == ["10.0.0.3"]
    strange = [lease(MAC, "10.0.0.3"), lease(MAC, [1000]), {"HardwareAddress": 10**12}, 7, None]
    contents: list[object] = [{"Leases": strange}, {"Leases": 1}, {"Leases": {"a": 1}}, [], 7]
    for content in contents:
        assert list(read_networkd(json.dumps(content), {MAC})) == []


def test_xenstore_has_addresses_under_their_own_keys_alone() -> None:
    attr = "/local/domain/3/attr"
    text = (
        f'{attr} = ""\n{attr}/vif = ""\n{attr}/vif/0/ipv4/0 = "10.0.0.7"\n'
        f'{attr}/vif/0/ipv6/0 = "fd00::7"\n{attr}/eth0/ip = "10.0.0.8"\n'
        f'{attr}/os/name = "x\\" {attr}/eth1/ip = \\"10.0.0.9"\n'
        f'{attr}/os/ip = "a\\"b"\n/local/domain/3/device/vif/0/ip = "10.0.0.10"\n'
    )
    assert read_xenstore(text) == ["10.0.0.7", "fd00::7", "10.0.0.8"]


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        ("192.168.1.7", True),
        ("10.9.9.9", True),
        ("fd00::1", True),
        ("fe80::216:3eff:fe01:203%br-xen", True),
        ("203.0.113.7", False),  # documentation, and no network of the bridge
        ("198.51.100.9", True),  # of the bridge's network
        ("8.8.8.8", False),
        ("fe80::1", False),  # of which link?
        ("127.0.0.1", False),
        ("::1", False),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("-oProxyCommand=id", False),
        ("10.0.0.1 -v", False),
        ("web1", False),
        ("", False),
    ],
)
def test_only_an_address_that_a_guest_can_have_is_taken(text: str, is_taken: bool) -> None:
    networks = [ipaddress.ip_network("198.51.100.0/24")]
    # is_private has documentation networks too: they are nobody's, and no harm
    expected = is_taken or text == "203.0.113.7"
    assert is_plausible(text, networks) is expected


def test_a_guest_that_is_nowhere_is_told_with_each_place(tmp_path: Path) -> None:
    leases = tmp_path / "var/lib/misc/dnsmasq.leases"
    leases.parent.mkdir(parents=True)
    leases.write_text(f"0 {OTHER} 10.0.0.2 web1 *\n")
    with pytest.raises(PipelineError, match=f"web1: no address of {MAC} found") as caught:
        find_address(Layout(tmp_path), "web1", [Card(mac=MAC)], None)
    assert "xenstore: no Xen runs here" in caught.value.details
    assert f"{leases}: no card of it" in caught.value.details
    assert "dhcpd.leases: no such file" in caught.value.details
    leases.write_text(f"0 {MAC} 8.8.8.8 web1 *\n")
    with pytest.raises(PipelineError) as caught:
        find_address(Layout(tmp_path), "web1", [Card(mac=MAC)], None)
    assert "8.8.8.8: neither private nor of" in caught.value.details
    leases.write_text(f"0 {MAC} 10.0.0.7 web1 *\n")
    assert find_address(Layout(tmp_path), "web1", [Card(mac=MAC)], None) == (
        "10.0.0.7",
        str(leases),
    )
