"""pygrub as a user of its own: names, texts for each Xen, what the doctor and a proof say of it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dom0.doctor.configured import read_configured
from pipeline.dom0.doctor.facts import HostFacts
from pipeline.dom0.doctor.loaders import find_loader_trouble
from pipeline.dom0.layout import Layout
from pipeline.errors import Finding, WrongValueError
from pipeline.proof.loader import judge
from pipeline.spec.domain import make_boot
from pipeline.xen import xl
from pipeline.xen.boot import LAUNCHER, Pygrub, pygrub_user
from pipeline.xen.devices import Disk
from pipeline.xen.domain import Domain
from pipeline.xen.keys import check_keys
from pipeline.xen.render import render_libvirt, render_xl, render_xm
from pipeline.xen.values import Unsupported
from tests.specs import make_spec

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}", fullmatch=True)
USER = "pygrub-web1"
OWN = Pygrub(LAUNCHER, user=USER)


def make_domain(boot: Pygrub) -> Domain:
    disk = Disk(target="/srv/web1.img", vdev="xvda1")
    return Domain(name="web1", type="pv", memory_mib=256, vcpus=1, boot=boot, disks=(disk,))


@given(NAMES, NAMES)
def test_every_guest_has_a_user_of_its_own(one: str, other: str) -> None:
    names = [pygrub_user(one), pygrub_user(other)]
    assert all(re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name) for name in names)
    assert (names[0] == names[1]) == (one == other)


def test_a_name_that_looks_like_a_shortened_one_is_shortened_too() -> None:
    short = pygrub_user("WEB")
    assert short.startswith("pygrub-web_")
    assert pygrub_user(short.removeprefix("pygrub-")) != short
    assert pygrub_user("web1") == USER


@pytest.mark.parametrize(
    ("xen", "lines", "absent"),
    [
        ("4.17", f'bootloader_args = [\n    "--runas={USER}",\n]\n', "bootloader_user"),
        ("4.18", f'bootloader_restrict = 1\nbootloader_user = "{USER}"\n', "runas"),
    ],
)
def test_each_xen_is_told_the_user_in_the_way_that_it_reads(
    xen: str, lines: str, absent: str
) -> None:
    text = render_xl(make_domain(OWN), xen=xen)
    assert lines in text
    assert absent not in text
    assert check_keys(text, target="xl", xen=xen) == []
    assert xl.parse(text).boot == OWN


def test_libvirt_is_told_by_an_argument_and_xm_never_gets_root() -> None:
    assert f"--runas={USER}</bootloader_args>" in render_libvirt(make_domain(OWN))
    with pytest.raises(Unsupported, match="as root"):
        render_xm(make_domain(OWN))


def test_a_restriction_that_is_switched_off_is_none() -> None:
    text = render_xl(make_domain(OWN), xen="4.20")
    off = text.replace("bootloader_restrict = 1", "bootloader_restrict = 0")
    assert xl.parse(off).boot == Pygrub(LAUNCHER)
    alone = re.sub("bootloader_user.*\n", "", text)
    with pytest.raises(Unsupported, match="bootloader_user"):
        xl.parse(alone)


@pytest.mark.parametrize("user", ["root", "0", "a b", "-x", "x" * 33])
def test_no_user_is_root_or_a_strange_word(user: str) -> None:
    with pytest.raises(WrongValueError):
        Pygrub(LAUNCHER, user=user)


@pytest.mark.parametrize(("xen", "user"), [("4.20", USER), ("4.17", USER), ("4.14", "")])
def test_a_spec_restricts_pygrub_wherever_its_xen_can(xen: str, user: str) -> None:
    spec = make_spec(name="web1", type="pv", boot="pygrub", xen=xen)
    boot = make_boot(spec, Path("/srv"))
    assert isinstance(boot, Pygrub)
    assert (boot.user, boot.path == LAUNCHER) == (user, bool(user))


def host(root: Path, text: str, *, name: str = "web1", has_runas: bool = True) -> Layout:
    """A host's folder with one configuration, our program, a user and Xen's pygrub."""
    layout = Layout(root)
    for path, content in (
        (layout.config(name), text),
        (layout.launcher, "#!/bin/sh\n"),
        (root / "etc/passwd", f"root:x:0:0:root:/root:/bin/sh\n{USER}:x:987:987:x:/:/bin/false\n"),
        (root / "usr/lib/xen-4.17/bin/pygrub", "runas=" if has_runas else "no such thing"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    layout.launcher.chmod(0o755)
    return layout


def find(layout: Layout, xen: str = "4.17.7") -> list[Finding]:
    configured = tuple(read_configured(layout))
    facts = HostFacts(is_dom0=True, xen_version=xen, configured=configured)
    return find_loader_trouble(layout, facts, {})


@pytest.mark.parametrize(
    ("text", "xen", "said"),
    [
        ('bootloader = "pygrub"', "4.17.7", "XSA-508"),
        ('bootloader = "/usr/lib/xen-4.17/bin/pygrub"', "4.20.0", "XSA-508"),
        ('bootloader = "pygrub"\nbootloader_args = [ "-q" ]', "4.17.7", "XSA-508"),
        (f'bootloader = "pygrub"\nbootloader_user = "{USER}"', "4.17.7", "4.17.7 ignores"),
        (f'bootloader = "pygrub"\nbootloader_user = "{USER}"', "4.18.1", ""),
        ('bootloader = "pygrub"\nbootloader_restrict = 1', "4.20.0", ""),
        ('bootloader = "pygrub"\nbootloader_restrict = 0\nbootloader_user = "x"', "4.20.0", "508"),
        ('bootloader = "pygrub"\nbootloader_user = "gone"', "4.20.0", "no user gone"),
        ('bootloader = "pygrub"\nbootloader_args = [ "--runas=987", "-q" ]', "4.17.7", ""),
        ('bootloader = "pygrub"\nbootloader_args = [ "--runas=root" ]', "4.17.7", "no user to"),
        ('type = "hvm"\nbootloader = "pygrub"', "4.17.7", ""),
        ('kernel = "/boot/vmlinuz"', "4.17.7", ""),
        ('bootloader = "other"', "4.17.7", ""),
        ("this is no configuration", "4.17.7", ""),
    ],
)  # fmt: skip
def test_the_doctor_names_every_pygrub_that_is_root(
    tmp_path: Path, text: str, xen: str, said: str
) -> None:
    findings = find(host(tmp_path, f'name = "web1"\n{text}\n' if "=" in text else text), xen)
    assert [said in finding.message for finding in findings] == ([True] if said else [])
    assert all(finding.level == "error" and finding.hint for finding in findings)


def test_the_doctor_looks_into_auto_and_says_a_guest_once(tmp_path: Path) -> None:
    layout = host(tmp_path, 'name = "web1"\nbootloader = "pygrub"\n')
    layout.auto.mkdir()
    layout.auto_link("web1").symlink_to("../web1.cfg")
    (layout.auto / "10-theirs").write_text('name = "old"\nbootloader = "pygrub"\n')
    assert [finding.subject for finding in find(layout)] == ["web1", "old"]
    paths = [guest.path for guest in read_configured(layout)]
    assert paths == [layout.config("web1"), layout.auto / "10-theirs"]


@pytest.mark.parametrize("missing", ["user", "program"])
def test_the_doctor_misses_what_a_restricted_guest_needs(tmp_path: Path, missing: str) -> None:
    layout = Layout(tmp_path)
    text = render_xl(make_domain(Pygrub(str(layout.launcher), user=USER)))
    host(tmp_path, text)
    assert find(layout) == []
    if missing == "user":
        (tmp_path / "etc/passwd").write_text("")
    else:
        layout.launcher.unlink()
    assert [f"no {missing}" in finding.message for finding in find(layout)] == [True]


def test_a_pygrub_of_before_october_2023_can_only_be_root(tmp_path: Path) -> None:
    text = f'name = "web1"\nbootloader = "pygrub"\nbootloader_args = [ "--runas={USER}" ]\n'
    (trouble,) = find(host(tmp_path, text, has_runas=False))
    assert "no --runas" in trouble.message


EVENT: dict[str, Any] = {
    "uids": ["987"] * 4,
    "gids": ["987"] * 4,
    "groups": ["987"],
    "capabilities": "0" * 16,
    "own": ["mnt", "net", "ipc"],
    "file_size": str(128 << 20),
    "sees": ["device"],
}


def notes(*events: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(event)}\n" for event in ({"ready": True}, *events))


def test_a_proof_shows_what_pygrub_could_do() -> None:
    finding = judge(notes(EVENT), is_foreign=False)
    assert finding.level == "ok"
    assert finding.seen.startswith("user 987, no capability, own mnt net ipc, files of 128 MiB")


@pytest.mark.parametrize(
    "change",
    [
        {"uids": ["0"] * 4},
        {"uids": ["987", "987", "0", "987"]},
        {"gids": ["0"] * 4},
        {"groups": ["987", "0"]},
        {"capabilities": "000001fffeffffff"},
        {"own": ["mnt", "ipc"]},
        {"file_size": "unlimited"},
        {"sees": ["bin", "etc"]},
    ],
)
def test_a_pygrub_with_one_right_too_many_fails_the_proof(change: dict[str, Any]) -> None:
    assert judge(notes(EVENT, {**EVENT, **change}), is_foreign=False).level == "error"
    assert judge(notes({**EVENT, **change}), is_foreign=True).level == "warning"


def test_a_pygrub_that_nobody_saw_is_no_proof() -> None:
    assert judge(notes(), is_foreign=False).level == "error"
    assert judge(notes(), is_foreign=True).level == "error"
