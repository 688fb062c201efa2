"""`doit ssh`: into a built guest whose address nobody wrote down.

The guest is its own disk's tree, with its own sshd, host keys and authorized_keys, in namespaces
instead of a domain; a bridge, a DHCP server (dnsmasq) and the host that types `doit ssh` are real.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest

from pipeline.guest.login import find_login
from pipeline.spec import load_guest
from tests.conftest import require
from tests.patience import wait_for
from tests.workshop import ROOT, Outcome, Workshop, run_program

pytestmark = [pytest.mark.integration, pytest.mark.build]

NAME = "way-in"
HOST = "10.91.0.1"
DHCP = '#!/bin/sh\n[ "$1" != bound ] || ip addr add "$ip/24" dev "$interface"\n'
GUEST = """\
set -eu
until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done
ip link set lo up
ip link set eth0 address "$MAC" up
busybox udhcpc -f -n -q -t 20 -i eth0 -s "$DHCP"
mount --rbind /dev "$TREE/dev"
mount -t proc proc "$TREE/proc"
mount -t tmpfs tmpfs "$TREE/run"
mkdir "$TREE/run/sshd"
exec chroot "$TREE" /usr/sbin/sshd -D -e
"""


@dataclass
class Lan:
    """A host with a bridge, and the guest on it."""

    workshop: Workshop
    folder: Path
    host: int  # a process in the host's network
    guest: subprocess.Popen[bytes]

    @property
    def key(self) -> Path:
        return self.folder / "id"

    @property
    def leases(self) -> Path:
        """Where dnsmasq keeps them, below DOMU_ROOT."""
        return self.folder / "root/var/lib/misc/dnsmasq.leases"

    @property
    def known_hosts(self) -> Path:
        return self.workshop.output / "guests" / NAME / "known_hosts"

    def run(self, *words: str, **variables: str) -> Outcome:
        """A command in the host's network."""
        environment = {**self.workshop.environment(), "DOMU_ROOT": str(self.folder / "root")}
        inside = ["nsenter", f"--net=/proc/{self.host}/ns/net", "--"]
        done = run_program([*inside, *words], {**environment, **variables})
        assert "Traceback" not in done.stdout, done.stdout
        return Outcome(done.returncode, done.stdout, 0)

    def ssh(self, *words: str) -> Outcome:
        """`doit ssh` as it is typed on the host."""
        typed = ("ssh", f"name={NAME}", f"key={self.key}", *words)
        return self.run(sys.executable, "-m", "pipeline", *typed)

    def ip(self, words: str) -> None:
        done = self.run("ip", *words.split())
        assert done.code == 0, done.said


@contextmanager
def running(words: list[str], **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(words, env={**os.environ, **variables}, stdin=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@pytest.fixture(scope="module")
def lan(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    require(os.geteuid() == 0, "network namespaces need root")
    require(shutil.which("dnsmasq") is not None, "dnsmasq-base is not installed")
    workshop.built("test-drbd")
    folder = tmp_path_factory.mktemp("lan")
    shop = _build(workshop, folder)
    mac = load_guest(NAME, guests_dir=shop.guests).cards[0].mac
    tree = folder / "tree"
    tree.mkdir()
    dump = ["debugfs", "-R", f"rdump / {tree}", str(shop.output / "guests" / NAME / "disk.img")]
    subprocess.run(dump, check=True, capture_output=True)
    (folder / "dhcp").write_text(DHCP)
    (folder / "dhcp").chmod(0o755)
    walls = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    variables = {"TREE": str(tree), "MAC": mac, "DHCP": str(folder / "dhcp")}
    with ExitStack() as stack:
        host = stack.enter_context(running(["unshare", "--net", "sleep", "1000"]))
        guest = stack.enter_context(running([*walls, "sh", "-c", GUEST], **variables))
        own = os.readlink("/proc/self/ns/net")
        for child in (host, guest):
            link = f"/proc/{child.pid}/ns/net"
            wait_for(lambda link=link: os.readlink(link) != own, "no network")  # type: ignore[misc]
        made = Lan(shop, folder, host.pid, guest)
        made.leases.parent.mkdir(parents=True)
        for words in (
            "link set lo up",
            "link add br-xen type bridge",
            f"addr add {HOST}/24 dev br-xen",
            "link set br-xen up",
            f"link add vif1 type veth peer name eth0 netns {guest.pid}",
            "link set vif1 master br-xen up",
        ):
            made.ip(words)
        stack.enter_context(running(_dnsmasq(made)))
        wait_for(lambda: made.leases.is_file() and mac.lower() in made.leases.read_text(), "DHCP")
        wait_for(lambda: made.ssh("command=true").code == 0, "sshd")
        yield made
    shutil.rmtree(tree)


def _build(workshop: Workshop, folder: Path) -> Workshop:
    """test-drbd by another name, with a key: only its disks are new."""
    guests, output = folder / "guests", folder / "output"
    for path in (guests, output):
        path.mkdir()
    for name in ("store", "cache"):
        (output / name).symlink_to((workshop.output / name).resolve())
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "id"], check=True)
    text = (ROOT / "guests/test-drbd.toml").read_text()
    for key in ("size", "lvm"):
        text = "\n".join(line for line in text.split("\n") if not line.startswith(f"{key} ="))
    text += f'\nsize = "1G"\nauthorized_keys = ["{folder / "id.pub"}"]\n'
    (guests / f"{NAME}.toml").write_text(text)
    shop = Workshop(output, guests)
    shop.built(NAME)
    return shop


def _dnsmasq(lan: Lan) -> list[str]:
    options = {
        "conf-file": "/dev/null",
        "interface": "br-xen",
        "port": "0",
        "user": "root",
        "pid-file": "",
        "dhcp-range": "10.91.0.50,10.91.0.60,1h",
        "dhcp-leasefile": str(lan.leases),
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    start = ["nsenter", f"--net=/proc/{lan.host}/ns/net", "--", "dnsmasq", "--keep-in-foreground"]
    return [*start, "--bind-interfaces", *words]


def test_the_build_says_how_to_come_in(lan: Lan) -> None:
    said = lan.workshop.outcomes[NAME].said
    mac = load_guest(NAME, guests_dir=lan.workshop.guests).cards[0].mac
    assert f"ssh name={NAME}" in said
    assert mac in said
    assert "nobody" not in said


def test_without_a_command_it_is_a_shell_at_the_terminal(lan: Lan) -> None:
    words = [f"--net=/proc/{lan.host}/ns/net", "--", sys.executable, "-m", "pipeline", "ssh"]
    words += [f"name={NAME}", f"key={lan.key}"]
    root = {"DOMU_ROOT": str(lan.folder / "root"), "TERM": "dumb"}
    shell = pexpect.spawn(
        "nsenter", words, cwd=str(ROOT), env={**lan.workshop.environment(), **root}, timeout=240
    )
    shell.expect(r"[#$] $")
    shell.sendline("tty; echo $((6*7)); exit 3")
    shell.expect("/dev/pts/[0-9]+\r\n42\r\n")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 3


def test_the_one_address_is_taken_only_with_the_guests_own_host_key(
    lan: Lan, tmp_path: Path
) -> None:
    other = tmp_path / "known_hosts"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "k"], check=True
    )
    key = " ".join((tmp_path / "k.pub").read_text().split()[:2])
    other.write_text(f"{NAME} {key}\n")
    refused = lan.ssh(f"from={tmp_path}", "command=true")
    assert refused.code == 255
    assert "Host key verification failed" in refused.said
    assert other.read_text() == f"{NAME} {key}\n"


def test_a_fixed_address_needs_no_search_and_the_printed_line_works(lan: Lan) -> None:
    """Typed into a shell as it stands, from a folder with a space, an umlaut and a percent sign."""
    address = lan.ssh("command=true").said.split(" is at ")[1].split()[0]
    folder = lan.folder / "Xen Gäste 50%h"
    folder.mkdir()
    lines = lan.known_hosts.read_text().splitlines()
    text = "".join(f"{NAME},{address} {line.partition(' ')[2]}\n" for line in lines)
    (folder / "known_hosts").write_text(text)
    said = lan.ssh(f"from={folder}", "command=cat /etc/hostname")
    assert said.code == 0, said.said
    assert f"{NAME} is at {address} (fixed: " in said.said
    assert said.said.splitlines()[-1] == NAME
    given = {"address": f"{address}/24"}
    spec = load_guest(NAME, guests_dir=lan.workshop.guests, overrides=given)
    line = find_login(spec, folder / "known_hosts").ssh
    script = f'eval "$(ssh-agent)" >/dev/null; ssh-add -q {shlex.quote(str(lan.key))}; '
    script += f"{line} cat /etc/hostname; status=$?; kill $SSH_AGENT_PID; exit $status"
    typed = lan.run("sh", "-c", script)
    assert (typed.code, typed.said.splitlines()[-1]) == (0, NAME), typed.said


def test_the_guest_is_found_wherever_it_left_a_trace(lan: Lan) -> None:
    by_lease = lan.ssh("command=cat /etc/hostname; exit 7")
    assert by_lease.code == 7, by_lease.said  # what the command there ended with
    assert f"({lan.leases})" in by_lease.said
    assert by_lease.said.splitlines()[-1] == NAME

    lan.leases.rename(lan.leases.with_name("away"))
    by_neighbour = lan.ssh("command=cat /etc/hostname")
    assert by_neighbour.code == 0, by_neighbour.said
    assert "(neighbours of br-xen" in by_neighbour.said
    assert by_neighbour.said.split(" is at ")[1].split()[0].startswith("10.91.0.")

    lan.ip(f"addr del {HOST}/24 dev br-xen")
    lan.ip("neigh flush dev br-xen")
    by_mac = lan.ssh("command=cat /etc/hostname")
    assert by_mac.code == 0, by_mac.said
    assert "is at fe80::" in by_mac.said
    assert "(link-local on br-xen)" in by_mac.said

    lan.guest.kill()
    lan.guest.wait()
    # its network ends with it, but not before TCP has given up its last answers
    lan.run("ip", "link", "del", "vif1")
    lan.ip("neigh flush dev br-xen")
    nowhere = lan.ssh("command=true")
    assert nowhere.code == 1
    for place in ("xenstore: ", "dnsmasq*.leases: no such file", "neighbours of br-xen", "link-lo"):
        assert place in nowhere.said, nowhere.said
    assert "address=" in nowhere.said
