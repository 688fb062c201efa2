"""Guests of the real xen-create-image 4.9.2 made PVH guests, proven, and brought back.

Image files here, with the emulated dom0; volumes in a real one (the test host's), where LVM and xl
are real too. /etc/xen-tools has no word about volumes but their paths: those of the configuration.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.files import digest_file
from pipeline.proof.timeouts import VARIABLE
from tests.boot.xen_tools_guests import KINDS, XenToolsGuest, make_guest
from tests.conftest import require
from tests.dom0 import EMPTY_DISK, Dom0, running_dom0
from tests.specs import make_spec
from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(6000)]


@pytest.fixture
def home(workshop: Workshop) -> Path:
    """Where the guests are kept for the session."""
    return workshop.output / "xen-tools"


def stock(*paths: Path) -> dict[str, str]:
    return {str(path): f"{path.stat().st_mode:o} {digest_file(path)}" for path in paths}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            kind, marks=in_turn("boot", "an old guest") if kind == "pygrub" else pytest.mark.boot
        )
        for kind in KINDS
    ],
)
def test_a_guest_in_files_is_proven_as_pvh_and_brought_back(
    workshop: Workshop, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    require(shutil.which("qemu-system-x86_64") is not None, "qemu-system-x86 is not installed")
    monkeypatch.setenv(VARIABLE, os.environ.get(VARIABLE, "3"))
    monkeypatch.setenv("DOMU_ROOT", str(tmp_path / "root"))
    guest = make_guest(home, kind).copied(tmp_path / "old")
    config = tmp_path / "root/etc/xen" / guest.config.name
    config.parent.mkdir(parents=True)
    shutil.copy2(guest.config, config)
    before = stock(config, *guest.disks)

    outcome = workshop.doit("modernize", f"cfg={config}")

    assert outcome.code == 0, outcome.said
    print(re.sub(r"(?s).*?(?=ok +login)", "", outcome.said))
    assert f"{guest.name} is proven" in outcome.said
    proof = json.loads((workshop.output / f"proofs/{guest.name}/proof/proof.json").read_text())
    held = {check["name"] for check in proof["checks"] if check["ok"]}
    assert {"SSH with the key", "default route", "another key is refused", "xl shutdown"} <= held
    assert proof["facts"]["type"] == "pvh"
    assert proof["facts"]["modernized"]
    assert stock(*guest.disks).items() <= before.items()
    assert workshop.doit("modernize", f"cfg={config}", "undo=yes").code == 0
    assert stock(config, *guest.disks) == before
    assert not (tmp_path / "root/var/lib/xen/images" / guest.name).exists()


def put_on_volumes(dom0: Dom0, guest: XenToolsGuest) -> str:
    """Its disks as volumes, as --lvm=VG0 names them, and its configuration, which is returned."""
    text = guest.config.read_text()
    for disk in guest.disks:
        size = -(-disk.stat().st_size >> 20)
        dom0.demand(f"lvcreate -q -y -W n -n {guest.name}-{disk.stem} -L {size}M VG0")
        words = f"dd if={disk} of={volume_of(guest, disk)} bs=1M conv=sparse status=none"
        dom0.demand(words, timeout_s=900)
        text = text.replace(f"file:{disk}", f"phy:{volume_of(guest, disk)}")
    dom0.agent.write(f"/etc/xen/{guest.name}.cfg", text.encode())
    return text


def volume_of(guest: XenToolsGuest, disk: Path) -> str:
    return f"/dev/VG0/{guest.name}-{disk.stem}"


def digest_volumes(dom0: Dom0, guest: XenToolsGuest) -> str:
    """What is on its volumes; where the images have holes that is what was there before them."""
    volumes = " ".join(volume_of(guest, disk) for disk in guest.disks)
    return dom0.demand(f"sha256sum {volumes}", timeout_s=900)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Progress, for a test of minutes."""
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)


@in_turn("boot", "old guests on volumes")
def test_guests_on_volumes_are_made_pvh_guests_in_a_real_dom0(
    workshop: Workshop, home: Path, tmp_path: Path
) -> None:
    os.environ.setdefault(VARIABLE, "3")  # nothing here is judged by its speed
    guests = [make_guest(home, kind) for kind in ("pygrub", "direct")]
    # the copies that its xl boots have no room on dom0's own disk
    scratch = workshop.output / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    carry = [*(guest.folder for guest in guests), home / "dom0/boot", scratch]
    spec = make_spec(name="dom0", type="pvh")
    with running_dom0(workshop, tmp_path, carry=carry, empty_mib=8192, spec=spec) as dom0:
        dom0.make_bridge()
        dom0.demand(f"vgcreate -q VG0 {EMPTY_DISK}")
        for guest in guests:
            live(dom0, guest)


def live(dom0: Dom0, guest: XenToolsGuest) -> None:
    name, config = guest.name, f"cfg=/etc/xen/{guest.name}.cfg"
    with step(f"{name}: onto volumes"):
        text = put_on_volumes(dom0, guest)
        before = digest_volumes(dom0, guest)
    with step(f"{name}: modernize, with its proof"):
        reply = dom0.doit("modernize", config, timeout_s=3000)
    assert reply.status == 0, reply.output
    assert f"{name} is proven" in reply.output
    assert 'type = "pvh"' in dom0.demand(f"cat /etc/xen/{name}.cfg")
    listed = json.loads(dom0.doit("list-guests", "json=yes").output)
    assert [line["proof"] for line in listed if line["guest"] == name] == ["proven"]
    assert f"{name}-xvda2.2" in dom0.demand("lvs --noheadings -o lv_name VG0")
    with step(f"{name}: undo"):
        reply = dom0.doit("modernize", config, "undo=yes")
    assert reply.status == 0, reply.output
    assert dom0.demand(f"cat /etc/xen/{name}.cfg") == text
    assert digest_volumes(dom0, guest) == before
    volumes = dom0.demand("lvs --noheadings -o lv_name VG0").split()
    assert sorted(volumes) == sorted(f"{name}-{disk.stem}" for disk in guest.disks)
    dom0.demand("lvremove -q -f VG0")
