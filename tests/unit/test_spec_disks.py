"""Disks: from size and swap, from partitions, from xen-tools' files; what does not go together."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import WrongValueError
from pipeline.guest.identity import render_fstab
from pipeline.project import Project
from pipeline.spec.load import load_guest
from pipeline.spec.rules import find_clashes
from pipeline.spec.xen_create_image.partitions import find_partitions_file, read_partitions_file
from pipeline.storage.disks import targets_of
from tests.specs import make_spec

PROJECT = Project(Path("/srv"), Path("/srv/output"), Path("/srv/guests"))
SERVER = """\
# a comment
[root]
size=1G
type=ext3
mountpoint=/
options=defaults,errors=remount-ro

[swap]
size=2G
type=swap

[var-tmp]
size=1.5G
type=ext4
mountpoint=/var/tmp
options=nodev,nosuid

[var]
size=4Gb
type=ext4
mountpoint=/var
"""


def clash_keys(**keys: Any) -> list[str]:
    return [clash.subject for clash in find_clashes(make_spec(**keys))]


ROOT = {"name": "root", "size": "2G", "mountpoint": "/"}


def test_a_plain_guest_has_a_disk_and_swap() -> None:
    root, swap = make_spec().parts
    assert (root.name, root.size_mib, root.fs, root.vdev) == ("disk", 4096, "ext4", "xvda1")
    assert (swap.name, swap.size_mib, swap.fs, swap.vdev) == ("swap", 512, "swap", "xvda2")
    assert [part.name for part in make_spec(swap="0").parts] == ["disk"]


def test_a_full_pc_has_whole_disks() -> None:
    assert [part.vdev for part in make_spec(type="hvm").parts] == ["xvda", "xvdb"]
    assert render_fstab(make_spec(type="hvm")).startswith("/dev/xvda / ext4 ")


def test_the_fstab_of_a_plain_guest_is_what_it_always_was() -> None:
    assert render_fstab(make_spec()).splitlines() == [
        "/dev/xvda1 / ext4 errors=remount-ro 0 1",
        "/dev/xvda2 none swap sw 0 0",
        "proc /proc proc defaults 0 0",
    ]


def test_a_file_of_xen_tools_becomes_partitions(tmp_path: Path) -> None:
    (tmp_path / "server").write_text(SERVER)
    spec = make_spec(partitions=read_partitions_file(tmp_path / "server"))
    assert [(p.name, p.size_mib, p.fs, p.mountpoint, p.vdev) for p in spec.parts] == [
        ("root", 1024, "ext3", "/", "xvda1"),
        ("swap", 2048, "swap", "", "xvda2"),
        ("var", 4096, "ext4", "/var", "xvda3"),
        ("var-tmp", 1536, "ext4", "/var/tmp", "xvda4"),
    ]
    assert (spec.size, spec.fs, spec.swap) == ("1G", "ext3", "2G")
    assert spec.layout == "/:ext3 /var:ext4 /var/tmp:ext4"
    assert render_fstab(spec).splitlines()[:4] == [
        "/dev/xvda1 / ext3 defaults,errors=remount-ro 0 1",
        "/dev/xvda2 none swap sw 0 0",
        "/dev/xvda3 /var ext4 defaults 0 2",
        "/dev/xvda4 /var/tmp ext4 nodev,nosuid 0 2",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size=1G\n", "no section headers"),
        ("[root]\nsize=1G\n", "type is missing"),
        ("[root]\nsize=much\ntype=ext4\nmountpoint=/\n", "'much' is not a size"),
        ("[root]\nsize=1G\ntype=ext4\nmount=/\n", "no such key: mount"),
        ("[root]\nsize=1G\n[root]\n", "already exists"),
        ("", "no partition in it"),
    ],
)
def test_what_xen_tools_refuses_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "server").write_text(text)
    with pytest.raises(WrongValueError) as caught:
        read_partitions_file(tmp_path / "server")
    assert message in caught.value.message


def test_a_file_of_partitions_is_looked_for_where_xen_tools_has_them(tmp_path: Path) -> None:
    with pytest.raises(WrongValueError, match=r"nor /etc/xen-tools/partitions.d/absent"):
        find_partitions_file("absent", tmp_path)
    (tmp_path / "server").write_text(SERVER)
    assert find_partitions_file("server", tmp_path) == tmp_path / "server"


def test_a_spec_names_such_a_file_and_the_command_line_too(tmp_path: Path) -> None:
    (tmp_path / "server").write_text(SERVER)
    (tmp_path / "web1.toml").write_text('suite = "bookworm"\npartitions = "server"\n')
    assert len(load_guest("web1", guests_dir=tmp_path).parts) == 4
    (tmp_path / "web1.toml").write_text('suite = "bookworm"\nsize = "9G"\n')
    named = {"partitions": str(tmp_path / "server")}
    spec = load_guest("web1", guests_dir=tmp_path, overrides=named)
    assert spec.parts[0].size_mib == 1024


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"lvm": "VG0", "format": "vhd"}, "format"),
        ({"lvm": "VG0", "image": "full"}, "image"),
        ({"format": "qcow2", "image": "full"}, "image"),
        ({"lvm": "VG0", "clone": "cow"}, "clone"),
        ({"clone": "cow", "image_dev": "/dev/sdb1", "format": "raw"}, "clone"),
        ({"clone": "cow", "fs": "xfs"}, "clone"),
        ({"format": "vhd", "size": "2041G"}, "size"),
        ({"fs": "xfs", "size": "299M"}, "size"),
        ({"swap": "0", "swap_dev": "/dev/sdb2"}, "swap_dev"),
        ({"name": "a-" * 30 + "b", "lvm": "V" * 20}, "lvm"),
        ({"partitions": [{"name": "var", "size": "1G", "mountpoint": "/var"}]}, "partitions"),
        ({"partitions": [ROOT, {"name": "b", "size": "1G", "mountpoint": "/"}]}, "partitions"),
        ({"partitions": [ROOT], "size": "3G"}, "size"),
        ({"partitions": [ROOT], "swap": "1G"}, "swap"),
        ({"partitions": [ROOT], "image_dev": "/dev/sdb1"}, "image_dev"),
        ({"partitions": [ROOT, {"name": "s", "size": "1G", "fs": "swap", "mountpoint": "/s"}]},
         "partitions"),
        ({"partitions": [ROOT, {"name": "s", "size": "1G"}]}, "partitions"),
        ({"partitions": [ROOT, {"name": "x", "size": "200M", "fs": "xfs", "mountpoint": "/x"}]},
         "partitions"),
        ({"partitions": [ROOT, {"name": "u", "size": "2G", "fs": "xfs", "mountpoint": "/usr"}]},
         "partitions"),
    ],
)  # fmt: skip
def test_disks_that_cannot_be_are_refused(keys: dict[str, Any], key: str) -> None:
    assert key in clash_keys(**keys)


@pytest.mark.parametrize(
    "part",
    [
        {"name": "a_tdata", "mountpoint": "/a"},
        {"name": "pvmove0", "mountpoint": "/a"},
        {"name": "a", "mountpoint": "/etc"},
        {"name": "a", "mountpoint": "/a/../b"},
        {"name": "a", "mountpoint": "/a b"},
        {"name": "a", "mountpoint": "/a", "options": "a b"},
        {"name": "a", "mountpoint": "/a", "device": "/srv/disk"},
        {"name": "a", "mountpoint": "/a", "fs": "reiserfs"},
    ],
)
def test_wrong_partitions_are_refused(part: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        make_spec(partitions=[ROOT, {"size": "1G", **part}])


@pytest.mark.parametrize(
    ("keys", "paths"),
    [
        ({}, ["/srv/output/guests/web1/disk.img", "/srv/output/guests/web1/swap.img"]),
        ({"format": "qcow2", "swap": "0"}, ["/srv/output/guests/web1/disk.qcow2"]),
        ({"format": "vhd", "swap": "0"}, ["/srv/output/guests/web1/disk.vhd"]),
        ({"lvm": "VG0"}, ["/dev/VG0/web1-disk", "/dev/VG0/web1-swap"]),
        ({"lvm": "VG0", "lvm_thin": "pool", "swap": "0"}, ["/dev/VG0/web1-disk"]),
        ({"image_dev": "/dev/sdb1", "lvm": "VG0"}, ["/dev/sdb1", "/dev/VG0/web1-swap"]),
        (
            {"partitions": [ROOT, {"name": "srv", "size": "1G", "mountpoint": "/srv"}]},
            ["/srv/output/guests/web1/disk.img", "/srv/output/guests/web1/disk-srv.img"],
        ),
    ],
)
def test_each_disk_has_its_place(keys: dict[str, Any], paths: list[str]) -> None:
    assert [str(target.path) for target in targets_of(make_spec(**keys), PROJECT)] == paths


def test_root_and_swap_keep_their_names_in_a_guest_that_calls_disks_otherwise() -> None:
    root, swap = make_spec(suite="lenny", arch="i386").parts
    assert (root.node, swap.node) == (
        make_spec(suite="lenny").root_device,
        make_spec(suite="lenny").parts[1].node,
    )
