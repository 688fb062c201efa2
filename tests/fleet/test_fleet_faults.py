"""A fleet of which a part is in trouble: a full disk on a worker, two who ask at once."""

import errno
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import Broken
from tests.fleet.machines import Machines, machines
from tests.fleet.test_fleet import GUESTS, TASKS, build_alone, tasks_of
from tests.turns import in_turn

pytestmark = pytest.mark.integration


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own with a few MB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> None:
    """Leave no byte."""
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


def builders_of(fleet: Machines, name: str = "desk") -> set[object]:
    return {told["worker"] for told in fleet.events(name) if told["event"] == "fleet ended"}


@in_turn("fleet", "a full disk on a worker")
def test_a_full_disk_on_one_worker_costs_the_build_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "build1") as disk, machines(tmp_path) as fleet:
        fleet.write_guests(*GUESTS)
        fleet.start_scheduler()
        for name in ("build1", "build2"):
            fleet.start_worker(name, slots=1)
        fill(disk)
        fleet.start_build()
        said = fleet.end_build()
        assert builders_of(fleet) == {"build2"}
        assert tasks_of(fleet, "fleet ended") == TASKS
        assert not tasks_of(fleet, "fleet failed"), said
        assert fleet.artifacts() == build_alone(fleet, *GUESTS)
        assert fleet.running["build1"].poll() is None
        (disk / "filler").unlink()
        assert not list((disk / "output/scratch").glob("*"))


def test_a_worker_that_cannot_prove_says_why_and_nothing_of_the_guest_stays(
    tmp_path: Path,
) -> None:
    with machines(tmp_path) as fleet:
        fleet.write_guests("web1")
        with open(tmp_path / "desk/guests/web1.toml", "a") as spec:
            spec.write('xen = "4.19"\n')  # no Debian has it: it is known after the artifact came
        fleet.start_scheduler()
        fleet.start_worker("build1")
        fleet.start_build(word="prove")
        said = fleet.end_build(ends=Broken.exit_code)
        reason = "there is no test host with Xen 4.19"
        assert "begun by build1" in said
        assert re.search(f"web1 +is proven here: build1: .*{reason}", said), said
        assert f"error: {reason}" in said
        assert [path for path in fleet.store.rglob("*") if "sealed" in str(path.parent)] == []
        assert fleet.running["build1"].poll() is None
        assert not list((tmp_path / "build1/output/scratch").glob("*"))
        assert not (tmp_path / "build1/output/guests").exists()


@in_turn("fleet", "two who ask at once")
def test_two_who_ask_for_the_same_at_once_have_it_built_once(tmp_path: Path) -> None:
    with machines(tmp_path) as fleet:
        for desk in ("desk", "desk2"):
            fleet.write_guests(*GUESTS, machine=desk)
        fleet.start_scheduler()
        for name in ("build1", "build2"):
            fleet.start_worker(name, slots=1)
        fleet.start_build("desk")
        fleet.start_build("desk2")
        for desk in ("desk", "desk2"):
            fleet.end_build(desk)
        begun = sum(fleet.said(desk).count("begun by") for desk in ("desk", "desk2"))
        assert begun >= len(TASKS)
        statements = list(fleet.store.glob("*/*/statement.json"))
        # the mirror's state comes from who asks
        stages = sorted(path.parts[-3] for path in statements if path.parts[-3] != "mirror")
        assert stages == TASKS, "one entry a fingerprint"
        parts: dict[Path, set[str]] = {path.parent: set() for path in statements}
        for path in fleet.store.glob("*/*/*.zst"):
            parts[path.parent].add(path.name.partition("-")[0])
        assert all(len(uploads) == 1 for uploads in parts.values()), "one upload each"
        assert fleet.artifacts("desk") == fleet.artifacts("desk2") == build_alone(fleet, *GUESTS)
