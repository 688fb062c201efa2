"""What is told before a build: machine, keyring, guest against kernel and Xen."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from pipeline.preflight import Machine, look_ahead
from pipeline.project import Project
from pipeline.spec import Spec

TODAY = date(2026, 11, 24)


def find(tmp_path: Path, *, arch: str = "x86_64", vsyscall: bool = True, **keys: object) -> str:
    ring = tmp_path / "ring.gpg"
    ring.touch()
    given = {"name": "web1", "suite": "bookworm", "mirror": "http://m/debian"}
    spec = Spec.model_validate({**given, "keyring": str(ring), **keys})
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    found = look_ahead(spec, project, Machine(arch, lambda: vsyscall, TODAY))
    return "; ".join(f"{one.level} {one.subject}: {one.text}" for one in found)


def test_an_ordinary_guest_is_fine(tmp_path: Path) -> None:
    assert find(tmp_path) == ""


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"suite": "lenny", "vsyscall": False}, "error suite: the C library of lenny makes vsys"),
        ({"arch": "i686"}, "error arch: an amd64 guest cannot be built on i686"),
        ({"keyring": "/gone.gpg"}, "error keyring: /gone.gpg: no such file"),
        ({"suite": "lenny", "type": "pvh", "xen": "4.17"}, "error type: Linux 2.6.26 cannot start"),
        (
            {"kernel": "/boot/vmlinuz-2.6.26-2-xen-amd64"},
            "error kernel: the C library of bookworm stops on Linux 2.6.26",
        ),
        ({"suite": "bullseye"}, "warning suite: bullseye: its support ended on 2026-08-31"),
        ({"suite": "lenny", "mirror": "host"}, "warning suite: lenny: in the archive since"),
    ],
    ids=["vsyscall", "arch", "keyring", "pvh", "old kernel", "ended", "archived"],
)
def test_what_would_fail_is_told_with_its_key(
    tmp_path: Path, keys: dict[str, object], expected: str
) -> None:
    machine = {"arch": keys.pop("arch")} if keys.get("arch") == "i686" else {}
    assert expected in find(tmp_path, **{**machine, **keys})  # type: ignore[arg-type]


def test_32_bit_pv_ended_with_linux_5_9_and_needs_pae_before(tmp_path: Path) -> None:
    ring = tmp_path / "ring.gpg"
    ring.touch()
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    machine = Machine("x86_64", lambda: True, TODAY)

    def texts(**keys: object) -> str:
        base = {"name": "web1", "arch": "i386", "mirror": "http://m/debian", "keyring": str(ring)}
        found = look_ahead(Spec.model_validate({**base, **keys}), project, machine)
        return "; ".join(one.text for one in found)

    assert "no 32-bit PV guests any more" in texts(suite="bullseye")
    assert "no 32-bit" not in texts(suite="buster")
    assert "has no PAE" in texts(suite="wheezy", kernel="linux-image-486")
