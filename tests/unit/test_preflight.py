"""What is told before a build: machine, keyring, guest against kernel and Xen."""

from datetime import date
from pathlib import Path

import pytest

from pipeline import preflight
from pipeline.mirror.index import PackageIndex
from pipeline.preflight import Machine, find_unknown_names, look_ahead, read_xen_caps
from pipeline.project import Project
from pipeline.spec import Spec

TODAY = date(2026, 11, 24)


def find(
    tmp_path: Path,
    *,
    arch: str = "x86_64",
    vsyscall: bool = True,
    xen_caps: tuple[str, ...] = (),
    **keys: object,
) -> str:
    ring = tmp_path / "ring.gpg"
    ring.touch()
    given = {"name": "web1", "suite": "bookworm", "mirror": "http://m/debian"}
    spec = Spec.model_validate({**given, "keyring": str(ring), **keys})
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    found = look_ahead(spec, project, Machine(arch, lambda: vsyscall, TODAY, xen_caps=xen_caps))
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


def test_a_xen_host_that_cannot_start_the_guest_is_told_of(tmp_path: Path) -> None:
    caps = tmp_path / "sys/hypervisor/properties/capabilities"
    caps.parent.mkdir(parents=True)
    caps.write_text("xen-3.0-x86_64 xen-3.0-x86_32p\n")
    without = read_xen_caps(tmp_path)
    assert "warning type: type pvh needs VT-x or AMD-V" in find(tmp_path, xen_caps=without)
    assert find(tmp_path, xen_caps=without, type="pv") == ""
    assert find(tmp_path, xen_caps=(*without, "hvm-3.0-x86_64")) == ""
    assert read_xen_caps(tmp_path / "nowhere") == ()


def test_a_machine_without_i386_is_refused_where_the_guests_programs_run(tmp_path: Path) -> None:
    """Not where the tree is in the store, from another machine or an earlier day."""
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    keys = {"name": "web1", "suite": "lenny", "arch": "i386", "keyring": str(tmp_path)}
    spec = Spec.model_validate({**keys, "mirror": "http://m/debian"})
    machine = Machine("x86_64", lambda: True, TODAY, lambda: False)
    assert "runs no i386" in " ".join(one.text for one in look_ahead(spec, project, machine))
    rest = look_ahead(spec, project, machine, runs_guest=False)
    assert "arch" not in {one.subject for one in rest}


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


def test_a_zone_and_a_locale_that_nobody_knows_are_told_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tzdata.zi").write_text(
        "# version 2025b\nZ Europe/Paris 0:9 -\nL Europe/Paris Zulu\n"
    )
    (tmp_path / "SUPPORTED").write_text("de_DE.UTF-8 UTF-8\nde_DE@euro ISO-8859-15\n")
    monkeypatch.setattr(preflight, "_ZONES", tmp_path / "tzdata.zi")
    monkeypatch.setattr(preflight, "_LOCALES", tmp_path / "SUPPORTED")

    def told(**keys: str) -> list[str]:
        spec = Spec.model_validate({"name": "web1", **keys})
        return [f"{one.subject}: {one.text}; {one.hint}" for one in find_unknown_names(spec)]

    for zone in ("Europe/Paris", "Zulu"):
        assert told(timezone=zone, locale="de_DE@euro") == []
    assert told(timezone="Europe/Paris", locale="C.UTF-8") == []
    assert told(timezone="Europe/Pariss", locale="de_DE.UTF8") == [
        "timezone: no such zone: Europe/Pariss; did you mean 'Europe/Paris'?",
        "locale: no such locale: de_DE.UTF8; did you mean 'de_DE.UTF-8'?",
    ]
    monkeypatch.setattr(preflight, "_ZONES", tmp_path / "none")
    monkeypatch.setattr(preflight, "_LOCALES", tmp_path / "none")
    assert told(timezone="Europe/Pariss", locale="xx_XX.UTF-8") == []


def test_an_index_knows_packages_and_what_they_provide(tmp_path: Path) -> None:
    (tmp_path / "Packages").write_bytes(
        b"Package: exim4\nProvides: mail-transport-agent, smtp (= 1)\n\nPackage: less\n"
        b"Depends: nothing-of-this\n\n"
    )
    index = PackageIndex([("http://m", tmp_path / "Packages")])
    assert [index.knows(name) for name in ("exim4", "less", "smtp", "mail-transport-agent")] == [
        *[True] * 4
    ]
    assert not any(map(index.knows, ("exim", "mail", "nothing-of-this", "transport-agent")))
    assert index.suggest("lesss") == "did you mean 'less'?"
    assert index.suggest("zzz") == ""
