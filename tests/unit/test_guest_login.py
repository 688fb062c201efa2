"""Who can log in, and what is to be typed for it."""

import shlex
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.guest.login import find_login, warn_of_closed
from tests.specs import make_spec

KEY = "ssh-ed25519 AAAA me@example"
HOSTS = Path("output/guests/web1/known_hosts")
FIXED = {"address": ["192.168.1.10/24"], "gateway": "192.168.1.1"}


def test_a_fixed_address_gives_the_whole_line() -> None:
    login = find_login(make_spec(authorized_keys=[KEY], **FIXED), HOSTS)
    line = "ssh -o UserKnownHostsFile=output/guests/web1/known_hosts root@192.168.1.10"
    assert login.lines == [line]
    assert (login.finding.level, login.finding.message) == ("ok", line)
    assert asdict(login)["ssh"] == line


def test_the_first_fixed_address_of_any_card_is_taken() -> None:
    cards = [{"bridge": "br-back", "address": ["2001:db8::5/64"]}]
    login = find_login(make_spec(authorized_keys=[KEY], interfaces=cards), HOSTS)
    assert login.ssh.endswith(" root@2001:db8::5")


def test_a_line_between_two_nodes_is_no_way_to_one() -> None:
    cards = [{"bridge": "br-drbd", "address": ["10.77.0.1/29"]}]
    node = {"name": "r0", "size": "64M", "address": "10.77.0.1"}
    nodes = [{**node, "peer": "web2", "peer_address": "10.77.0.2", "pair": "web"}]
    login = find_login(make_spec(authorized_keys=[KEY], interfaces=cards, replicated=nodes), HOSTS)
    assert login.ssh == "" and "by DHCP" in login.address


@pytest.mark.parametrize("folder", ["Xen Gäste", "50% off", "it's", "a b%c"])
def test_a_strange_path_reaches_ssh_as_it_is(folder: str) -> None:
    login = find_login(make_spec(authorized_keys=[KEY], **FIXED), Path("/srv") / folder / "kh")
    option = shlex.split(login.ssh)[2].partition("=")[2]
    # ssh_config(5): white space ends a name unless quoted, %% is a percent sign
    assert option.replace("%%", "%").strip('"') == f"/srv/{folder}/kh"
    assert option.startswith('"') == (" " in folder)


def test_a_guest_with_dhcp_is_found_by_its_mac() -> None:
    login = find_login(make_spec(authorized_keys=[KEY], mac="00:16:3e:01:02:03"), HOSTS)
    (line,) = login.lines
    assert line.startswith("doit ssh name=web1 ")
    assert "00:16:3E:01:02:03" in line
    assert login.finding.level == "ok"


@pytest.mark.parametrize(("kind", "console"), [("pv", "web1"), ("hvm", "-t pv web1")])
def test_a_password_opens_the_console_alone(kind: str, console: str) -> None:
    boot = {"type": kind, "boot": "firmware" if kind == "hvm" else "direct"}
    login = find_login(make_spec(root_password_file="-", **boot, **FIXED), HOSTS)
    (line,) = login.lines
    assert line.startswith(f"xl console {console} ")
    assert "keys only" in line
    assert not login.ssh


def test_key_and_password_are_two_ways_in() -> None:
    login = find_login(make_spec(authorized_keys=[KEY], root_password_file="-", **FIXED), HOSTS)
    assert [line.split()[0] for line in login.lines] == ["ssh", "xl"]


def test_without_either_nobody_can_and_what_to_write_is_said() -> None:
    finding = find_login(make_spec(**FIXED), HOSTS).finding
    assert (finding.level, finding.code) == ("warning", "A3")
    assert finding.message == "nobody can log in: no authorized_keys, no root password"
    assert "authorized_keys = [" in finding.hint


def test_the_list_names_the_guests_that_nobody_can_log_in_to() -> None:
    specs = [make_spec(), make_spec(name="db1"), make_spec(name="ok1", authorized_keys=[KEY])]
    assert "nobody can log in to web1, db1: no " in warn_of_closed(specs)
    assert warn_of_closed(specs[2:]) == ""
