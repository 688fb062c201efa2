"""What is too large, too many or damaged: one error before anything is made, or a guest."""

import json
import os
import stat
from pathlib import Path

import pytest

from pipeline.check import examine
from pipeline.errors import EnvironmentFault, PipelineError, VerificationError
from pipeline.plan import plan_build
from pipeline.process import run
from pipeline.project import Project
from pipeline.spec import load_all
from pipeline.storage.flatten import flatten_guest
from pipeline.storage.switch import finish_switch, site_of
from tests import small
from tests.conftest import require

pytestmark = [pytest.mark.integration]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ("16T", ""),
        ("16T", 'format = "qcow2"\n'),
        ("16T", 'fs = "ext3"\n'),
        ("16T", 'fs = "xfs"\n'),
        ("16T", 'image = "full"\n'),
    ],
)
def test_a_disk_that_no_file_can_be_is_refused_before_anything_is_made(
    tmp_path: Path, size: str, text: str
) -> None:
    require("ext" in run(["stat", "-f", "-c", "%T", tmp_path]), "the limit is that of ext4")
    project = small.make_project(tmp_path, "web1", text=text, size=size)
    recipe, spec = small.make_recipe(project), load_all(project.guests)["web1"]
    planned = plan_build(recipe, spec, run)
    assert {type(one) for one in planned.refusals} == {EnvironmentFault}
    (_limit,) = [one for one in planned.refusals if "16777216 MiB" in one.brief]
    with pytest.raises(EnvironmentFault, match="16777216 MiB") as caught:
        small.build(project, "web1")
    assert "16777215M" in caught.value.hint
    assert not project.volume("web1").exists()
    assert not (project.output / "identity").exists()


def test_a_guest_of_many_small_files_gets_as_many_inodes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_tree = small._make_tree

    def make_many(tree: Path, version: str) -> None:
        make_tree(tree, version)
        for folder in range(70):
            (tree / f"var/many/{folder}").mkdir(parents=True)
            for number in range(1000):
                (tree / f"var/many/{folder}/{number}").touch()

    monkeypatch.setattr(small, "_make_tree", make_many)
    project = small.make_project(tmp_path, "web1", size="1G")
    disk = small.build_really(project, "web1") / "disk.img"
    facts = run(["dumpe2fs", "-h", disk])
    used = [
        int(line.split()[-1]) for line in facts.splitlines() if "node" in line and "ree" in line
    ]
    assert used and used[0] > 10_000
    names = run(["debugfs", "-R", "ls -p /var/many/69", disk])
    assert names.count("/100644/") == 1000


def test_a_partition_behind_a_link_of_the_tree_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host = tmp_path / "host"
    (host / "tmp").mkdir(parents=True)
    (host / "tmp/precious").write_text("x\n")
    make_tree = small._make_tree

    def make_linked(tree: Path, version: str) -> None:
        make_tree(tree, version)
        (tree / "srv").symlink_to(host)

    monkeypatch.setattr(small, "_make_tree", make_linked)
    text = (
        '[[partitions]]\nname = "root"\nmountpoint = "/"\nsize = "300M"\n'
        '[[partitions]]\nname = "srv"\nmountpoint = "/srv/tmp"\nsize = "300M"\n'
    )
    (tmp_path / "guests").mkdir()
    (tmp_path / "guests/web1.toml").write_text('suite = "bookworm"\n' + text)
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    with pytest.raises(PipelineError, match="/srv, which is a link"):
        small.build_really(project, "web1")
    assert (host / "tmp/precious").read_text() == "x\n"


def test_check_sees_a_golden_image_that_changed_under_an_overlay(tmp_path: Path) -> None:
    require(os.access("/dev/fuse", os.W_OK), "copy-on-write disks are written by FUSE")
    project = small.make_project(tmp_path, "web1", text='clone = "cow"\nboot = "pygrub"\n')
    small.build(project, "web1")
    recipe, spec = small.make_recipe(project), load_all(project.guests)["web1"]

    def golden() -> list[str]:
        return [one.level for one in examine(recipe, spec) if one.subject == "golden image"]

    assert golden() == ["ok"]
    image = next((project.output / "store/image").glob("*/golden.img"))
    with open(image, "r+b") as stream:
        stream.seek(-5000, os.SEEK_END)
        stream.write(b"changed")
    assert golden() == ["error"]
    image.rename(tmp_path / "kept")
    with pytest.raises(VerificationError, match="the golden image of web1 is gone"):
        golden()
    (tmp_path / "kept").rename(image)
    flatten_guest(project, spec)
    image.unlink()
    assert golden() == []


_DAMAGES = (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"volumes": 1}', b'{"a": "b"}', b"[" * 9000)


@pytest.mark.parametrize("damage", _DAMAGES)
@pytest.mark.parametrize("name", ["written.json", "volumes.json"])
def test_a_damaged_record_of_the_disks_is_one_error_and_overwrites_nothing(
    tmp_path: Path, name: str, damage: bytes
) -> None:
    project = small.make_project(tmp_path, "web1")
    folder = small.build(project, "web1")
    before = (folder / "disk.img").stat().st_ino
    (project.volume("web1") / name).write_bytes(damage)
    try:
        small.build(project, "web1", version="2")
    except PipelineError as error:
        assert name in error.brief and "damaged" in error.brief
        assert error.hint
        assert (folder / "disk.img").stat().st_ino == before


@pytest.mark.parametrize("damage", _DAMAGES)
def test_a_damaged_journal_is_one_error(tmp_path: Path, damage: bytes) -> None:
    project = small.make_project(tmp_path, "web1")
    journal = site_of(project.output).journal_of("web1")
    journal.parent.mkdir(parents=True)
    journal.write_bytes(damage)
    with pytest.raises(PipelineError, match="is not a journal of doit's"):
        finish_switch(project, "web1")
    assert journal.read_bytes() == damage


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFDIR])
def test_a_pipe_or_a_folder_in_the_place_of_a_record_is_not_waited_for(
    tmp_path: Path, kind: int
) -> None:
    project = small.make_project(tmp_path, "web1")
    small.build(project, "web1")
    for name in ("written.json", "volumes.json"):
        path = project.volume("web1") / name
        path.unlink(missing_ok=True)
        os.mkfifo(path) if kind == stat.S_IFIFO else path.mkdir()
    small.build(project, "web1", version="2")
    assert json.loads((project.volume("web1") / "written.json").read_text())
