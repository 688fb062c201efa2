"""`doit check` of guests whose root is an enemy: a line or more each, and nothing else happens."""

import hashlib
import os
import random
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.check import examine
from pipeline.check.image import ImageReader
from pipeline.console.findings import render_table
from pipeline.errors import PipelineError, VerificationError
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.report.disk_contents import read_inventory
from pipeline.report.file_changes import compare_disks
from pipeline.spec import Spec, load_guest
from pipeline.stages import STAGES
from pipeline.storage.ext import ExtImage
from tests.conftest import require
from tests.host.hostile_images import Case, make_base, make_image
from tests.host.hostile_table import CASES

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

NAME = "evil"
SPEC = 'suite = "bookworm"\nsize = "256M"\nboot = "pygrub"\n'
PATIENCE_S = 60
FLIPS = 500


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require(os.geteuid() == 0, "devices in a guest's tree are made by root")
    root = tmp_path_factory.mktemp("base")
    make_base(root)
    return root


@pytest.fixture
def artifact(tmp_path: Path) -> Iterator[tuple[Project, Spec]]:
    guests = tmp_path / "guests"
    guests.mkdir()
    (guests / f"{NAME}.toml").write_text(SPEC)
    project = Project(tmp_path, tmp_path / "output", guests)
    folder = project.artifact(NAME)
    folder.mkdir(parents=True)
    (folder / f"{NAME}.cfg").write_text('name = "evil"\n')
    (tmp_path / "work").mkdir()
    host = tmp_path / "host"
    host.mkdir()
    (host / "secret").write_text("root:a-secret-of-the-host:\n")
    yield project, load_guest(NAME, guests_dir=guests)
    if (folder / "disk.img").is_file():
        (folder / "disk.img").unlink()


def look(root: Path) -> dict[str, str]:
    """Everything below a folder, as far as anybody could have changed it."""
    found = {}
    for path in sorted(root.rglob("*")):
        state = path.lstat()
        what = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(state.st_mode) else ""
        found[str(path)] = f"{state.st_mode:o} {state.st_uid} {state.st_mtime_ns} {what}"
    scratch = (f"{root}/output", f"{root}/output/scratch")
    return {path: what for path, what in found.items() if path not in scratch}


def say(project: Project, spec: Spec) -> list[str]:
    """What a person would be shown."""
    try:
        findings = examine(Recipe(project, STAGES), spec, with_sums=False)
    except PipelineError as error:
        return [f"error: {error.brief}"]
    return render_table(findings)


def take_stock_of(disk: Path) -> None:
    """As a night's report does: whatever is in it, it is read to its end or refused."""
    with suppress(PipelineError), ExtImage(disk) as image:
        contents = read_inventory(image)
        contents.size_by_owner()
        compare_disks(image, contents, image, contents)


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_guest_is_told_and_reaches_nothing(
    name: str, base: Path, artifact: tuple[Project, Spec], tmp_path: Path
) -> None:
    project, spec = artifact
    make_image(CASES[name], base, tmp_path / "work", project.artifact(NAME) / "disk.img")
    before, around = look(tmp_path), set(os.listdir())
    begun = time.monotonic()
    lines = say(project, spec)
    take_stock_of(project.artifact(NAME) / "disk.img")
    assert time.monotonic() - begun < PATIENCE_S
    assert look(tmp_path) == before
    assert set(os.listdir()) == around
    assert list((project.output / "scratch").iterdir()) == []
    assert lines
    assert not [line for line in lines if "\n" in line or len(line) > 400]
    assert not [line for line in lines if "a-secret-of-the-host" in line]
    assert re.search(CASES[name].says, "\n".join(lines)), lines


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link to a pipe", "link to itself"])
@pytest.mark.parametrize("name", ["disk.img", "swap.img", "evil.cfg", "spec.json", "vmlinuz"])
def test_what_is_no_file_in_an_artifact_is_refused_without_opening_it(
    kind: str, name: str, base: Path, artifact: tuple[Project, Spec], tmp_path: Path
) -> None:
    project, spec = artifact
    path = project.artifact(NAME) / name
    make_image(CASES["name: quote in etc"], base, tmp_path / "work", path.with_name("disk.img"))
    path.unlink(missing_ok=True)
    os.mkfifo(tmp_path / "pipe")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    else:
        path.symlink_to(tmp_path / "pipe" if "pipe" in kind else path)
    begun = time.monotonic()
    lines = say(project, spec)
    assert time.monotonic() - begun < PATIENCE_S
    assert re.search("FAIL|error: ", "\n".join(lines))


@pytest.mark.parametrize("features", ["extents", "^extents,^64bit"])
def test_flipped_bytes_are_told_or_without_effect(
    base: Path, tmp_path: Path, features: str
) -> None:
    (tmp_path / "work").mkdir()
    path = tmp_path / "disk.img"
    make_image(Case(features=features), base, tmp_path / "work", path)
    image = path.read_bytes()
    # where anything is: tables, folders, texts; not the empty rest
    places = [at for at in range(1024, len(image)) if image[at]]
    with open(path, "r+b", buffering=0) as stream:
        for seed in range(FLIPS):
            chance = random.Random(seed)
            flipped = {chance.choice(places): chance.randrange(256) for _ in range(1 + seed % 9)}
            for at, byte in flipped.items():
                os.pwrite(stream.fileno(), bytes([byte]), at)
            try:
                with ExtImage(path) as reading:
                    ImageReader(reading).read_tree(["/usr/share/zoneinfo"])
            except VerificationError as error:
                assert "\n" not in error.brief
            for at in flipped:
                os.pwrite(stream.fileno(), image[at : at + 1], at)
    assert path.read_bytes() == image
