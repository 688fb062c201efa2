"""A guest whose disk is a DRBD resource of two emulated Xen hosts: it starts on either of them.

The resource's disks are the hosts' own, DRBD talks over the wire between them. block-drbd of
drbd-utils makes the resource primary where the guest is, and nowhere else.
"""

import json
import os
from pathlib import Path

import pytest

from pipeline.proof.ssh import Shell
from pipeline.proof.timeouts import VARIABLE
from tests.boot.conftest import Prover
from tests.boot.test_life_in_dom0 import step
from tests.boot.test_migration import HOSTS, Host, join, second_host
from tests.boot.test_volumes_in_dom0 import LEAN, NAME, await_login, half, place
from tests.dom0 import EMPTY_DISK, Dom0, running_dom0
from tests.turns import in_turn

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(3000)]
DEVICE = "/dev/drbd/by-res/r0/0"
SIZE_MIB = 1024
PORT = 7789
RESOURCE = f"""resource r0 {{
    device /dev/drbd0;
    disk {EMPTY_DISK};
    meta-disk internal;
    net {{ protocol C; }}
    on xena {{ address {HOSTS["xena"]}:{PORT}; }}
    on xenb {{ address {HOSTS["xenb"]}:{PORT}; }}
}}
"""


def bring_up(host: Host) -> None:
    """The resource on one host, its disk new."""
    host.agent.write("/etc/drbd.d/r0.res", RESOURCE.encode())
    host.demand("modprobe drbd; drbdadm create-md --force r0; drbdadm up r0", timeout_s=300)


def role(host: Host) -> str:
    """Of this host and the other, as DRBD says."""
    return host.demand("drbdadm role r0").strip()


def build_onto(dom0: Dom0, prover: Prover) -> tuple[int, str]:
    """The guest half onto the resource, in dom0."""
    keys = f"authorized_keys={prover.key}.pub"
    return half(dom0, f"image_dev={DEVICE}", "size=768M", "swap=0", keys)


def open_shell(host: Host, prover: Prover, number: int) -> Shell:
    """Into the guest, wherever it runs, by a connection of its own."""
    address = host.demand(f"cat /run/domu-proof/leases-br-xen | awk '/{NAME}/ {{ print $3 }}'")
    shell = Shell(host.agent, address.split()[-1], "guest", has_known_hosts=False, number=number)
    reply = shell.enter(prover.key.read_bytes(), timeout_s=200)
    assert reply.status == 0, reply.output
    return shell


@in_turn("boot", "a guest on DRBD of two hosts")
def test_a_guest_on_a_resource_starts_on_either_host(prover: Prover, tmp_path: Path) -> None:
    os.environ.setdefault(VARIABLE, "3")  # nothing here is judged by its speed
    artifact = prover.workshop.built(NAME, *LEAN)
    record = json.loads((artifact / "stages.json").read_text())
    golden = [
        prover.workshop.output / "store" / stage / record[stage]["fingerprint"][:32]
        for stage in ("mirror", "base", "kernel", "rootfs", "image")
    ]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    disk = tmp_path / "b/disk.img"
    with disk.open("wb") as stream:
        stream.truncate(SIZE_MIB << 20)
    carry = [artifact, *golden, prover.key.parent]
    with (
        running_dom0(prover.workshop, tmp_path / "a", carry=carry, empty_mib=SIZE_MIB) as dom0,
        second_host(prover, tmp_path / "b") as second,
    ):
        a, b = Host("xena", dom0.machine), Host("xenb", second)
        with step("two hosts in one network, each with a disk"):
            join(a, b, tmp_path / "wire")
            second.plug_disk(disk, "empty")
            for host in (a, b):
                host.set_up_network()
            dom0.make_bridge()
            b.open_ssh()
            a.trust(b)
            a.let_in(b)
        with step("the resource"):
            for host in (a, b):
                bring_up(host)
            a.demand("drbdadm wait-connect r0; drbdsetup new-current-uuid 0 --clear-bitmap")
            assert "ds:UpToDate/UpToDate" in b.demand("cat /proc/drbd")
        with step("built onto it, where it is primary"):
            status, said = build_onto(dom0, prover)
            assert status == 3, said
            assert "r0 is Secondary here" in said
            a.demand("drbdadm primary r0")
            status, said = build_onto(dom0, prover)
            assert status == 0, said
            a.demand("drbdadm secondary r0")
        folder = f"{place(dom0)}/guests/{NAME}"
        start = f"xl create {folder}/{NAME}.cfg"
        with step("starts on the first"):
            assert "script=block-drbd, target=r0" in a.demand(f"cat {folder}/{NAME}.cfg")
            assert role(a) == "Secondary/Secondary"
            a.demand(start, timeout_s=300)
            await_login(dom0, 1)
            assert role(a) == "Primary/Secondary"
            shell = open_shell(a, prover, 0)
            said = shell.run(
                "head -c 1M /dev/urandom >/root/kept; sync; sha256sum /root/kept"
            ).output
        with step("refused on the second meanwhile"):
            files = f"{folder}/vmlinuz {folder}/initrd.img {folder}/{NAME}.cfg"
            a.demand(f"ssh xenb mkdir -p {folder} && scp -qp {files} xenb:{folder}/", timeout_s=300)
            refused = b.agent.run(["sh", "-c", start], timeout_s=300)
            assert refused.status != 0, refused.output
            assert role(b) == "Secondary/Primary"
        with step("lost on the first, it starts on the second with all that it wrote"):
            a.demand(f"xl destroy {NAME}")
            assert role(b) == "Secondary/Secondary"
            b.demand(start, timeout_s=300)
            assert role(b) == "Primary/Secondary"
            again = open_shell(a, prover, 1)
            assert again.run("sha256sum /root/kept").output == said
        with step("and goes on without the first host's disk"):
            a.demand("drbdadm down r0")
            assert again.run("echo more >/root/more && sync && cat /root/more").output == "more\n"
            assert role(b) == "Primary/Unknown"
        with step("shut down"):
            b.demand(f"xl shutdown -w {NAME}", timeout_s=600)
            # the script runs when the toolstack has taken the dead guest's devices away
            waiting = 'until [ "$(drbdadm role r0)" = Secondary/Unknown ]; do sleep 1; done'
            b.demand(waiting, timeout_s=120)
