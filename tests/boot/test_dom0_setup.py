"""`doit dom0` in a real dom0: guests reach the world by bridge and by NAT, and back it all goes.

The world is a network namespace behind a pair of virtual cards; the host's end is its eth0. Another
machine there has an SSH connection to the host, over which the host is set up.
"""

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.proof.agent import Reply
from pipeline.proof.timeouts import VARIABLE, patient
from tests.boot.conftest import Prover
from tests.boot.test_life_in_dom0 import step
from tests.conftest import ROOT
from tests.dom0 import Dom0, running_dom0
from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [
    pytest.mark.integration,
    pytest.mark.build,
    pytest.mark.timeout(3000),
    in_turn("boot", "a host set up for guests"),
]
SETTINGS = ROOT / "dom0.toml"
INTERFACES = """auto lo
iface lo inet loopback

# the only card
auto eth0
iface eth0 inet static
    address 192.0.2.2/24
    gateway 192.0.2.1
"""
OUTSIDE, HOST, BRIDGED = "192.0.2.1", "192.0.2.2", "192.0.2.10"
CARD = f"[Match]\nName=eth0\n\n[Network]\nAddress={HOST}/24\nGateway={OUTSIDE}\n"
NAT = '\n[nat.br-nat]\naddress = "10.9.8.1/24"\n'
WRONG = """[bridge.br-xen]
ports = ["eth0"]
address = "198.51.100.2/24"
gateway = "198.51.100.1"
"""
BASE = """suite = "bookworm"
packages = ["drbd-utils"]
size = "1G"
swap = "64M"
memory = "192M"
type = "pv"
"""
GUESTS = {
    "bridged": f'bridge = "br-xen"\naddress = "{BRIDGED}/24"\ngateway = "{OUTSIDE}"\n',
    "behind": 'bridge = "br-nat"\ndhcp = true\n',
}
SET_UP = f"""
mkdir -p /run/network /run/sshd /etc/network/interfaces.d
ip netns add outside
ip link add eth0 type veth peer name cable netns outside
ip -n outside link set lo up
ip -n outside link set cable up
ip -n outside address add {OUTSIDE}/24 dev cable
ifup -a
systemd-machine-id-setup >/dev/null 2>&1
ssh-keygen -A >/dev/null
ssh-keygen -q -t ed25519 -N '' -f /run/key
mkdir -pm 700 /root/.ssh
cat /run/key.pub >/root/.ssh/authorized_keys
/usr/sbin/sshd
mkdir -p /run/world && echo the world >/run/world/page
ip netns exec outside python3 -m http.server -d /run/world 80 >/run/world.log 2>&1 &
"""
ASK = f"exec 3<>/dev/tcp/{OUTSIDE}/80; printf 'GET /page HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
# of folders no time: a file in them was exchanged
FILES = (
    "find /etc /boot -xdev -type d -printf '%p %m %u:%g\\n'"
    " -o -printf '%p %y %m %u:%g %s %T@ %l\\n' | sort;"
    " find /etc /boot -xdev -type f -exec sha256sum {} + | sort -k 2"
)
NETWORK = (
    "ip -br -4 address; ip -4 route; ls /sys/class/net; cat /proc/sys/net/ipv4/ip_forward;"
    " nft list ruleset; pgrep -a -r D,R,S dnsmasq; true"
)


@dataclass(frozen=True)
class Remote:
    """The connection of the machine outside to the host, and what is said over it."""

    dom0: Dom0
    words = ("ip", "netns", "exec", "outside", "ssh", "-S", "/run/line", f"root@{HOST}")

    def connect(self) -> None:
        options = "-i /run/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -MNf"
        place = shlex.join(self.words)
        self.dom0.demand(f"{place} {options} >/run/line.log 2>&1 </dev/null")

    @property
    def ends(self) -> str:
        """The TCP connection by its ports: another one has others."""
        ask = "ip netns exec outside ss -Htn state established '( dport = :22 )'"
        return " ".join(self.dom0.demand(ask).split()[2:4])

    def run(self, script: str, *, timeout_s: float = 400) -> Reply:
        return self.dom0.run([*self.words, script], timeout_s=timeout_s)

    def doit(self, *words: str) -> Reply:
        """`doit WORDS...` over that connection; its two streams as one."""
        reply = self.run(f"{self.dom0.line(*words)} 2>&1")
        print(f"  {' '.join(words)}: {reply.status} {reply.output.strip()[-300:]}", flush=True)
        return reply


@pytest.fixture
def guests(prover: Prover, tmp_path: Path) -> Prover:
    folder = tmp_path / "guests"
    folder.mkdir()
    for name, own in GUESTS.items():
        (folder / f"{name}.toml").write_text(BASE + own)
    made = Prover(Workshop(prover.workshop.output, folder), prover.key)
    for name in GUESTS:
        made.build(name)
    return made


@contextmanager
def host(guests: Prover, work: Path) -> Iterator[tuple[Dom0, Remote]]:
    """The dom0 as a host with one card, and the connection to it."""
    os.environ.setdefault(VARIABLE, "3")
    output = guests.workshop.output
    carry = [*(output / name for name in ("guests", "volumes")), guests.key.parent]
    work.mkdir()
    with running_dom0(guests.workshop, work, carry=carry) as dom0:
        dom0.agent.write("/etc/network/interfaces", INTERFACES.encode())
        dom0.demand(f"set -e\nrm -f {SETTINGS}\n{SET_UP}")
        remote = Remote(dom0)
        remote.connect()
        yield dom0, remote


def ask_from(dom0: Dom0, address: str, key: Path) -> str:
    """What a guest hears of the server outside; waits until it is up."""
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=10"
    words = f"ssh -i {key} {options} root@{address} {shlex.quote(f'bash -c {shlex.quote(ASK)}')}"
    end = time.monotonic() + patient(200)
    while (reply := dom0.run(words, timeout_s=60)).status and time.monotonic() < end:
        time.sleep(2)
    assert reply.status == 0, reply.output
    return reply.output


def lease_of(dom0: Dom0) -> str:
    path, end = "/var/lib/misc/domu-br-nat.leases", time.monotonic() + patient(200)
    while time.monotonic() < end:
        if words := dom0.agent.read(path, wait_s=1.0).decode().split():
            return words[2]
    raise AssertionError(dom0.run("cat /var/log/xen/console/guest-behind.log | tail -30").output)


def test_guests_reach_the_world_over_a_host_that_was_set_up_and_is_set_back(
    guests: Prover, tmp_path: Path
) -> None:
    with host(guests, tmp_path / "work") as (dom0, remote):
        files, network, ends = dom0.demand(FILES), dom0.demand(NETWORK), remote.ends
        with step("the first dom0.toml, and what it would change"):
            created = dom0.doit("dom0", "create=yes")
            assert created.status == 0, created.output
            first = dom0.demand(f"cat {SETTINGS}")
            assert '[bridge.br-xen]\nports = ["eth0"]\n' in first
            assert f'gateway = "{OUTSIDE}"' in first
            dry = dom0.doit("dom0", "dry=yes")
            assert dry.status == 0, dry.output
            assert "+auto br-xen" in dry.output
            assert dom0.demand(FILES) == files
        with step("a network that nobody answers over is taken back"):
            dom0.agent.write(str(SETTINGS), WRONG.encode())
            wrong = remote.doit("dom0", "now=yes", "watch=60")
            assert wrong.status == 5, wrong.output
            assert "was taken back" in wrong.output
            assert remote.run("hostname").status == 0
            assert (dom0.demand(FILES), dom0.demand(NETWORK)) == (files, network)
            assert remote.ends == ends, "the connection is another one"
        with step("a bridge and NAT at once, over the connection"):
            dom0.agent.write(str(SETTINGS), f"{first}{NAT}".encode())
            changed = remote.doit("dom0", "now=yes", "watch=300")
            assert changed.status == 0, changed.output
            assert "the change stays" in changed.output
            assert remote.ends == ends
            assert dom0.demand("ls /sys/class/net/br-xen/brif").split() == ["eth0"]
        for name in GUESTS:
            dom0.demand(f"xl create {guests.workshop.output}/guests/{name}/{name}.cfg")
        for name, source in (("bridged", BRIDGED), ("behind", HOST)):
            with step(f"{name} reaches the world, which sees {source}"):
                address = BRIDGED if name == "bridged" else lease_of(dom0)
                assert "the world" in ask_from(dom0, address, guests.key)
                assert dom0.demand("tail -n 1 /run/world.log").split()[0] == source
        for name in GUESTS:
            dom0.demand(f"xl destroy {name}")
        with step("undo"):
            undone = remote.doit("dom0", "undo=yes", "now=yes", "watch=300")
            assert undone.status == 0, undone.output
            assert (dom0.demand(FILES), dom0.demand(NETWORK)) == (files, network)
            assert remote.ends == ends
        with step("systemd-networkd takes up what it is given"):
            take_up_by_networkd(dom0, remote, first)


def take_up_by_networkd(dom0: Dom0, remote: Remote, settings: str) -> None:
    """The program alone: dom0's init is no systemd, which would run it."""
    dom0.demand("ifdown eth0")
    dom0.agent.write("/etc/network/interfaces", b"auto lo\niface lo inet loopback\n")
    dom0.agent.write("/etc/systemd/network/20-eth0.network", CARD.encode())
    dom0.agent.write(str(SETTINGS), settings.encode())
    written = dom0.doit("dom0")
    assert written.status == 0, written.output
    assert "/etc/systemd/network/00-domu-br-xen.netdev" in written.output
    program = "SYSTEMD_LOG_TARGET=console setsid /lib/systemd/systemd-networkd"
    dom0.demand(f"mkdir -p /run/systemd; {program} >/run/networkd.log 2>&1 </dev/null &")
    end = time.monotonic() + patient(30)
    while HOST not in (seen := dom0.demand("ip -br -4 address show dev br-xen || true")):
        assert time.monotonic() < end, seen + dom0.demand("cat /run/networkd.log; ip address")
        time.sleep(1)
    assert remote.run("hostname").status == 0
    assert dom0.demand("ls /sys/class/net/br-xen/brif").split() == ["eth0"]
