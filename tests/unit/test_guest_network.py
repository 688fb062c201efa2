"""The guest's network files, for both names that a card can have."""

from pipeline.guest.network import network_files
from tests.specs import make_spec


def test_dhcp_matches_eth0_and_enx0_and_keeps_the_guests_own_name() -> None:
    text = network_files(make_spec())["/etc/systemd/network/10-card0.network"]
    assert "Name=eth0 enX0\n" in text
    assert "DHCP=yes\n" in text
    assert "[DHCPv4]\nUseHostname=no\n" in text


def test_static_ipv4_and_ipv6_with_gateways_and_name_servers() -> None:
    spec = make_spec(
        address=["192.168.1.10/24", "2001:db8::5/64"],
        gateway="192.168.1.1",
        gateway6="fe80::1",
        nameservers=["192.168.1.1", "2001:db8::53"],
        mtu=1400,
    )
    assert network_files(spec)["/etc/systemd/network/10-card0.network"] == (
        "[Match]\nName=eth0 enX0\n\n[Link]\nMTUBytes=1400\n\n[Network]\n"
        "Address=192.168.1.10/24\nAddress=2001:db8::5/64\n"
        "Gateway=192.168.1.1\nGateway=fe80::1\nDNS=192.168.1.1\nDNS=2001:db8::53\n"
    )


def test_a_second_card_has_a_file_of_its_own() -> None:
    spec = make_spec(interfaces=[{"address": ["10.0.0.2/24"], "bridge": "br-drbd"}])
    files = network_files(spec)
    assert sorted(files) == [
        "/etc/systemd/network/10-card0.network",
        "/etc/systemd/network/10-card1.network",
    ]
    assert "Name=eth1 enX1\n" in files["/etc/systemd/network/10-card1.network"]


def test_sysvinit_gets_an_interfaces_file_that_old_ifupdown_reads_too() -> None:
    spec = make_spec(
        init="sysvinit",
        address=["192.168.1.10/24", "2001:db8::5/64"],
        gateway="192.168.1.1",
        nameservers=["192.168.1.1"],
        hostname="web1.example.org",
    )
    files = network_files(spec)
    assert files["/etc/network/interfaces"] == (
        "auto lo\niface lo inet loopback\n\n"
        "auto eth0\n"
        "iface eth0 inet static\n    address 192.168.1.10\n    netmask 255.255.255.0\n"
        "    gateway 192.168.1.1\n\n"
        "iface eth0 inet6 static\n    address 2001:db8::5\n    netmask 64\n"
    )
    assert files["/etc/resolv.conf"] == "search example.org\nnameserver 192.168.1.1\n"


def test_sysvinit_with_dhcp_asks_for_it() -> None:
    text = network_files(make_spec(init="sysvinit"))["/etc/network/interfaces"]
    assert "auto eth0\niface eth0 inet dhcp\n" in text
