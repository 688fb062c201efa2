"""`doit dom0` in a real dom0: drafted, shown, tried, and taken back where nobody answers.

The world is a network namespace behind a pair of virtual cards; the host's end is its eth0. Another
machine there has an SSH connection to the host, over which the host is set up.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.proof.agent import Reply
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
OUTSIDE, HOST = "192.0.2.1", "192.0.2.2"
WRONG = """[bridge.br-xen]
ports = ["eth0"]
address = "198.51.100.2/24"
gateway = "198.51.100.1"
"""
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
"""
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


@contextmanager
def host(workshop: Workshop, work: Path) -> Iterator[tuple[Dom0, Remote]]:
    """The dom0 as a host with one card, and the connection to it."""
    with running_dom0(workshop, work) as dom0:
        dom0.agent.write("/etc/network/interfaces", INTERFACES.encode())
        dom0.demand(f"set -e\nrm -f {SETTINGS}\n{SET_UP}")
        remote = Remote(dom0)
        remote.connect()
        yield dom0, remote


def test_a_network_that_nobody_answers_over_is_taken_back_in_a_real_dom0(
    workshop: Workshop, tmp_path: Path
) -> None:
    with host(workshop, tmp_path) as (dom0, remote):
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
