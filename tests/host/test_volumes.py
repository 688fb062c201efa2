"""Image files of every format, file systems of every kind, partitions, shared blocks, the plan."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.check.boot_disk import check_whole_disk
from pipeline.check.contents import check_file_system, check_read
from pipeline.check.facts import read_facts, require_artifact
from pipeline.errors import EnvironmentFault, PipelineError, VerificationError
from pipeline.namespace import isolated
from pipeline.plan import Plan, plan_build
from pipeline.process import run
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import load_all
from pipeline.storage.flatten import flatten_guest
from pipeline.storage.partition_table import read_partitions
from tests import small
from tests.conftest import require
from tests.vhd_check import check_vhd

pytestmark = [pytest.mark.integration]
MIB = 1 << 20


def read_mounted(image: Path, fs: str, *commands: list[object]) -> str:
    """Run commands with an image mounted at /mnt, in a namespace of their own."""
    mount: list[object] = ["mount", "-o", "loop,ro", "-t", fs, image, "/mnt"]
    return run(isolated(commands[-1], before=[mount, *commands[:-1]]))


@pytest.mark.parametrize(
    ("text", "name", "kind", "is_full"),
    [
        ("", "disk.img", "raw", False),
        ('image = "full"\n', "disk.img", "raw", True),
        ('format = "qcow2"\n', "disk.qcow2", "qcow2", False),
        ('format = "vhd"\n', "disk.vhd", "vpc", False),
        ('format = "vhd"\nimage = "full"\n', "disk.vhd", "vpc", True),
    ],
)
def test_an_image_has_its_format_its_size_and_the_guest(
    tmp_path: Path, text: str, name: str, kind: str, is_full: bool
) -> None:
    project = small.make_project(tmp_path, "web1", text=text)
    folder = small.build(project, "web1")
    facts = json.loads(run(["qemu-img", "info", "--output=json", "-f", kind, folder / name]))
    assert facts["virtual-size"] == 256 * MIB
    assert (facts["actual-size"] >= 256 * MIB) == is_full
    raw = tmp_path / "raw"
    run(["qemu-img", "convert", "-f", kind, "-O", "raw", folder / name, raw])
    assert small.version_of(raw) == "1"
    if kind == "vpc" and not is_full:
        assert check_vhd((folder / name).read_bytes(), now=int(time.time())) == raw.read_bytes()
    shown = {"vpc": "vhd"}.get(kind, kind)
    assert f"format={shown}, vdev=xvda1" in (folder / "web1.cfg").read_text()


@pytest.mark.parametrize("fs", ["ext4", "ext3", "ext2", "xfs", "btrfs"])
def test_each_file_system_holds_the_guest_and_has_its_size(tmp_path: Path, fs: str) -> None:
    require(os.geteuid() == 0 or fs.startswith("ext"), f"only root mounts {fs}")
    text = f'fs = "{fs}"\n'
    project = small.make_project(tmp_path, "web1", "web2", text=text, size="600M")
    uuids = set()
    for name in ("web1", "web2"):
        disk = small.build_really(project, name) / "disk.img"
        uuids.add(run(["blkid", "-o", "value", "-s", "UUID", disk]))
        if os.geteuid() == 0:
            seen = read_mounted(disk, fs, ["cat", "/mnt/etc/hostname", "/mnt/etc/version"],
                                ["stat", "-f", "-c", "%b %S", "/mnt"])  # fmt: skip
            *words, blocks, unit = seen.split()
            assert words == [name, "1"]
            assert int(blocks) * int(unit) > 450 * MIB
            fstab = read_mounted(disk, fs, ["cat", "/mnt/etc/fstab"])
            assert f"/dev/xvda1 / {fs} " in fstab
    assert len(uuids) == 2


def test_partitions_hold_what_lies_below_their_mount_points(tmp_path: Path) -> None:
    (tmp_path / "server").write_text(
        "[root]\nsize=300M\ntype=ext4\nmountpoint=/\n[swap]\nsize=4M\ntype=swap\n"
        "[var-tmp]\nsize=200M\ntype=ext3\nmountpoint=/var/tmp\noptions=nosuid\n"
        "[var]\nsize=210M\ntype=ext4\nmountpoint=/var\n"
    )
    text = f'suite = "bookworm"\npartitions = "{tmp_path}/server"\n'
    project = small.make_project(tmp_path, "web1")
    (project.guests / "web1.toml").write_text(text)
    folder = small.build_really(project, "web1")
    assert small.version_of(folder / "disk.img") == "1"
    names = {
        part: run(["debugfs", "-R", "ls -p /", folder / f"disk-{part}.img"])
        for part in ("var", "var-tmp")
    }
    assert "/lib/" in names["var"] and "/tmp/" in names["var"]
    root = run(["debugfs", "-R", "ls -p /var", folder / "disk.img"])
    assert "/lib/" not in root, "what lies on a partition is not below its mount point as well"
    kept = run(["debugfs", "-R", "cat /lib/kept", folder / "disk-var.img"])
    assert kept.splitlines()[-1] == "kept"
    mode = run(["debugfs", "-R", "stat <2>", folder / "disk-var-tmp.img"])
    assert "Mode:  01777" in mode
    cfg = (folder / "web1.cfg").read_text()
    assert [line.split("vdev=")[1].split(",")[0] for line in cfg.splitlines() if "vdev=" in line] \
        == ["xvda1", "xvda2", "xvda3", "xvda4"]  # fmt: skip


PARTITIONS = """
[[partitions]]
name = "root"
size = "400M"
mountpoint = "/"

[[partitions]]
name = "swap"
size = "4M"
fs = "swap"

[[partitions]]
name = "var-tmp"
size = "200M"
fs = "ext3"
mountpoint = "/var/tmp"

[[partitions]]
name = "var"
size = "400M"
fs = "{fs}"
mountpoint = "/var"
"""


def set_bit(disk: Path, at: int) -> None:
    with open(disk, "r+b") as stream:
        stream.seek(at)
        content = stream.read(1)
        stream.seek(at)
        stream.write(bytes([content[0] ^ 1]))


@pytest.mark.parametrize("kind", ['disk = "whole"\nboot = "grub"\n', "", 'format = "qcow2"\n'])
@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"])
@pytest.mark.parametrize("where", ["root", "var"])
def test_every_file_system_of_a_guest_is_checked_and_read(
    tmp_path: Path, kind: str, fs: str, where: str
) -> None:
    require(os.geteuid() == 0 or fs == "ext4", f"only root mounts {fs}")
    project = small.make_project(tmp_path, "web1")
    text = f'fs = "{fs}"\nsize = "400M"\n' if where == "root" else PARTITIONS.format(fs=fs)
    (project.guests / "web1.toml").write_text(f'suite = "bookworm"\n{kind}{text}')
    small.build_really(project, "web1")
    spec, recipe = load_all(project.guests)["web1"], small.make_recipe(project)
    disk = require_artifact(project, spec)
    work = tmp_path / "check"
    work.mkdir()
    facts = read_facts(recipe, spec, disk, work)
    found = [*check_file_system(facts), *check_whole_disk(facts), *check_read(facts)]
    assert [one for one in found if one.level == "error"] == []
    points = {one.subject for one in found if one.subject.startswith("/")}
    assert points == ({"/var", "/var/tmp"} if where == "var" else set())
    assert facts.tree.content("/var/lib/dpkg/status") == b"Package: kept\n"


def test_a_damaged_file_system_beside_the_root_is_found(tmp_path: Path) -> None:
    project = small.make_project(tmp_path, "web1")
    text = f'suite = "bookworm"\ndisk = "whole"\nboot = "grub"\n{PARTITIONS.format(fs="ext4")}'
    (project.guests / "web1.toml").write_text(text)
    disk = small.build_really(project, "web1") / "disk.img"
    spec, recipe = load_all(project.guests)["web1"], small.make_recipe(project)
    with open(disk, "rb") as stream:
        at = {part.label: part.start for part in read_partitions(stream)}
    set_bit(disk, at["var"] + 1024 + 0x68)  # of its UUID
    work = tmp_path / "check"
    work.mkdir()
    facts = read_facts(recipe, spec, disk, work)
    (wrong,) = [one for one in check_file_system(facts) if one.level == "error"]
    assert wrong.subject == "/var" and "UUID" in wrong.seen


def test_a_damaged_xfs_is_not_mounted(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "only root mounts xfs")
    project = small.make_project(tmp_path, "web1", text='fs = "xfs"\n', size="400M")
    disk = small.build_really(project, "web1") / "disk.img"
    set_bit(disk, 40)  # of its UUID, which its checksum counts
    spec, recipe = load_all(project.guests)["web1"], small.make_recipe(project)
    work = tmp_path / "check"
    work.mkdir()
    with pytest.raises(VerificationError, match="/: its xfs is damaged, and is not mounted"):
        read_facts(recipe, spec, disk, work)


@contextmanager
def file_system_with_shared_blocks(work: Path, fs: str) -> Iterator[Path]:
    image, point = work / "fs.img", work / "fs"
    point.mkdir()
    run(["truncate", "-s", "1G", image])
    run([f"mkfs.{fs}", "-q", image])
    run(["mount", "-o", "loop", image, point])
    try:
        yield point
    finally:
        run(["umount", point])


@pytest.mark.parametrize("fs", ["btrfs", "xfs"])
def test_a_guest_shares_blocks_with_its_golden_image_until_it_is_flattened(
    tmp_path: Path, fs: str
) -> None:
    require(os.geteuid() == 0, f"only root mounts {fs}")
    with file_system_with_shared_blocks(tmp_path, fs) as root:
        text = 'clone = "cow"\nformat = "raw"\n'
        project = small.make_project(root, "web1", text=text)
        disk = small.build(project, "web1") / "disk.img"
        assert small.version_of(disk) == "1"
        assert "shared" in run(["filefrag", "-v", disk])
        spec = load_all(project.guests)["web1"]
        assert flatten_guest(project, spec) == "blocks of its golden image"
        run(["sync", "-f", disk])
        assert "shared" not in run(["filefrag", "-v", disk])
        assert small.version_of(disk) == "1"


def test_shared_blocks_are_refused_where_there_are_none(tmp_path: Path) -> None:
    project = small.make_project(tmp_path, "web1", text='clone = "cow"\nformat = "raw"\n')
    kind = run(["stat", "-f", "-c", "%T", tmp_path]).strip()
    require(kind not in ("btrfs", "xfs"), f"{kind} has shared blocks")
    with pytest.raises(EnvironmentFault, match="cannot share blocks between files"):
        small.build(project, "web1")
    assert not project.volume("web1").exists()


def planned(project: Project, name: str) -> Plan:
    recipe = small.make_recipe(project)
    return plan_build(recipe, load_all(project.guests)[name], run)


def test_the_plan_tells_disks_room_and_time_and_touches_nothing(tmp_path: Path) -> None:
    project = small.make_project(tmp_path, "web1", "web2", size="512M")
    first = planned(project, "web1")
    assert first.seconds is None and all(stage.reason for stage in first.stages)
    assert not project.output.exists()
    small.build(project, "web1")
    before = sorted(tmp_path.rglob("*"))
    plan = planned(project, "web2")
    assert sorted(tmp_path.rglob("*")) == before
    assert [stage.name for stage in plan.stages if stage.reason] == ["volume", "config"]
    assert plan.seconds is not None
    root, swap = plan.disks
    assert (root.size, root.kind, swap.size) == (512 * MIB, "file", 2 * MIB)
    assert root.writes is not None and root.writes < 20 * MIB
    assert json.loads(json.dumps(plan.as_json()))["disks"][0]["path"].endswith("web2/disk.img")
    assert not planned(project, "web1").disks, "everything is current"


def test_the_plan_of_a_first_build_knows_what_its_stages_take(tmp_path: Path) -> None:
    project = small.make_project(tmp_path, "web1")
    spec = load_all(project.guests)["web1"]
    refusals = []
    for room_mib in (0, 1 << 40):
        stages = [
            replace(stage, room_mib=room_mib) if stage.name == "rootfs" else stage
            for stage in small.make_stages("1")
        ]
        refusals.append(plan_build(Recipe(project, stages), spec, run).refusals)
    assert refusals[0] == []
    assert refusals[1][0].exit_code == 3
    assert "MiB free, the build needs" in refusals[1][0].brief


def test_the_plan_refuses_what_cannot_fit(tmp_path: Path) -> None:
    project = small.make_project(tmp_path, "web1", text='image = "full"\n', size="15T")
    plan = planned(project, "web1")
    assert [error.exit_code for error in plan.refusals] == [3]
    assert "MiB free, the build needs" in plan.refusals[0].brief


def test_a_size_smaller_than_the_content_is_told_before_anything(tmp_path: Path) -> None:
    project = small.make_project(tmp_path, "web1")
    golden, small.GOLDEN_MIB = small.GOLDEN_MIB, 400
    try:
        with pytest.raises(PipelineError, match="files and journal need 400 MiB"):
            small.build(project, "web1")
    finally:
        small.GOLDEN_MIB = golden
    assert not project.volume("web1").exists()


def test_the_plan_says_what_would_stop_the_build_before_its_first_stage(tmp_path: Path) -> None:
    project = small.make_project(tmp_path, "web1", text='xen = "3.2"\n')
    plan = planned(project, "web1")
    stops = [finding.message for finding in plan.findings if finding.level == "error"]
    assert any("no bzImage" in message for message in stops)
    assert [error.exit_code for error in plan.refusals] == [3] * len(stops)
