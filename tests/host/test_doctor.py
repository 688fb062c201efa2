"""`doit doctor` on hosts with each pitfall seeded: found, told, mended where it can be, taken back.

tests/unit/test_dom0_doctor.py has the judgements one by one, tests/boot a real dom0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.namespace import is_root
from tests.conftest import require
from tests.host.old_guests import NAME, OldGuest
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
UDEV = "usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-{}.so"
ENX = "auto enX0\niface enX0 inet dhcp\n"
BOTH = "allow-hotplug eth0 enX0\niface eth0 inet dhcp\niface enX0 inet dhcp\n"
MENU = "title x\nkernel /boot/vmlinuz root=/dev/xvda2 ro net.ifnames=0\n"


class Host:
    """A host's folder, and doit over it."""

    def __init__(self, work: Path) -> None:
        self.root = work / "root"
        guests = work / "guests"
        guests.mkdir()
        (guests / "defaults.toml").write_text("")
        self.shop = Workshop(work / "output", guests)

    def find(self, *words: str) -> list[dict[str, Any]]:
        """What the doctor finds, for programs."""
        outcome = self.shop.doit("doctor", "dry=yes", "json=yes", *words)
        assert outcome.code in (0, 3), outcome.said
        answer, _ = json.JSONDecoder().raw_decode(outcome.said[outcome.said.index("{") :])
        return list(answer["findings"])


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setenv("DOMU_ROOT", str(made.root))
    return made


@pytest.fixture
def guest(host: Host, tmp_path: Path) -> OldGuest:
    require(is_root(), "mounts a file system")
    return OldGuest(tmp_path / "domains", host.root)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({UDEV.format(252): ""}, "enX0"),
        ({UDEV.format(247): ""}, ""),
        ({UDEV.format(247): "", "etc/network/interfaces": ENX}, "eth0"),
        ({UDEV.format(252): "", "etc/network/interfaces": ENX}, ""),
        ({UDEV.format(252): "", "etc/network/interfaces": BOTH}, ""),
        ({UDEV.format(252): "", "boot/grub/menu.lst": MENU}, ""),
        ({UDEV.format(257): "", "etc/systemd/network/99-default.link": "-> /dev/null"}, ""),
        ({UDEV.format(257): "", "etc/systemd/network/10-card.link": "[Link]\nName=lan\n"}, ""),
        ({}, ""),
    ],
)
def test_a_foreign_guest_whose_card_will_have_another_name(
    host: Host, guest: OldGuest, files: dict[str, str], name: str
) -> None:
    guest.more = files
    guest.make()
    before = guest.disk.read_bytes()
    cards = [found for found in host.find() if found["code"] == "card"]
    assert [found["subject"] for found in cards] == [NAME] * bool(name)
    assert all(found["message"].endswith(f"will be called {name}") for found in cards)
    assert guest.disk.read_bytes() == before, "looking at a disk has written to it"


def test_a_disk_that_somebody_has_open_is_not_looked_into(host: Host, guest: OldGuest) -> None:
    guest.more = {UDEV.format(252): ""}
    guest.make()
    (host.root / "etc/xen/odd.cfg").write_text('name = "../odd"\ndisk = [ "phy:/x,xvda,w" ]\n')
    with guest.disk.open("rb+"):
        found = {one["code"]: one for one in host.find()}
    assert "card" not in found
    assert found["unseen"]["level"] == "skipped"
    assert f"{NAME}: {guest.disk} is" in found["unseen"]["message"]
    assert "../odd" in found["unseen"]["message"]
