"""Guests on logical volumes under real Xen: thick, then a thin snapshot, from their cfg."""

import json
import re
import time
from pathlib import Path

import pytest

from pipeline.proof.timeouts import patient
from tests.conftest import ROOT
from tests.dom0 import CARRIED, EMPTY_DISK, Dom0, running_dom0
from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(3000)]
NAME = "test-drbd"
LEAN = ("size=1G", "swap=64M", "memory=192M")
LOGIN_S = 360.0


def place(dom0: Dom0) -> str:
    """The output of the guest half in dom0."""
    return f"{CARRIED}{dom0.output}/half"


def half(dom0: Dom0, *words: str) -> tuple[int, str]:
    """The guest half in dom0; exit status and what was said."""
    # on the disk that the store came on: what is given is linked, not copied
    store = f"{CARRIED}{dom0.output}/store"
    command = ["python", "-m", "tests.guest_half", place(dom0), store]
    script = f"cd {ROOT} && exec .venv/bin/{' '.join([*command, NAME, *LEAN, *words])}"
    reply = dom0.run(script, timeout_s=900)
    return reply.status, reply.output


def await_login(dom0: Dom0, domain: int) -> None:
    path, seen, end = (
        f"/var/log/xen/console/guest-{NAME}.log",
        "",
        time.monotonic() + patient(LOGIN_S),
    )
    while time.monotonic() < end:
        seen = dom0.run(f"cat {path}").output
        if re.search(r"\blogin: ?$", seen):
            return
        time.sleep(2)
    raise AssertionError(f"no login prompt of domain {domain}:\n{seen[-3000:]}")


def start(dom0: Dom0) -> None:
    dom0.run(f"rm -f /var/log/xen/console/guest-{NAME}.log")
    dom0.demand(f"xl create {place(dom0)}/guests/{NAME}/{NAME}.cfg")
    await_login(dom0, int(dom0.demand(f"xl domid {NAME}")))


@in_turn("boot", "volumes in a dom0")
def test_guests_on_thick_and_thin_volumes_start(workshop: Workshop, tmp_path: Path) -> None:
    artifact = workshop.built(NAME, *LEAN)
    record = json.loads((artifact / "stages.json").read_text())
    golden = [
        workshop.output / "store" / stage / record[stage]["fingerprint"][:32]
        for stage in ("mirror", "base", "kernel", "rootfs", "image")
    ]
    with running_dom0(workshop, tmp_path, carry=[artifact, *golden], empty_mib=4096) as dom0:
        dom0.make_bridge()
        dom0.demand(f"vgcreate -q VG0 {EMPTY_DISK}")
        dom0.demand("lvcreate -y -q --type thin-pool -L 1G --zero y -n pool VG0")
        status, said = half(dom0, "lvm=VG0")
        assert status == 0, said
        assert "img" not in dom0.demand(f"ls {place(dom0)}/guests/{NAME} | grep disk; true")
        start(dom0)
        status, said = half(dom0, "lvm=VG0", "swap=65M", "replace=yes")
        assert status == 4, said
        assert re.search(r"in use by domain \d+ \(test-drbd\)", said), said
        dom0.demand(f"xl destroy {NAME}")
        words = ("lvm=VG0", "lvm_thin=pool", "clone=cow", "replace=yes")
        status, said = half(dom0, *words)
        assert status == 0, said
        assert "domu-golden-" in dom0.demand(f"lvs --noheadings -o origin VG0/{NAME}-disk")
        start(dom0)
        dom0.demand(f"xl destroy {NAME}")
        left = dom0.demand("lvs --noheadings -o lv_name VG0").split()
        assert not [name for name in left if ".new-" in name or ".old-" in name]
