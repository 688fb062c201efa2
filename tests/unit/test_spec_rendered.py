"""A spec that loads is rendered for its toolstacks, and says the same when it is read back."""

import random
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import SpecError
from pipeline.guest.configurations import render_all
from pipeline.guest.domains import domain_of
from pipeline.preflight import Machine, look_ahead
from pipeline.project import Project
from pipeline.spec import Spec, load_guest
from pipeline.spec.domain import without_ahci
from pipeline.spec.rules import find_clashes
from pipeline.spec.values import XEN_VERSIONS
from pipeline.suites import SUITES
from pipeline.xen import libvirt, xl, xm
from pipeline.xen.values import parse_version

PROJECT = Project(Path("/srv"), Path("/srv/output"), Path("/srv/guests"))
# what libvirt's Xen driver has no words for; its file says so
ONLY_XL = ("mtu: ", "vifname ", "cpu_weight: ", "cap: ")

SIZES = st.sampled_from(["64M", "256M", "1G", "1.5G"])
STOPS = st.sampled_from(["destroy", "restart", "rename-restart", "preserve"])
CARD = {
    "bridge": st.sampled_from(["br-xen", "xenbr0", "b" * 15]),
    "mac": st.sampled_from(["00:16:3E:59:2A:ED", "00-16-3e-59-2a-ee"]),
    "vifname": st.sampled_from(["web0", "vif-web1", "vnet3"]),
    "mtu": st.integers(60, 70000),
    "rate": st.builds(
        "{}{}{}/s{}".format,
        st.integers(0, 2**33) | st.sampled_from(["1.5", "010"]),
        st.sampled_from(["", "K", "M", "G"]),
        st.sampled_from(["b", "B"]),
        st.sampled_from(["", "", "@20ms", "@50us", "@1s", "@20"]),
    ),
    "model": st.sampled_from(["e1000", "rtl8139", "virtio-net"]),
}
KEYS = {
    "name": st.sampled_from(["web1", "a", "n" * 63, "web1.example.org", "g++"]),
    "suite": st.sampled_from(sorted(SUITES)),
    "arch": st.sampled_from(["amd64", "i386"]),
    "type": st.sampled_from(["pv", "pvh", "hvm"]),
    "boot": st.sampled_from(["direct", "pygrub", "grub", "firmware"]),
    "bootloader": st.sampled_from(["/usr/bin/pygrub", "/usr/lib/x/", "/g/pv-grub-x86_64.gz"]),
    "boot_order": st.sampled_from(["c", "dc", "n", "cnd", "a"]),
    "cdrom": st.sampled_from(["/srv/debian.iso", "/srv/a,b.iso"]),
    "cmdline": st.sampled_from(["quiet", "a  b", " x", "root=/dev/sda1", "a=b,c console=tty0"]),
    "xen": st.sampled_from(XEN_VERSIONS),
    "memory": SIZES,
    "maxmem": SIZES,
    "vcpus": st.integers(0, 600),
    "maxvcpus": st.integers(0, 600),
    "cpus": st.sampled_from(["0-3,^1", "5", "0,2-4", "all", "0-"]),
    "cpu_weight": st.integers(0, 70000),
    "cap": st.integers(-1, 300),
    "uuid": st.uuids().map(str),
    "vnc": st.booleans(),
    "vncdisplay": st.integers(0, 70000),
    "vnclisten": st.sampled_from(["127.0.0.1", "0.0.0.0", "::1", "2001:db8::5"]),
    "keymap": st.sampled_from(["fr", "en-us", "fr.", "x"]),
    "format": st.sampled_from(["raw", "qcow2", "vhd"]),
    "swap": st.sampled_from(["0", "1G"]),
    "lvm": st.sampled_from(["VG0", "vg+data_1"]),
    "image_dev": st.sampled_from(["/dev/sdb1", "/dev/mapper/a,b", "/dev/x/", "/dev/disk/a:b"]),
    "on_poweroff": STOPS,
    "on_reboot": STOPS,
    "on_crash": STOPS | st.sampled_from(["coredump-destroy", "coredump-restart"]),
    "interfaces": st.lists(st.fixed_dictionaries({}, optional=CARD), max_size=2),
    **CARD,
}
SPECS = st.fixed_dictionaries(
    {"name": KEYS.pop("name")}, optional={key: KEYS[key] for key in sorted(KEYS)}
)


def read_sound(keys: dict[str, object]) -> Spec | None:
    """The spec of these keys, if it is one that loads."""
    try:
        spec = Spec.model_validate(keys)
    except ValidationError:
        return None
    return None if list(find_clashes(spec)) else spec


def few(keys: dict[str, object], kept: int) -> dict[str, object]:
    """Some of the keys, so that most make a spec."""
    chosen = random.Random(kept).sample(sorted(keys), min(len(keys), 1 + kept % 5))
    return {key: keys[key] for key in keys if key in chosen or key == "name"}


@settings(max_examples=200)
@given(SPECS, st.integers(0, 1000))
def test_a_spec_that_loads_is_rendered_and_parses_back(keys: dict[str, object], kept: int) -> None:
    spec = read_sound(few(keys, kept))
    if spec is None:
        return
    domain = domain_of(spec, PROJECT)
    texts = dict(render_all(spec, PROJECT))
    assert xl.parse(texts[f"{spec.name}.cfg"]) == domain
    plain = without_ahci(domain)
    if f"{spec.name}.xm" in texts:
        assert xm.parse(texts[f"{spec.name}.xm"]) == plain
    else:
        assert parse_version(spec.xen) >= (4, 2), texts
    if f"{spec.name}.xml" in texts:
        assert libvirt.parse(texts[f"{spec.name}.xml"]) == plain
    else:
        assert texts[f"{spec.name}.xml.unsupported"].startswith(ONLY_XL)


@pytest.mark.parametrize(
    ("lines", "key", "message"),
    [
        ('rate = "1.5Mb/s"', "rate", "is not a rate"),
        ('rate = "0b/s"', "rate", "is not a rate"),
        ('rate = "7Kb/s"', "rate", "no limit of a card"),
        ('rate = "5000000000B/s"', "rate", "more than xl reads"),
        ('vnc = true\nvnclisten = "::1"', "vnclisten", "what follows a colon for a display"),
        ('vnc = true\nkeymap = "fr."', "keymap", "is not a keymap"),
        ("vnc = true\nvncdisplay = 60000", "vncdisplay", "not between 0 and 59635"),
        ("vcpus = 4\nmaxvcpus = 2", "maxvcpus", "2 is less than vcpus = 4"),
        ("vcpus = 2\ncap = 250", "cap", "not between 0 and 200"),
        ('cpus = "0;reboot"', "cpus", "no list of processors"),
        ("cpu_weight = 0", "cpu_weight", "not between 1 and 65535"),
        ("vcpus = 600", "vcpus", "not between 1 and 512"),
        ('vcpus = 40\nxen = "3.2"', "vcpus", "at most 32"),
        ('cmdline = "quiet root=/dev/sda1"', "cmdline", "root="),
        (
            'xen = "3.2"\nboot = "pygrub"\nbootloader = "/usr/lib/xen/"',
            "bootloader",
            "is a directory",
        ),
        ('boot = "pygrub"\nbootloader = "/usr/bin/pygrub"', "bootloader", "the guest's own user"),
        ('format = "qcow2"\nxen = "3.2"', "format", "has no driver for it"),
        ('image_dev = "/dev/mapper/a,b"\nxen = "3.2"', "image_dev", "at every comma"),
        ('mtu = 1400\nxen = "4.15"', "mtu", "does not know mtu="),
        ("[[interfaces]]\nmtu = 9000\n[defaults]\n", "defaults", "no such key"),
    ],
)
def test_a_spec_that_no_toolstack_can_have_is_refused_when_it_is_loaded(
    tmp_path: Path, lines: str, key: str, message: str
) -> None:
    (tmp_path / "web1.toml").write_text(f"{lines}\n")
    with pytest.raises(SpecError, match="web1.toml") as caught:
        load_guest("web1", guests_dir=tmp_path)
    assert caught.value.exit_code == 2
    assert [(one.subject, message in one.message) for one in caught.value.problems] == [(key, True)]


def test_a_folder_that_xm_cannot_name_is_told_before_a_build(tmp_path: Path) -> None:
    ring = tmp_path / "ring.gpg"
    ring.touch()
    keys = {"name": "web1", "suite": "lenny", "arch": "i386", "xen": "3.2", "keyring": str(ring)}
    spec = Spec.model_validate({**keys, "mirror": "http://m/debian"})
    project = Project(tmp_path, tmp_path / "a,b", tmp_path / "guests")
    machine = Machine("x86_64", lambda: True, date(2026, 11, 29))
    found = [one for one in look_ahead(spec, project, machine) if "comma" in one.text]
    assert [(one.level, one.hint) for one in found] == [
        ("error", "put output/ elsewhere: DOMU_OUTPUT")
    ]
