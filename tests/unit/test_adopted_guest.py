"""A guest of an adopted tree: its spec, its network files, the plan of the adoption."""

import configparser
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import UsageError, VerificationError
from pipeline.foreign.adopted import plan_adoption, refuse_unmendable
from pipeline.foreign.static_busybox import _is_static
from pipeline.guest.adopted_network import adopted_network_files
from pipeline.guest.adopted_tree import Adopted, NetworkTool, read_adopted
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.spec.rules import find_clashes
from tests.unit.test_foreign_mend import look, make_kvm

STATIC: dict[str, Any] = {
    "address": ["192.0.2.5/24", "2001:db8::5/64"],
    "gateway": "192.0.2.1",
    "gateway6": "fe80::1",
    "nameservers": ["192.0.2.53", "2001:db8::53"],
    "mtu": 1400,
}


def make_spec(**keys: object) -> Spec:
    return Spec.model_validate({"name": "web1", "adopted": "web1", "boot": "grub", **keys})


def render(tool: NetworkTool, *, is_systemd: bool = True, **keys: object) -> dict[str, str]:
    adopted = Adopted(sha256="", bytes=0, epoch=0, network=tool, is_systemd=is_systemd)
    return adopted_network_files(make_spec(**keys), adopted)


def test_netplan_gets_the_addresses_of_the_spec() -> None:
    ((path, text),) = render("netplan", **STATIC).items()
    assert path == "/etc/netplan/10-card0.yaml"
    card = yaml.safe_load(text)["network"]["ethernets"]["card0"]
    assert card["match"] == {"name": "e[tn][hX]0"}
    assert card["addresses"] == STATIC["address"] and card["dhcp4"] is False
    assert [route["via"] for route in card["routes"]] == ["192.0.2.1", "fe80::1"]
    assert card["nameservers"]["addresses"] == STATIC["nameservers"] and card["mtu"] == 1400
    card = yaml.safe_load(render("netplan")[path])["network"]["ethernets"]["card0"]
    assert card == {"match": {"name": "e[tn][hX]0"}, "dhcp4": True}


def test_network_manager_gets_a_keyfile() -> None:
    path = "/etc/NetworkManager/system-connections/card0.nmconnection"
    keys = configparser.ConfigParser()
    keys.read_string(render("NetworkManager", **STATIC)[path])
    assert keys["match"]["interface-name"] == "eth0;enX0;"
    assert dict(keys["ipv4"]) == {
        "method": "manual",
        "address1": "192.0.2.5/24",
        "gateway": "192.0.2.1",
        "dns": "192.0.2.53;",
    }
    assert keys["ipv6"]["address1"] == "2001:db8::5/64"
    keys = configparser.ConfigParser()
    keys.read_string(render("NetworkManager")[path])
    assert (keys["ipv4"]["method"], keys["ipv6"]["method"]) == ("auto", "auto")


def test_ifupdown_waits_for_either_name_where_udev_may_choose() -> None:
    text = render("ifupdown")["/etc/network/interfaces"]
    assert "allow-hotplug eth0\niface eth0 inet dhcp\n" in text
    assert "allow-hotplug enX0\niface enX0 inet dhcp\n" in text
    text = render("ifupdown", is_systemd=False)["/etc/network/interfaces"]
    assert "auto eth0\niface eth0 inet dhcp\n    hostname web1\n" in text and "enX0" not in text


@pytest.mark.parametrize(
    ("keys", "subject"),
    [
        ({"packages": ["vim"]}, "packages"),
        ({"elements": ["drbd"]}, "elements"),
        ({"timezone": "Europe/Paris"}, "timezone"),
        ({"boot": "pygrub"}, "boot"),
    ],
)
def test_what_an_adopted_guest_cannot_be_is_refused(keys: dict[str, object], subject: str) -> None:
    clashes = list(find_clashes(make_spec(**keys)))
    assert [clash.subject for clash in clashes] == [subject]
    assert clashes[0].others == ("adopted",)
    assert not list(find_clashes(make_spec()))


def test_a_plan_says_how_its_guest_boots(tmp_path: Path) -> None:
    own = plan_adoption("web1", look(make_kvm(tmp_path / "own")), bytes_in=5 << 30)
    assert own.values == {
        **{"adopted": "web1", "suite": "bookworm", "type": "pvh", "boot": "grub"},
        **{"init": "systemd", "size": "8192M"},
    }
    assert [change.how for change in own.changes if change.path == "/etc/shadow"] == ["lock"]
    refuse_unmendable(own)
    old = plan_adoption("web1", look(make_kvm(tmp_path / "old", pvh=False)), bytes_in=1)
    assert old.values["boot"] == "direct" and not old.errors
    assert "no kernel of its own is fit" in str(old.findings[-1])


def test_a_tree_without_init_is_refused(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    adoption = plan_adoption("web1", look(tmp_path), bytes_in=1)
    with pytest.raises(VerificationError, match="web1: network: nothing in it"):
        refuse_unmendable(adoption)


def test_a_record_that_is_not_there_or_damaged_says_so(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    with pytest.raises(UsageError, match="adopted = 'web1': there is no"):
        read_adopted(project, "web1")
    folder = project.adopted / "web1"
    folder.mkdir(parents=True)
    for text in ("", "[]", '{"tree": {"sha256": "../x", "bytes": 1, "epoch": 1}}'):
        (folder / "record.json").write_text(text)
        with pytest.raises(VerificationError, match="is damaged"):
            read_adopted(project, "web1")


def test_only_a_static_program_of_the_machine_is_a_busybox_for_an_initrd() -> None:
    header = bytearray(64 + 56)
    header[:6] = b"\x7fELF\x02\x01"
    header[18], header[32], header[54], header[56] = 0x3E, 64, 56, 1
    assert _is_static(bytes(header), "amd64")
    assert not _is_static(bytes(header), "i386")
    header[64] = 3
    assert not _is_static(bytes(header), "amd64")
    assert not _is_static(b"#!/bin/sh", "amd64")
