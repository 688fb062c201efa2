"""Bridges of systemd-networkd, NAT, and the commands that bring either to life."""

import shlex
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.dom0.setup.bridges import NETWORK
from pipeline.dom0.setup.dom0_file import require_sense
from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.ifupdown import INTERFACES
from pipeline.dom0.setup.nat import SYSCTL
from pipeline.dom0.setup.networkd import FOLDER
from pipeline.dom0.setup.parts import PARTS
from pipeline.errors import PipelineError, SpecError
from tests.unit.test_dom0_network_ifupdown import make_host, render

LINK = "/sys/class/net/eth0/"
OLD = """[Match]
Name=en* eth*

[Link]
MTUBytes=1400

[Network]
DHCP=yes
Address=192.168.1.5/24
Address=2001:db8::5/64
Gateway=192.168.1.1
VLAN=eth0.5

[Route]
Destination=10.8.0.0/16
Gateway=192.168.1.2

[Address]
Address=192.168.1.6/24
Label=eth0:1

[DHCPv4]
UseDNS=no
"""
BRIDGE = {"br-xen": {"ports": ["eth0"]}}
NAT = {"br-nat": {"address": "10.9.0.1/24"}}


def render_networkd(files: dict[str, str], **tables: Any) -> dict[str, str]:
    return render(make_host(files), network="networkd", **tables)


def test_a_port_s_file_is_taken_apart_and_stays_itself() -> None:
    old = {f"{FOLDER}/10-cards.network": OLD, f"{LINK}address": "02:00:00:00:00:05\n"}
    files = render_networkd(old, bridge=BRIDGE)
    assert files[f"{FOLDER}/10-cards.network"] == OLD
    port = "[Match]\nName=eth0\n\n[Link]\nMTUBytes=1400\n\n[Network]\nBridge=br-xen\nVLAN=eth0.5\n"
    assert files[f"{FOLDER}/00-domu-br-xen-port-eth0.network"] == port
    given = OLD.replace("en* eth*", "br-xen").replace("VLAN=eth0.5\n", "")
    given = given.replace("[Link]\nMTUBytes=1400\n\n", "")
    assert files[f"{FOLDER}/00-domu-br-xen.network"] == given
    netdev = "[NetDev]\nName=br-xen\nKind=bridge\nMACAddress=02:00:00:00:00:05\n"
    assert files[f"{FOLDER}/00-domu-br-xen.netdev"] == (
        f"{netdev}\n[Bridge]\nSTP=no\nForwardDelaySec=0\n"
    )


def test_each_family_of_networkd_is_said_anew_or_as_it_was() -> None:
    said = {"ports": ["eth0"], "address": "10.0.0.2/24", "gateway": "10.0.0.1"}
    files = render_networkd({f"{FOLDER}/10-cards.network": OLD}, bridge={"br-xen": said})
    head = "Address=10.0.0.2/24\nGateway=10.0.0.1\nDHCP=ipv6\nAddress=2001:db8::5/64\n\n[Route]\n"
    text = files[f"{FOLDER}/00-domu-br-xen.network"]
    assert head in text and "192.168.1.6" not in text


@pytest.mark.parametrize(
    ("match", "is_it"),
    [
        ("Name=eth0", True),
        ("Name=!eth1 lo", True),
        ("Name=!eth*", False),
        ("Type=ether", True),
        ("Type=wlan", False),
        ("Name=eth*\nDriver=e1000", False),
        ("MACAddress=02:00:00:00:00:05", True),
        ("MACAddress=02:00:00:00:00:06", False),
    ],
)
def test_the_file_of_a_port_is_the_first_that_matches(match: str, is_it: bool) -> None:
    files = {
        f"{LINK}address": "02:00:00:00:00:05\n",
        f"{FOLDER}/10-a.network": f"[Match]\n{match}\n[Network]\nDNS=10.0.0.1\n",
        "/usr/lib/systemd/network/20-b.network": "[Match]\nName=*\n[Network]\nDNS=10.0.0.2\n",
    }
    text = render_networkd(files, bridge=BRIDGE)[f"{FOLDER}/00-domu-br-xen.network"]
    assert ("DNS=10.0.0.1" in text) == is_it and ("DNS=10.0.0.2" in text) != is_it


def test_networkd_s_own_word_goes_before_ours_and_its_lease_is_had_again() -> None:
    files = {
        f"{LINK}ifindex": "3\n",
        "/run/systemd/netif/links/3": "STATE=up\nNETWORK_FILE=/run/systemd/network/x.network\n",
        "/run/systemd/netif/leases/3": "ADDRESS=10.0.0.9\nCLIENTID=ff0a0b0c0d00020000ab11\n",
        "/run/systemd/network/x.network": "[Match]\nDriver=x\n[Network]\nDHCP=yes\n",
        "/run/systemd/network/x.network.d/a.conf": "[Network]\nNTP=10.0.0.1\n",
        f"{FOLDER}/10-a.network": "[Match]\nName=eth0\n[Network]\nDHCP=no\n",
    }
    text = render_networkd(files, bridge=BRIDGE)[f"{FOLDER}/00-domu-br-xen.network"]
    assert text.endswith("DHCP=yes\nNTP=10.0.0.1\n\n[DHCPv4]\nIAID=168496141\n")


def test_a_file_that_sorts_before_ours_is_an_error() -> None:
    files = {f"{FOLDER}/00-a.network": "[Match]\nName=eth*\n"}
    settings = HostSettings.model_validate({"network": "networkd", "bridge": BRIDGE})
    host = make_host({**files, "/usr/lib/systemd/systemd-networkd": ""})
    seen = list(NETWORK.render(settings, host))
    assert seen and find_errors(settings, host) == [
        f"{FOLDER}/00-a.network comes before {FOLDER}/00-domu-br-xen-port-eth0.network"
    ]


def find_errors(settings: HostSettings, host: HostView) -> list[str]:
    """What is found before any reader is asked: none is on a host of no files."""
    findings = NETWORK.check(settings, host, host.root)
    errors = [item.text for item in findings if item.level == "error"]
    return [text for text in errors if "is not installed" not in text]


def test_what_ifupdown_configures_is_not_taken_over_by_networkd() -> None:
    with pytest.raises(PipelineError, match="eth0 is configured by ifupdown"):
        render_networkd({INTERFACES: "iface eth0 inet dhcp\n"}, bridge=BRIDGE)


def test_nat_of_ifupdown_filters_before_the_bridge_is_up() -> None:
    files = render(make_host({"/proc/sys/net/ipv4/ip_forward": "1\n"}), nat=NAT)
    lines = files[INTERFACES].splitlines()
    assert lines[:4] == [
        "auto br-nat",
        "iface br-nat inet static",
        "    address 10.9.0.1",
        "    netmask 255.255.255.0",
    ]
    assert "    pre-up nft -f /etc/domu/br-nat.nft" in lines
    assert "    up dnsmasq -C /etc/domu/br-nat.dnsmasq" in lines
    assert files[SYSCTL] == "# before this file: 1\nnet.ipv4.ip_forward = 1\n"
    assert "dhcp-range=10.9.0.2,10.9.0.254,255.255.255.0,12h" in files["/etc/domu/br-nat.dnsmasq"]


def test_nat_has_a_way_out_and_services_that_are_named() -> None:
    rules = render(make_host({}), nat=NAT)["/etc/domu/br-nat.nft"]
    assert "tcp dport {" not in rules and 'oifname != "eth0"' not in rules
    more = {"address": "10.9.0.1/24", "out": "eth0", "host_ports": [22, 3142], "first": "10.9.0.50"}
    files = render(make_host({}), nat={"br-nat": more})
    assert "        tcp dport { 22, 3142 } accept\n        drop\n" in files["/etc/domu/br-nat.nft"]
    assert '        oifname != "eth0" drop\n    }\n' in files["/etc/domu/br-nat.nft"]
    assert "dhcp-range=10.9.0.50,10.9.0.254," in files["/etc/domu/br-nat.dnsmasq"]


def test_nat_is_refused_where_nftables_cannot() -> None:
    with pytest.raises(PipelineError, match="lenny"):
        render(make_host({}, "lenny"), nat=NAT)


def test_a_dnsmasq_of_the_host_that_listens_everywhere_is_an_error() -> None:
    settings = HostSettings.model_validate({"nat": NAT})
    files = {"/etc/dnsmasq.conf": "domain-needed\n", "/etc/init.d/dnsmasq": ""}
    assert any("listens everywhere" in text for text in find_errors(settings, make_host(files)))
    files["/etc/dnsmasq.d/own"] = "bind-dynamic\n"
    assert find_errors(settings, make_host(files)) == []


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"bridge": {"br": {"address": "10.0.0.2"}}}, "no prefix length"),
        ({"bridge": {"br": {"address": "10.0.0.0/24"}}}, "no host's address"),
        ({"bridge": {"br": {"address": "10.0.0.2/24", "gateway": "10.0.1.1"}}}, "no other address"),
        ({"bridge": {"br": {"address": "fd::2/64", "gateway": "10.0.1.1"}}}, "and no address"),
        ({"bridge": {"br": {"address": "10.0.0.2/24", "dhcp": True}}}, "has an address too"),
        ({"bridge": {"br": {"stp": True}}}, "too few for stp"),
        ({"bridge": {"br": {"hello": 0}}}, "hello"),
        ({"bridge": {"br": {"ports": ["br"]}}}, "br is a bridge"),
        ({"bridge": {"a": {"ports": ["eth0"]}, "b": {"ports": ["eth0"]}}}, "2 problems"),
        ({"bridge": {"lo": {}}}, "no network device"),
        ({"bridge": {"br": {"ports": ["eth0:1"]}}}, "no network device"),
        ({"nat": {"n": {"address": "10.0.0.1/31"}}}, "no address to guests"),
        ({"nat": {"n": {"address": "fd00::1/64"}}}, "no IPv4 network"),
        ({"nat": {"n": {"address": "10.0.0.1/24", "last": "10.0.1.9"}}}, "no guest's address"),
        ({"nat": {"n": {"address": "10.0.0.1/24", "host_ports": [0]}}}, "host_ports"),
        ({"nat": {"n": {"address": "10.0.0.1/24"}, "m": {"address": "10.0.0.65/26"}}}, "overlaps"),
    ],
)
def test_a_network_that_cannot_be_is_a_mistake_in_dom0_toml(table: Any, why: str) -> None:
    with pytest.raises((ValidationError, SpecError), match=why):
        require_sense(HostSettings.model_validate(table), source="dom0.toml")


def commands(switch: Any, *arguments: Any) -> list[str]:
    return [shlex.join(command) for command in switch(*arguments)]


def test_ifupdown_s_devices_go_as_they_came_and_come_as_they_are_to_be() -> None:
    nothing, settings = HostSettings(), HostSettings.model_validate({"bridge": BRIDGE})
    before = make_host({INTERFACES: "auto eth0\niface eth0 inet dhcp\n", f"{LINK}x": ""})
    after = make_host(render(before, bridge=BRIDGE))
    assert commands(NETWORK.deactivate, nothing, settings, before) == ["ifdown eth0"]
    assert commands(NETWORK.activate, nothing, settings, after) == ["ifup eth0", "ifup br-xen"]
    assert commands(NETWORK.deactivate, settings, nothing, after) == [
        "ifdown br-xen",
        "ifdown eth0",
    ]
    assert commands(NETWORK.activate, settings, nothing, before) == ["ifup eth0"]
    stanza = "auto eth0\niface eth0 inet dhcp\n"
    half = make_host({INTERFACES: stanza, f"{LINK}x": "", "/sys/class/net/br-xen/bridge": ""})
    came = commands(NETWORK.activate, settings, nothing, half)
    assert came == ["ip link delete br-xen", "ifup eth0"], "ifdown knows nothing of it"


def test_a_change_of_the_network_alone_is_brought_up_at_once() -> None:
    """Also a bridge without ports, which nothing is to be done for before its files are there."""
    assert [part.name for part in PARTS if part.works_at_once] == ["network"]


def test_networkd_s_devices_are_read_anew_and_nat_is_its_unit() -> None:
    nothing, tables = HostSettings(), {"network": "networkd", "bridge": BRIDGE, "nat": NAT}
    settings = HostSettings.model_validate(tables)
    before = make_host({"/proc/sys/net/ipv4/ip_forward": "0"})
    after = make_host(render(before, **tables))
    assert commands(NETWORK.after, settings, after) == ["systemctl daemon-reload"]
    assert commands(NETWORK.activate, nothing, settings, after) == [
        f"sysctl -q -p {SYSCTL}",
        "networkctl reload",
        "networkctl reconfigure eth0",
        "systemctl restart domu-nat-br-nat.service",
    ]
    assert commands(NETWORK.deactivate, settings, nothing, after) == [
        "sysctl -q net.ipv4.ip_forward=0",
        "systemctl stop domu-nat-br-nat.service",
    ]
    assert commands(NETWORK.activate, settings, nothing, before) == [
        "networkctl reload",
        "networkctl reconfigure eth0",
    ]
