"""Templates and seeds: what goes together, what the seed says, what a check wants of a template."""

import json
from pathlib import Path

import pytest

from pipeline.check.template import check_cloud_init, check_identity
from pipeline.errors import SpecError, UsageError
from pipeline.guest.domains import domain_of
from pipeline.guest.identity import template_files
from pipeline.guest.login import NOBODY, find_login
from pipeline.guest.seed import read_user_data, seed_files
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.spec.load import load_guest
from pipeline.spec.rules import find_clashes
from pipeline.stages.user_data import explain
from pipeline.storage.disks import targets_of
from tests.specs import make_spec
from tests.unit.check_facts import failed, make_facts

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFmmJcDPUMYOVuqj5trLzRnVHtXSOoCzfjsgXNgv8IZZ me"
PROJECT = Project(Path("/srv"), Path("/srv/output"), Path("/srv/guests"))


def make_template(**keys: object) -> Spec:
    return make_spec(cloud_init=True, **keys)


def clash_keys(spec: Spec) -> list[str]:
    return [clash.subject for clash in find_clashes(spec)]


def test_the_seed_is_a_read_only_disk_behind_the_others() -> None:
    spec = make_template(seed={})
    assert [part.vdev for part in spec.parts] == ["xvda1", "xvda2", "xvda3"]
    assert make_template().parts == make_spec().parts
    assert targets_of(spec, PROJECT)[2].path.name == "seed.img"
    disk = domain_of(spec, PROJECT).disks[2]
    assert (disk.access, disk.format, disk.devtype) == ("ro", "raw", "disk")
    assert make_template(seed={}, swap="0").parts[1].vdev == "xvda3"
    assert make_template(seed={}).layout == make_spec().layout


@pytest.mark.parametrize(
    ("keys", "clashes"),
    [
        ({"cloud_init": True}, []),
        ({"cloud_init": True, "seed": {}, "authorized_keys": [KEY]}, []),
        ({"cloud_init": True, "user_data": "/x", "address": "10.0.0.2/24"}, []),
        ({"seed": {}}, ["seed"]),
        (
            {
                "cloud_init": True,
                "seed": {"users": [{"name": "a"}], "ssh_authorized_keys": [KEY]},
            },
            ["seed.ssh_authorized_keys"],
        ),
        ({"user_data": "/x"}, ["user_data"]),
        ({"cloud_init": True, "suite": "bullseye"}, ["cloud_init"]),
        ({"cloud_init": True, "init": "sysvinit"}, ["cloud_init"]),
        ({"cloud_init": True, "seed": {}, "user_data": "/x"}, ["user_data"]),
        ({"cloud_init": True, "authorized_keys": [KEY]}, ["authorized_keys"]),
        ({"cloud_init": True, "authorized_keys": [KEY], "user_data": "/x"}, ["authorized_keys"]),
        ({"cloud_init": True, "address": "10.0.0.2/24"}, ["address"]),
        ({"cloud_init": True, "seed": {}, "hosts": ["10.0.0.9 db"]}, ["hosts"]),
        ({"cloud_init": True, "root_password_file": "-"}, ["root_password_file"]),
    ],
)
def test_what_only_a_seed_can_say_needs_one(keys: dict[str, object], clashes: list[str]) -> None:
    assert clash_keys(make_spec(**keys)) == clashes


def test_a_template_holds_where_its_disks_are_and_nothing_else() -> None:
    files = {file.path: file.content for file in template_files(make_template(), shadow="root:*:")}
    assert set(files) == {"/etc/fstab", "/etc/shadow"}


def told(spec: Spec) -> dict[str, object]:
    keys = {"ssh_host_ed25519_key": b"secret", "ssh_host_ed25519_key.pub": b"public"}
    files = seed_files(spec, read_user_data(spec), keys)
    return {
        name: json.loads(content.decode().removeprefix("#cloud-config\n"))
        for name, content in files.items()
    }


def test_the_seed_says_name_cards_by_their_address_users_and_host_keys() -> None:
    spec = make_template(
        seed={"users": [{"name": "alice", "ssh_authorized_keys": [KEY]}], "runcmd": ["true"]},
        hostname="web1.example.org",
        authorized_keys=[KEY],
        address=["10.0.0.2/24", "2001:db8::2/64"],
        gateway="10.0.0.1",
        gateway6="fe80::1",
        nameservers="10.0.0.1",
        mtu=1400,
        interfaces=[{"dhcp": True}],
    )
    files = told(spec)
    ethernets = files["network-config"]["ethernets"]  # type: ignore[index]
    assert ethernets["eth0"] == {
        "match": {"macaddress": spec.cards[0].mac.lower()},
        "addresses": ["10.0.0.2/24", "2001:db8::2/64"],
        "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}, {"to": "::/0", "via": "fe80::1"}],
        "nameservers": {"addresses": ["10.0.0.1"], "search": ["example.org"]},
        "mtu": 1400,
    }
    assert ethernets["eth1"]["dhcp4"] is True
    assert files["user-data"] == {
        "users": [
            {"name": "alice", "ssh_authorized_keys": [KEY], "shell": "/bin/bash"},
            {"name": "root", "ssh_authorized_keys": [KEY]},
        ],
        "disable_root": False,
        "runcmd": ["true"],
    }
    keys = {"ed25519_private": "secret", "ed25519_public": "public"}
    assert files["vendor-data"] == {"ssh_keys": keys}
    assert files["meta-data"]["local-hostname"] == "web1.example.org"  # type: ignore[index]


def test_another_seed_is_another_instance() -> None:
    def instance(**keys: object) -> object:
        return told(make_template(seed={}, **keys))["meta-data"]["instance-id"]  # type: ignore[index]

    assert instance() == instance()
    others = {instance(hostname="b"), instance(mac="00:16:3e:00:00:09"), instance(name="b")}
    assert instance() not in others and len(others) == 3


def test_user_data_says_in_its_first_line_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "web1.yaml"
    path.write_text("packages: [nginx]\n")
    with pytest.raises(UsageError, match="line 1 does not say what it is"):
        read_user_data(make_template(user_data=str(path)))
    path.write_text("#!/bin/sh\ntrue\n")
    assert read_user_data(make_template(user_data=str(path))) == "#!/bin/sh\ntrue\n"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("format-l4.c3: File /tmp/user-data is not valid yaml. while parsing", "4: while parsing"),
        ("packages: 5 is not of type 'array'", "2: packages: 5 is not of type 'array'"),
        ("users.1: {'nme': 'b'} is not valid", "5: users.1: {'nme': 'b'} is not valid"),
        ("users.1.lock: 3 is not", "5: users.1.lock: 3 is not"),
    ],
)
def test_a_mistake_is_told_with_its_line(said: str, shown: str) -> None:
    text = "#cloud-config\npackages: 5\nusers:\n  - name: a\n  - nme: b\n"
    assert explain(f"Error:\nCloud config schema errors: {said}\n", text) == f"line {shown}"


def test_who_can_log_in_is_whom_the_seed_gives_a_key() -> None:
    def lines(**keys: object) -> str:
        return find_login(make_template(**keys), Path("/k")).lines[0]

    assert lines(seed={}) == NOBODY
    assert "user=" not in lines(seed={}, authorized_keys=[KEY])
    assert "user=debian" in lines(seed={"ssh_authorized_keys": [KEY]})
    users = [{"name": "alice", "ssh_authorized_keys": [KEY]}]
    assert "alice@10.0.0.2" in lines(seed={"users": users}, address="10.0.0.2/24")
    assert lines() == "its seed says who"


def test_keys_of_a_seed_are_judged_and_its_paths_are_relative_to_the_spec(guests: Path) -> None:
    (guests / "me.pub").write_text(f"{KEY}\n")
    keys = 'ssh_authorized_keys = ["./me.pub"]\n'
    (guests / "web1.toml").write_text(f"cloud_init = true\n[seed]\n{keys}")
    user = '[[seed.users]]\nname = "alice"\n'
    (guests / "web2.toml").write_text(f"cloud_init = true\n{user}{keys}")
    first, second = (load_guest(name, guests_dir=guests).seed for name in ("web1", "web2"))
    assert first is not None and second is not None
    assert first.ssh_authorized_keys == (str(guests / "me.pub"),)
    assert second.users[0].ssh_authorized_keys == (str(guests / "me.pub"),)
    (guests / "me.pub").write_text("ssh-dss AAAA me\n")
    for name, place in (("web1", "seed"), ("web2", "seed.users[0]")):
        with pytest.raises(SpecError) as caught:
            load_guest(name, guests_dir=guests)
        subjects = [problem.subject for problem in caught.value.problems]
        assert subjects == [f"{place}.ssh_authorized_keys"]


def test_a_template_that_says_who_it_is_fails_its_check() -> None:
    sound = {
        "/etc/machine-id": "",
        "/etc/hosts": "127.0.0.1 localhost\n",
        "/etc/cloud/ds-identify.cfg": "policy: search,notfound=enabled\n",
    }
    assert failed(check_identity(make_facts(sound, cloud_init=True))) == set()
    wrong = {
        **sound,
        "/etc/ssh/ssh_host_rsa_key": "x",
        "/etc/machine-id": "5" * 32,
        "/etc/systemd/network/10-card0.network": "x",
        "/etc/cloud/ds-identify.cfg": "policy: disabled\n",
    }
    facts = make_facts(wrong, cloud_init=True)
    assert failed(check_identity(facts)) == {"identity", "machine-id", "network files"}
    assert failed(check_cloud_init(facts)) == {"cloud-init"}
