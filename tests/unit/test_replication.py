"""Replicated disks in a spec: which disk it is, what does not go together, the guest's files."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import (
    CommandFailed,
    EnvironmentFault,
    SpecError,
    UsageError,
    VerificationError,
)
from pipeline.guest.configurations import render_all
from pipeline.guest.domains import domain_of
from pipeline.guest.identity import render_fstab, render_hosts
from pipeline.guest.replication_files import digest_given, read_secrets, replication_files
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.spec.load import load_guest
from pipeline.spec.rules import find_clashes
from pipeline.storage.disks import targets_of
from pipeline.storage.replicated import require_primary
from tests.replicated import NODE, make_node
from tests.specs import make_spec

SECRET = "5ecre7" * 8


def clash_keys(spec: Spec) -> list[str]:
    return [clash.subject for clash in find_clashes(spec)]


def test_a_replicated_disk_comes_last_and_changes_no_other() -> None:
    spec = make_node()
    assert [part.vdev for part in spec.parts] == ["xvda1", "xvda2", "xvda3"]
    assert spec.parts[:2] == make_spec().parts and spec.layout == make_spec().layout
    disk = spec.parts[2]
    assert (disk.is_replicated, disk.holds_data, disk.has_files) == (True, True, False)
    assert "xvda3" not in render_fstab(spec)
    project = Project(Path("/srv"), Path("/srv/output"), Path("/srv/guests"))
    assert targets_of(spec, project)[2].path.name == "disk-r0.img"
    assert [part.vdev for part in make_node(swap="0").parts] == ["xvda1", "xvda3"]
    parts = [{"name": "root", "size": "2G", "mountpoint": "/"}]
    parts += [{"name": "v", "size": "1G", "mountpoint": "/var"}]
    assert [part.vdev for part in make_node(partitions=parts).parts] == ["xvda1", "xvda3", "xvda4"]
    whole = make_node(type="hvm", boot="firmware")
    assert [part.vdev for part in whole.parts] == ["xvda4", "xvda3", "xvdb"]
    assert [part.vdev for part in whole.disks] == ["xvda", "xvdb"]


def test_its_service_and_tools_are_in_the_golden_half() -> None:
    assert make_node().elements == ("drbd-service",)
    assert make_node(elements=["own", "drbd-service"]).elements == ("drbd-service", "own")
    assert make_spec().elements == ()


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({}, []),
        ({"pair": "", "secret_file": "/srv/secret"}, []),
        ({"pair": ""}, ["replicated[0].pair"]),
        ({"secret_file": "/srv/secret"}, ["replicated[0].pair"]),
        ({"name": "swap"}, ["replicated[0].name"]),
        ({"peer": "web1.example.org"}, ["replicated[0].peer"]),
        ({"peer_address": "10.77.0.1"}, ["replicated[0].peer_address"]),
        ({"peer_address": "2001:db8::1"}, ["replicated[0].peer_address"]),
        ({"address": "10.77.0.3"}, ["replicated[0].address"]),
    ],
)
def test_what_does_not_go_together(change: dict[str, Any], keys: list[str]) -> None:
    assert clash_keys(make_node(NODE | change)) == keys


def test_what_two_disks_or_the_release_cannot_have() -> None:
    assert clash_keys(make_node(NODE, NODE)) == ["replicated"] * 3
    assert clash_keys(make_node(NODE, NODE | {"name": "r1", "minor": 1, "port": 7789})) == []
    assert clash_keys(make_node(suite="wheezy")) == ["replicated"]
    assert "replicated" in clash_keys(make_node(adopted="old", boot="grub"))
    parts = [{"name": "root", "size": "2G", "mountpoint": "/"}]
    parts += [{"name": "r0", "size": "1G", "mountpoint": "/srv"}]
    assert clash_keys(make_node(partitions=parts)) == ["replicated[0].name"]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('name = "R 0"', "replicated[0].name"),
        ("port = 0", "replicated[0].port"),
        ("minor = 256", "replicated[0].minor"),
        ('after_2pri = "violently-as0p"', "replicated[0].after_2pri"),
        ('protokol = "C"', "replicated[0].protokol"),
        ('pair = "a/b"', "replicated[0].pair"),
        ('peer_address = "db-b"', "replicated[0].peer_address"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, line: str, key: str) -> None:
    word = line.partition(" ")[0]
    lines = [f'{name} = "{value}"' for name, value in NODE.items() if name != word]
    text = "\n".join(["[[replicated]]", *lines, line])
    (tmp_path / "web1.toml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_guest("web1", guests_dir=tmp_path)
    assert key in [problem.subject for problem in caught.value.findings]


def test_a_secret_file_is_relative_to_the_spec(tmp_path: Path) -> None:
    table = {**NODE, "secret_file": "secrets/db"}
    del table["pair"]
    lines = [f'{name} = "{value}"' for name, value in table.items()]
    card = '[[interfaces]]\naddress = "10.77.0.1/29"\nbridge = "br-db"\n'
    (tmp_path / "web1.toml").write_text("\n".join([card, "[[replicated]]", *lines]))
    spec = load_guest("web1", guests_dir=tmp_path, checks_files=False)
    assert spec.replicated[0].secret_file == str(tmp_path / "secrets/db")


def test_the_guests_files() -> None:
    files = {file.path: file for file in replication_files(make_node(), {"r0": SECRET})}
    resource = files["/etc/drbd.d/r0.res"]
    assert resource.mode == 0o600
    text = resource.content.decode()
    assert f'shared-secret "{SECRET}";' in text and "disk /dev/xvda3;" in text
    assert "on web1 {\n        address ipv4 10.77.0.1:7788;" in text
    assert "on db-b {\n        address ipv4 10.77.0.2:7788;" in text
    assert "10.77.0.2 db-b\n" in render_hosts(make_node())
    assert not list(replication_files(make_spec(), {}))


def test_one_node_of_the_two_begins() -> None:
    assert "hook_start" in settings_of(make_node())
    other = NODE | {"address": "10.77.0.2", "peer": "web1", "peer_address": "10.77.0.1"}
    cards = [{"address": "10.77.0.2/29", "bridge": "br-db"}]
    second = make_node(other, hostname="db-b", interfaces=cards)
    assert "hook_start" not in settings_of(second) and "drbdadm()" in settings_of(second)


def settings_of(spec: Spec) -> str:
    files = {file.path: file.content.decode() for file in replication_files(spec, {"r0": SECRET})}
    return files["/etc/default/drbd"]


def test_an_address_of_ipv6() -> None:
    table = NODE | {"address": "fd00::1", "peer_address": "fd00::2"}
    spec = make_node(table, interfaces=[{"address": "fd00::1/64", "bridge": "br-db"}])
    text = next(replication_files(spec, {"r0": SECRET})).content.decode()
    assert clash_keys(spec) == [] and "address ipv6 [fd00::1]:7788;" in text


def test_a_pair_has_one_secret_that_is_kept(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    first = read_secrets(make_node(), project)
    assert first == read_secrets(make_node(NODE | {"peer": "x"}, name="web2"), project)
    path = tmp_path / "output/identity/db/r0.drbd-secret"
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert first["r0"] not in repr(make_node().as_json())
    assert make_node().identities == ("web1", "db") and make_spec().identities == ("web1",)
    assert read_secrets(make_node(NODE | {"pair": "other"}), project) != first
    path.write_text("short\n")
    with pytest.raises(VerificationError, match="damaged"):
        read_secrets(make_node(), project)


def test_a_secret_of_the_users(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    path = tmp_path / "secret"
    spec = make_node(NODE | {"pair": "", "secret_file": str(path)})
    with pytest.raises(UsageError, match="No such file"):
        read_secrets(spec, project)
    path.write_text(f"{SECRET}\n")
    assert read_secrets(spec, project) == {"r0": SECRET}
    before = digest_given(spec)
    path.write_text("another-secret\n")
    assert digest_given(spec) != before and "another" not in before
    for wrong in ("short", 'with"quote"s', "two\nlines", "x" * 64, "with space s"):
        path.write_text(wrong)
        with pytest.raises(UsageError, match="not one line"):
            read_secrets(spec, project)


RESOURCE = "/dev/drbd/by-res/r0/0"


def test_a_root_disk_that_is_a_drbd_resource_of_the_host(tmp_path: Path) -> None:
    """Its script makes it primary when the guest starts; another path of DRBD's is a device."""
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    spec = make_spec(image_dev=RESOURCE)
    assert list(find_clashes(spec)) == []
    root, swap = domain_of(spec, project).disks
    assert (root.target, root.script, swap.script) == (RESOURCE, "block-drbd", "")
    assert domain_of(make_spec(image_dev="/dev/drbd0"), project).disks[0].script == ""
    texts = dict(render_all(make_spec(image_dev=RESOURCE, type="pv", xen="3.2"), project))
    assert "'drbd:r0,xvda1,w'" in texts["web1.xm"]
    assert "script=block-drbd, target=r0" in texts["web1.cfg"]
    assert "block-drbd" in texts["web1.xml.unsupported"]
    assert "boot" in clash_keys(make_spec(image_dev=RESOURCE, boot="pygrub", type="pv"))


@pytest.mark.parametrize(
    ("role", "words"), [("Secondary/Primary", "is Secondary here"), ("", "knows no DRBD resource")]
)
def test_a_resource_is_written_only_where_it_is_primary(role: str, words: str) -> None:
    def run(argv: list[str]) -> str:
        if role:
            return f"{role}\n"
        raise CommandFailed(argv, status=1, output="no resources defined!")

    with pytest.raises(EnvironmentFault, match=words):
        require_primary(run, "r0")
    require_primary(lambda argv: "Primary/Secondary\n", "r0")
