"""A full PC's CD drive, boot order and screen: refused, rendered, imported, installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.artifact.folder import Source
from pipeline.dom0.install import plan_install
from pipeline.dom0.layout import Layout
from pipeline.dom0.migrate import judge_storage
from pipeline.errors import UsageError
from pipeline.foreign.import_file import import_text
from pipeline.foreign.import_spec import Host
from pipeline.guest.configurations import render_all
from pipeline.guest.domains import domain_of
from pipeline.project import Project
from pipeline.proof.artifact import Artifact
from pipeline.proof.handover import MOST_NETBOOT, bring_netboot
from pipeline.proof.prove import prove_artifact
from pipeline.proof.session import Asked
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.spec.domain import without_ahci
from pipeline.spec.rules import find_clashes
from pipeline.xen import libvirt, xl, xm
from pipeline.xen.domain import Disk, Domain
from tests.boot.bootable_cd import make_cd
from tests.specs import make_spec
from tests.unit.test_preflight import find

PROJECT = Project(Path("/srv"), Path("/srv/output"), Path("/srv/guests"))
PC = {"type": "hvm", "boot": "firmware"}
ISO = "/srv/iso/debian.iso"


def domain(**keys: object) -> Domain:
    return domain_of(make_spec(**PC, **keys), PROJECT)


def only_clash(spec: Spec) -> str:
    (clash,) = find_clashes(spec)
    return f"{clash.subject}: {clash.message}; {clash.hint}"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"type": "pv", "cdrom": ISO}, "cdrom: PV and PVH guests have no CD drive; write"),
        ({"type": "pvh", "cdrom": ISO}, "cdrom: PV and PVH guests have no CD drive; write"),
        ({"type": "hvm", "boot_order": "c"}, "boot_order: a guest with boot = 'direct' has no fir"),
        ({"type": "pvh", "boot_order": "n"}, "boot_order: a guest with boot = 'direct' has no fir"),
        ({**PC, "boot_order": "dc"}, "boot_order: d is the CD, and there is none; write cdrom too"),
        ({**PC, "boot_order": "a"}, "boot_order: a is a floppy, and the PC has none; leave a out"),
        (
            {"type": "hvm", "cdrom": ISO, "partitions": [
                {"name": "disk", "mountpoint": "/", "size": "1G"},
                {"name": "swap", "fs": "swap", "size": "1G"},
                {"name": "var", "mountpoint": "/var", "size": "1G"},
                {"name": "srv", "mountpoint": "/srv", "size": "1G"},
            ]},
            "cdrom: the PC's four drives are the guest's disks already; swap = '0' frees one",
        ),
    ],
)  # fmt: skip
def test_what_no_pc_can_have_is_refused_by_its_key(keys: dict[str, object], said: str) -> None:
    assert only_clash(make_spec(**keys)).startswith(said)


@pytest.mark.parametrize("order", ["", "x", "cc", "CD", "cdnac"])
def test_what_is_no_boot_order_is_refused(order: str) -> None:
    with pytest.raises(ValueError, match="is no boot order"):
        make_spec(**PC, boot_order=order)


@pytest.mark.parametrize("xen", ["3.2", "4.2", "4.14", "4.17", "4.20"])
def test_every_toolstack_reads_the_drive_the_order_and_the_screen(xen: str) -> None:
    spec = make_spec(**PC, cdrom=ISO, boot_order="dn", vnc=True, vncdisplay=2, xen=xen)
    whole = domain_of(spec, PROJECT)
    texts = dict(render_all(spec, PROJECT))
    plain = without_ahci(whole)
    assert xl.parse(texts["web1.cfg"]) == whole
    assert xm.parse(texts["web1.xm"]) == plain
    assert libvirt.parse(texts["web1.xml"]) == plain
    assert whole.disks[-1] == Disk(target=ISO, vdev="hdc", access="ro", devtype="cdrom")
    for line in ('boot = "dn"', "vnc = 1", "vncdisplay = 2", "devtype=cdrom, target=" + ISO):
        assert line in texts["web1.cfg"]
    for line in ("boot = 'dn'", "vnc = 1", f"file:{ISO},hdc:cdrom,r"):
        assert line in texts["web1.xm"]
    for line in ('<boot dev="cdrom"/>', '<boot dev="network"/>', 'device="cdrom"', 'port="5902"'):
        assert line in texts["web1.xml"]


def test_the_drive_is_where_no_disk_has_its_place() -> None:
    assert [disk.vdev for disk in domain(cdrom=ISO).disks] == ["xvda", "hdc"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.write_bytes(b"PK" * 40000), "is no image of a CD"),
        (lambda path: path.write_bytes(b""), "is no image of a CD"),
        (make_cd, ""),
        (lambda path: path.symlink_to(make_cd(path.with_name("linked.iso"))), ""),
    ],
    ids=["missing", "folder", "fifo", "zip", "empty", "ISO 9660", "link to one"],
)
def test_the_image_in_the_drive_is_looked_at_before_a_build(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "cd.iso"
    make(path)
    found = find(tmp_path, type="hvm", boot="firmware", cdrom=str(path))
    assert (f"error cdrom: {path}" in found, said in found) == (bool(said), True)


def test_an_image_stays_where_it_is_when_its_guest_is_installed(tmp_path: Path) -> None:
    made = domain(cdrom=ISO)
    spec = {"fs": "ext4", "suite": "bookworm"}
    source = Source(tmp_path, "web1", made, spec, "4.17", {"disk.img": "", "swap.img": ""})
    plan = plan_install(source, Layout(tmp_path), before=None)
    assert ISO not in {planned.disk.target for planned in plan.disks}
    assert judge_storage(ISO, "1 1 0:1 / / rw - ext4 /dev/sda rw").is_shared is False


def test_keys_of_a_pc_are_imported(tmp_path: Path) -> None:
    text = (
        'name = "a"\ntype = "hvm"\nboot = "dca"\n'
        'disk = ["/dev/vg/a,raw,xvda", "/srv/a.iso,raw,hdc,cdrom", "/srv/b.iso,raw,hdd,cdrom"]\n'
    )
    imported = import_text(text, tmp_path / "a.cfg", guests=tmp_path, host=Host(), suite="bookworm")
    spec = imported.spec.spec
    assert (spec.boot_order, spec.cdrom) == ("dc", "/srv/a.iso")
    codes = {one.subject: one.code for one in imported.findings}
    assert (codes["boot"], codes["disk[1]"], codes["disk[2]"]) == (
        *("taken", "taken"),
        "cannot be said",
    )


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"boot_order": "n"}, "the network"),
        ({"boot_order": "dc", "cdrom": ISO}, "the CD"),
        ({"boot_order": "cd", "cdrom": ISO}, ""),
        ({}, ""),
    ],
)
def test_where_a_guest_starts_from_is_read_in_its_domain(
    tmp_path: Path, keys: dict[str, object], place: str
) -> None:
    artifact = Artifact(tmp_path, tmp_path / "a.cfg", tmp_path, domain(**keys))
    assert artifact.starts_from == place


@pytest.mark.parametrize(
    ("keys", "with_xl", "said"),
    [
        ({}, False, "web1 does not start from the network"),
        ({"boot_order": "n"}, True, "on a real dom0 its own network answers"),
    ],
)
def test_a_loader_that_nobody_would_load_is_refused(
    tmp_path: Path, keys: dict[str, object], with_xl: bool, said: str
) -> None:
    artifact = Artifact(tmp_path, tmp_path / "a.cfg", tmp_path, domain(**keys))
    recipe = Recipe(Project(tmp_path, tmp_path / "output", tmp_path / "guests"), ())
    asked = Asked(netboot=tmp_path / "pxelinux.0", with_xl=with_xl)
    with pytest.raises(UsageError, match=said):
        prove_artifact(recipe, artifact, make_spec(**PC, **keys), asked)


def test_a_loader_is_brought_with_all_that_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "net/pxelinux.cfg").mkdir(parents=True)
    (tmp_path / "net/pxelinux.cfg/default").write_text("default install\n")
    (tmp_path / "net/real.0").write_bytes(b"loader")
    (tmp_path / "net/pxelinux.0").symlink_to("real.0")
    bring_netboot(tmp_path / "net/pxelinux.0", tmp_path / "tftp")
    assert (tmp_path / "tftp/pxelinux.0").read_bytes() == b"loader"
    assert (tmp_path / "tftp/pxelinux.cfg/default").is_file()


def test_what_cannot_be_brought_is_refused(tmp_path: Path) -> None:
    net = tmp_path / "net"
    net.mkdir()
    with pytest.raises(UsageError, match=r"prove_netboot=.*/pxelinux\.0: no such file"):
        bring_netboot(net / "pxelinux.0", tmp_path / "tftp")
    (net / "pxelinux.0").touch()
    with (net / "large").open("wb") as stream:
        stream.truncate(MOST_NETBOOT + 1)
    with pytest.raises(UsageError, match="512 MiB are beside it"):
        bring_netboot(net / "pxelinux.0", tmp_path / "tftp")
    assert not (tmp_path / "tftp").exists()
    (net / "large").unlink()
    (net / "gone").symlink_to("nowhere")
    with pytest.raises(UsageError, match="prove_netboot="):
        bring_netboot(net / "pxelinux.0", tmp_path / "tftp")
