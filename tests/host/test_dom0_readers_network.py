"""Bridge and NAT in real Debian trees: read by their programs, brought up, and taken down again.

A host, two guests and a server are namespaces joined by cables (network_bench.py). systemd is no
init there: what its units start is started by their own lines.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.dom0.setup.bridges import NETWORK
from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.ifupdown import INTERFACES
from pipeline.dom0.setup.networkd import FOLDER
from tests.conftest import require
from tests.host.network_bench import Change, Machine, build_tree, connect, machine
from tests.turns import spread
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build]
BY_IFUPDOWN = """auto lo
iface lo inet loopback

source /etc/network/interfaces.d/*

# the office
auto eth0
iface eth0 inet static
    address 192.168.1.5/24
    gateway 192.168.1.1
"""
BY_NETWORKD = "[Match]\nName=eth0\n\n[Network]\nAddress=192.168.1.5/24\nGateway=192.168.1.1\n"
SERVER = "192.168.1.1"
TABLES = {
    "bridge": {"br-xen": {"ports": ["eth0"]}},
    "nat": {"br-nat": {"address": "10.9.0.1/24", "host_ports": [3142]}},
}
FILES = {
    "ifupdown": {INTERFACES: BY_IFUPDOWN},
    "networkd": {INTERFACES: "auto lo\n", f"{FOLDER}/20-office.network": BY_NETWORKD},
}


@pytest.fixture(scope="module", params=spread(["bookworm", "trixie"], 4))
def tree(
    request: pytest.FixtureRequest, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    require(os.geteuid() == 0, "needs root for network namespaces")
    folder = tmp_path_factory.mktemp("tree")
    yield build_tree(workshop, request.param, folder)
    shutil.rmtree(folder)


def stage(host: HostView, settings: HostSettings, folder: Path) -> Path:
    """The new files beside the rest of the host's /etc."""
    shutil.copytree(host.root / "etc", folder / "etc", symlinks=True)
    for path, content in host.changed.items():
        write(folder, path, content or b"")
    for file in NETWORK.render(settings, host):
        assert NETWORK.has_place(file.path)
        if not file.link:
            write(folder, file.path, file.content or b"")
    return folder


def write(folder: Path, path: str, content: bytes) -> None:
    place = folder / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


MISTAKES = {
    "ifupdown": [
        (
            f"{FOLDER.replace('systemd/network', 'network/interfaces.d')}/br-xen",
            "inet static",
            "inet statik",
        ),
        (INTERFACES, "iface eth0 inet", "iface eth0 inet7"),
        ("/etc/domu/br-nat.nft", "masquerade", "masquerode"),
        ("/etc/domu/br-nat.dnsmasq", "bind-dynamic", "bind-dynamik"),
        ("/etc/sysctl.d/60-domu-nat.conf", "ip_forward", "ip_forwards"),
    ],
    "networkd": [
        (f"{FOLDER}/00-domu-br-xen.netdev", "STP=", "SPT="),
        (f"{FOLDER}/00-domu-br-xen.network", "Address=192", "Address=392"),
        (f"{FOLDER}/00-domu-br-xen-port-eth0.network", "Name=eth0", "Name=eth9"),
        ("/etc/systemd/system/domu-nat-br-nat.service", "sbin/dnsmasq", "sbin/dnsmask"),
    ],
}


@pytest.mark.parametrize("tool", FILES)
def test_the_host_s_own_programs_take_every_file_and_refuse_a_wrong_one(
    tree: Path, tmp_path: Path, tool: str
) -> None:
    changed = {path: text.encode() for path, text in FILES[tool].items()}
    host = replace(HostView.of(tree), changed=changed)
    settings = HostSettings.model_validate({"network": tool, **TABLES})
    new = stage(host, settings, tmp_path)
    findings = [item for item in NETWORK.check(settings, host, new) if item.level != "warning"]
    assert {item.level for item in findings} == {"ok"}, findings
    rendered = {file.path for file in NETWORK.render(settings, host) if not file.link}
    read = {item.subject for item in findings}
    assert {path for path in rendered - read if "interfaces.d" not in path} <= {
        f"{FOLDER}/00-domu-br-xen.netdev",
        f"{FOLDER}/00-domu-br-nat.netdev",
    }
    for path, right, wrong in MISTAKES[tool]:
        good = (new / path.lstrip("/")).read_text()
        assert right in good
        write(new, path, good.replace(right, wrong).encode())
        errors = [item for item in NETWORK.check(settings, host, new) if item.level == "error"]
        assert errors, f"{path} with {wrong}"
        write(new, path, good.encode())


@pytest.fixture
def machines(tree: Path) -> Iterator[dict[str, Machine]]:
    """A host with a port to a server, which knows the way to guests behind the host."""
    with ExitStack() as stack:
        host = stack.enter_context(machine(tree))
        others = {name: stack.enter_context(machine()) for name in ("server", "guest", "private")}
        connect(host, "eth0", others["server"], "eth0")
        others["server"].run("ip", "address", "add", f"{SERVER}/24", "dev", "eth0")
        others["server"].run("ip", "route", "add", "10.9.0.0/24", "via", "192.168.1.5")
        stack.enter_context(others["server"].serving(7))
        yield {"host": host, **others}


def plug_in(host: Machine, guest: Machine, bridge: str, name: str) -> None:
    """As Xen's vif-bridge does."""
    connect(host, name, guest, "eth0")
    host.outside("ip", "link", "set", name, "master", bridge)


def take_lease(guest: Machine, folder: Path) -> str:
    """The address that DHCP gives, taken with its router."""
    script = folder / "udhcpc"
    script.write_text(
        '#!/bin/sh\n[ "$1" = bound ] || exit 0\nip address add "$ip/$mask" dev "$interface"\n'
        'ip route add default via "$router"\necho "$dns" >"$0.dns"\n'
    )
    script.chmod(0o755)
    words = ["-i", "eth0", "-n", "-q", "-f", "-t", "20", "-T", "1", "-x", "hostname:web1"]
    guest.run("busybox", "udhcpc", *words, "-s", str(script))
    return guest.run("ip", "-br", "-4", "address", "show", "dev", "eth0").split()[2]


def test_ifupdown_brings_guests_to_a_server_and_undo_takes_them_off(
    machines: dict[str, Machine], tmp_path: Path
) -> None:
    host = machines["host"]
    write(host.root, INTERFACES, BY_IFUPDOWN.encode())
    host.run("ifup", "-a")
    live_and_go(machines, Change(host, **TABLES), tmp_path)
    assert (host.root / "etc/network/interfaces").read_text() == BY_IFUPDOWN


def start_networkd(host: Machine, files: dict[str, str]) -> None:
    """With a bus, for networkctl, and until the server answers."""
    for path, text in files.items():
        write(host.root, path, text.encode())
    write(host.root, "/etc/machine-id", b"%032x\n" % 5)  # DHCP knows the host by it
    host.run("sh", "-c", "mkdir -p /run/dbus /run/systemd/resolve && dbus-daemon --system --fork")
    host.run("sh", "-c", "/usr/lib/systemd/systemd-networkd >/run/networkd.log 2>&1 &")
    wait_for_server(host)


def wait_for_server(host: Machine) -> str:
    """The host's address, as the server sees it."""
    for _ in range(30):
        if address := host.ask(SERVER, timeout=1):
            return address
        time.sleep(1)
    pytest.fail((host.root / "run/networkd.log").read_text())


def test_networkd_brings_guests_to_a_server_and_undo_takes_them_off(
    machines: dict[str, Machine], tmp_path: Path
) -> None:
    host = machines["host"]
    start_networkd(host, FILES["networkd"])
    live_and_go(machines, Change(host, network="networkd", **TABLES), tmp_path)


def test_a_bridge_gets_the_address_that_dhcp_gave_its_port(
    machines: dict[str, Machine], tmp_path: Path
) -> None:
    host, server = machines["host"], machines["server"]
    words = ["dnsmasq", "-k", "-C", "/dev/null", "-p", "0", "-i", "eth0", "-F"]
    words += ["192.168.1.100,192.168.1.200", f"--dhcp-leasefile={tmp_path / 'leases'}"]
    with subprocess.Popen(server.words(*words), stderr=subprocess.DEVNULL) as dhcp:
        try:
            office = BY_NETWORKD.partition("Address")[0] + "DHCP=ipv4\n"
            start_networkd(host, {INTERFACES: "", f"{FOLDER}/20-office.network": office})
            address = wait_for_server(host)
            change = Change(host, network="networkd", bridge=TABLES["bridge"])
            change.apply()
            assert wait_for_server(host) == address
            assert f"{address}/" in host.outside("ip", "-br", "-4", "address", "show", "br-xen")
            # udev would give the bridge another number than the port's
            ours = host.root / FOLDER.lstrip("/") / "00-domu-br-xen.network"
            assert "\nIAID=" in ours.read_text()
            change.undo()
            assert wait_for_server(host) == address
            assert len((tmp_path / "leases").read_text().splitlines()) == 1
        finally:
            dhcp.terminate()


def live_and_go(machines: dict[str, Machine], change: Change, folder: Path) -> None:
    """The change applied, looked at and undone, beside an open connection of the host's."""
    host, server = machines["host"], machines["server"]
    guest, private = machines["guest"], machines["private"]
    rules = host.run("nft", "list", "ruleset")
    mac = host.outside("ip", "-br", "link", "show", "eth0").split()[2]
    with host.connected(SERVER) as line:
        assert line.say("before") == "192.168.1.5 before\n"
        change.apply()
        assert line.say("bridged") == "192.168.1.5 bridged\n"
        look(machines, folder)
        change.undo()
        assert line.say("undone") == "192.168.1.5 undone\n"
    assert host.ask(SERVER) == "192.168.1.5"
    assert not guest.ask(SERVER) and not private.ask(SERVER)
    assert host.run("nft", "list", "ruleset") == rules
    assert host.run("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
    links = host.outside("ip", "-br", "link")
    assert "br-xen" not in links and "br-nat" not in links and mac in links
    assert "dnsmasq" not in host.run("ps", "-e")
    assert server.ask("192.168.1.5", 22) == ""


def look(machines: dict[str, Machine], folder: Path) -> None:
    """Who reaches whom."""
    host, server = machines["host"], machines["server"]
    guest, private = machines["guest"], machines["private"]
    links = dict(line.split()[::2][:2] for line in host.outside("ip", "-br", "link").splitlines())
    assert links["br-xen"] == next(mac for name, mac in links.items() if name.startswith("eth0"))
    plug_in(host, guest, "br-xen", "vif1.0")
    plug_in(host, private, "br-nat", "vif2.0")
    guest.run("ip", "address", "add", "192.168.1.50/24", "dev", "eth0")
    assert guest.ask(SERVER) == "192.168.1.50"
    address, _, length = take_lease(private, folder).partition("/")
    assert address.startswith("10.9.0.") and length == "24"
    assert private.ask(SERVER) == "192.168.1.5"
    assert (folder / "udhcpc.dns").read_text() == "10.9.0.1\n"
    assert address in private.run("busybox", "nslookup", "web1", "10.9.0.1", accept=False)
    with host.serving(22, 3142), private.serving(8):
        assert host.ask("127.0.0.1", 22) and host.ask(address, 8)
        assert private.ask("10.9.0.1", 3142) and not private.ask("10.9.0.1", 22)
        assert not private.ask("192.168.1.5", 22)
        assert guest.ask("192.168.1.5", 22)  # as anybody in the host's network
        assert not server.ask(address, 8) and not guest.ask(address, 8)
