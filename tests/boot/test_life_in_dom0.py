"""A guest's whole life under real Xen: into VG0, from /etc/xen/auto, a new kernel, resized, gone.

One test, because its steps are one life: what is asserted after each is what the step before left.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.project import Project
from pipeline.proof.timeouts import VARIABLE, patient
from pipeline.recipe import Recipe
from pipeline.spec import load_all
from pipeline.stages import STAGES
from tests.conftest import ROOT
from tests.dom0 import EMPTY_DISK, LOGS, Dom0, running_dom0
from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(3000)]
NAME = "test-drbd"
LEAN = ("size=1G", "swap=64M", "memory=192M")
KINDS = [
    pytest.param("pvh", marks=in_turn("boot", "a guest's life in a dom0")),
    pytest.param("pv", marks=in_turn("boot", "a PV guest's life in a dom0")),
]
LOGIN_S = 360.0
LOGIN = r"\blogin: ?$"
_CAME_BACK = "started again"


class Life:
    """The guest in dom0: doit's words, its console, what it says there."""

    def __init__(self, dom0: Dom0, name: str = NAME) -> None:
        self.dom0 = dom0
        self.name = name
        self.read_to = 0

    def doit(self, *words: str) -> str:
        reply = self.dom0.doit(*words)
        if reply.status:
            seen = self.dom0.run(LOGS)
            raise AssertionError(
                f"doit {' '.join(words)}: {reply.status}\n{reply.output}\n{seen.output}"
            )
        print(f"  {' '.join(words)}: {reply.output.strip().splitlines()[-1]}", flush=True)
        return reply.output

    def refused(self, status: int, *words: str) -> str:
        reply = self.dom0.doit(*words)
        assert reply.status == status, f"doit {' '.join(words)}: {reply.status}\n{reply.output}"
        return reply.output

    def wait_for(self, pattern: str) -> str:
        """What the console says from here on, up to a pattern."""
        path = f"/var/log/xen/console/guest-{self.name}.log"
        end, seen = time.monotonic() + patient(LOGIN_S), ""
        while time.monotonic() < end:
            new = self.dom0.agent.read(path, offset=self.read_to, wait_s=1.0)
            self.read_to += len(new)
            seen += new.decode(errors="replace")
            if re.search(pattern, seen):
                return seen
        raise AssertionError(f"{pattern!r} did not come:\n{seen[-3000:]}")

    def wait_until_up(self) -> str:
        """What its console says until it runs; from a start again where its processor faulted."""
        seen = self.wait_for(LOGIN)
        while self.running() != ["running"] and self.has_faulted():
            print("  a triple fault: it starts again", flush=True)
            seen = self.wait_for(LOGIN)
        assert self.running() == ["running"]
        return seen

    def has_faulted(self) -> bool:
        """Whether its emulated processor did since, which Xen takes for a reboot: PVH alone."""
        said = self.dom0.demand("xl dmesg -c")
        print(said, flush=True)
        return "Triple fault" in said

    def shut_down(self) -> None:
        """Asked twice where a fault on its way out made it come back."""
        words = ("shutdown", "all=yes", "timeout=600")
        reply = self.dom0.doit(*words)
        if reply.status and self.has_faulted():
            assert f"{self.name} {_CAME_BACK}" in reply.output
            self.wait_until_up()
            self.doit(*words)
        else:
            assert reply.status == 0, reply.output
        assert self.running() == ["shut off"]

    def running(self) -> list[str]:
        listed = json.loads(self.doit("list-guests", "json=yes"))
        return [one["state"] for one in listed if one["guest"] == self.name]


@contextmanager
def step(what: str) -> Iterator[None]:
    """Progress, for a test of minutes."""
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)


def second_kernel(workshop: Workshop) -> tuple[Path, str]:
    """The cloud kernel of another ABI than the newest, as the stage kernel makes it."""
    project = Project(ROOT, workshop.output, workshop.guests)
    spec = load_all(workshop.guests, [NAME], {})[NAME]
    mirror = Recipe(project, STAGES).build("mirror", spec).folder
    text = (mirror / "Packages-security-main").read_text()
    text += (mirror / "Packages-main-main").read_text()
    abis = set(re.findall(r"^Package: linux-image-(6\.1\.0-\d+-cloud-amd64)$", text, re.MULTILINE))
    abi = sorted(abis, key=lambda name: int(name.split("-")[1]))[-2]
    spec = load_all(workshop.guests, [NAME], {"kernel": f"linux-image-{abi}"})[NAME]
    return Recipe(project, STAGES).build("kernel", spec).folder, abi


@pytest.mark.parametrize("kind", KINDS)
def test_a_guest_lives_in_a_real_dom0(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    os.environ.setdefault(VARIABLE, "3")  # nothing here is judged by its speed
    artifact = workshop.built(NAME, *LEAN, f"type={kind}")
    assert f'type = "{kind}"' in (artifact / f"{NAME}.cfg").read_text()
    first = json.loads((artifact / "kernel.json").read_text())["abi"]
    with step("build another kernel"):
        kernel, second = second_kernel(workshop)
    folders = [artifact, kernel]
    with running_dom0(workshop, tmp_path, carry=folders, empty_mib=4096) as dom0:
        try:
            live(Life(dom0), artifact, kernel, first, second)
        except BaseException:
            print(dom0.run(LOGS).output)
            raise


def refuse_to_migrate(life: Life) -> None:
    """Debian's Xen has not what a live migration of a PV guest takes."""
    words = ("migrate", f"name={NAME}", "to=localhost")
    assert "no shadow page tables" in life.doit(*words, "dry=yes")
    assert "doit save and doit restore" in life.refused(3, *words)
    assert life.running() == ["running"]


def live(life: Life, artifact: Path, kernel: Path, first: str, second: str) -> None:
    dom0 = life.dom0
    dom0.make_bridge()
    dom0.demand(f"vgcreate -q VG0 {EMPTY_DISK} && mkdir -p /etc/xen/auto")
    before = dom0.demand("find /etc/xen /var/lib/xen | sort")
    name = f"name={NAME}"

    with step("install into VG0"):
        life.doit("install", name, "lvm=VG0", "autostart=yes", "unproven=yes")
    dom0.demand(
        f"cmp -n $(stat -c %s {artifact}/disk.img) {artifact}/disk.img /dev/VG0/{NAME}-disk"
    )
    assert life.running() == ["shut off"]

    with step("xl create from /etc/xen/auto"):
        dom0.demand(f"xl create /etc/xen/auto/{NAME}.cfg")
        life.wait_until_up()
    assert "is running" in life.refused(4, "remove", name, "yes=yes")
    assert "is running" in life.refused(4, "resize", name, "size=2G")

    with step("refresh while it runs: noted, not done"):
        said = life.doit("refresh", f"from={kernel}")
        assert "a reboot keeps the old kernel" in said
        assert first in dom0.demand(f"cat /etc/xen/{NAME}.cfg")

    with step("save and restore"):
        life.doit("save", name)
        assert life.running() == ["saved"]
        assert "is saved" in life.refused(4, "start", name)
        life.doit("restore", name)
        assert life.running() == ["running"]
    # a PVH guest moves in test_migration.py: where it is lost on the way, this life would end
    if 'type = "pv"' in dom0.demand(f"cat /etc/xen/{NAME}.cfg"):
        with step("refused: to move while it runs"):
            refuse_to_migrate(life)

    with step("shut down"):
        life.shut_down()
    with step("resize while it is down"):
        life.doit("resize", name, "size=1500M")
        dom0.demand(f"e2fsck -fn /dev/VG0/{NAME}-disk")
        size = int(dom0.demand(f"blockdev --getsize64 /dev/VG0/{NAME}-disk"))
        assert size == 1500 << 20
    with step("and make it smaller"):
        life.doit("resize", name, "size=1200M")
        disk = f"/dev/VG0/{NAME}-disk.2"
        dom0.demand(f"e2fsck -fn {disk}")
        assert int(dom0.demand(f"blockdev --getsize64 {disk}")) == 1200 << 20
        assert disk in dom0.demand(f"cat /etc/xen/{NAME}.cfg")
    with step("start: the refresh is done first"):
        said = life.doit("start", name)
        assert f"{first} -> {second}" in said
    with step("boot the second kernel"):
        assert f"Linux version {second}" in life.wait_until_up()
    with step("destroy"):
        life.doit("destroy", name, "yes=yes")
    with step("undo the refresh"):
        life.doit("refresh", name, "undo=yes")
        assert first in dom0.demand(f"cat /etc/xen/{NAME}.cfg")
        modules = dom0.demand(f"debugfs -R 'ls -p /lib/modules' {disk} 2>/dev/null")
        assert first in modules
        assert second not in modules

    with step("remove"):
        assert "has written to it" in life.refused(4, "remove", name)
        life.doit("remove", name, "yes=yes")
    assert dom0.demand("find /etc/xen /var/lib/xen | sort") == before
    assert dom0.demand("lvs --noheadings VG0").strip() == ""
    dom0.demand("test ! -e /var/lib/domu")
    assert "VG0" not in dom0.demand("dmsetup ls")
    assert dom0.demand("losetup -a").strip() == ""
