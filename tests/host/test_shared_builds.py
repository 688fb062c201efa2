"""Builds that share a store: one build a fingerprint, the same bytes, whoever is killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.remote.place import open_place
from pipeline.shared.collection import take_inventory
from tests.conftest import ROOT
from tests.host.store_servers import sftp_server
from tests.shared_bench import make_fleet, same_bytes
from tests.wire import LOCALHOST

pytestmark = pytest.mark.integration
GOLDEN = ("mirror", "base", "kernel", "rootfs", "image")
KILLS = int(os.environ.get("DOMU_STORE_KILLS", "2"))


@dataclass
class Fleet:
    """Machines, each with an output folder of its own, and what they built."""

    root: Path
    url: str
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.certificates = make_fleet(self.root / "fleet", "build1", "build2")

    def argv(self, name: str) -> list[str]:
        words = [str(self.root / name), self.url, str(self.certificates), "build1"]
        return [sys.executable, "-m", "tests.shared_build", *words]

    def start(self, name: str, *before: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*before, *self.argv(name)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, name: str, *before: str) -> tuple[int, str]:
        process = self.start(name, *before)
        said, _ = process.communicate(timeout=300)
        return process.returncode, said

    def built(self) -> Counter[str]:
        """How often each stage was."""
        log = self.root / "built"
        lines = log.read_text().splitlines() if log.exists() else []
        return Counter(line.split()[0] for line in lines)

    def store(self, name: str) -> Path:
        return self.root / name / "output/store"

    def require_same(self, one: str, other: str, *, but: str = "") -> None:
        for stage in GOLDEN:
            (folder,) = self.store(one).glob(f"{stage}/*")
            assert same_bytes(folder, self.store(other) / stage / folder.name, but=but), stage

    def require_whole(self, entries: int) -> None:
        """Each entry once; who begins with nothing pulls them all."""
        inventory = take_inventory(open_place(self.url), grace_s=3600)
        assert len(inventory.entries) == entries
        shutil.rmtree(self.root / "reader", ignore_errors=True)
        before = self.built()
        status, said = self.run("reader")
        assert status == 0 and "warning" not in said, said
        assert [name for name in GOLDEN if self.built()[name] > before[name]] == []
        assert said.count("from the shared store") == entries


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path, f"file://{tmp_path}/shared")


def test_machines_that_begin_at_once_build_everything_once(fleet: Fleet) -> None:
    names = ("one", "two", "three")
    processes = [fleet.start(name) for name in names]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    counts = fleet.built()
    assert {name: counts[name] for name in GOLDEN} == dict.fromkeys(GOLDEN, 1)
    assert counts["volume"] == counts["config"] == 3, "a guest's own half is each machine's"
    fleet.require_same("one", "two")
    fleet.require_same("one", "three")
    fleet.require_whole(len(GOLDEN))
    place = open_place(fleet.url)
    assert place.list("leases") == []
    scratch = [path for name in names for path in (fleet.root / name / "output/scratch").iterdir()]
    assert scratch == []


def test_whoever_is_killed_at_any_moment_leaves_a_store_that_is_right(fleet: Fleet) -> None:
    """Pushing and pulling; every other kill is of a machine that has nothing yet."""
    begun = time.monotonic()
    assert fleet.run("calm")[0] == 0
    lasted = time.monotonic() - begun
    dice = random.Random(int(os.environ.get("DOMU_TEST_SEED", time.time_ns())))
    for number in range(KILLS):
        if number % 3 == 0:
            shutil.rmtree(fleet.root / "shared")
        if number % 2 == 0:
            shutil.rmtree(fleet.root / "killed", ignore_errors=True)
        process = fleet.start("killed")
        time.sleep(dice.uniform(0.2, 1.0) * lasted)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        status, said = fleet.run("killed")
        assert status == 0 and "warning" not in said, said
        fleet.require_same("calm", "killed", but="buildinfo.json")
        assert [*(fleet.root / "killed/output/scratch").iterdir()] == []
    fleet.require_whole(len(GOLDEN))


def test_a_full_disk_of_who_pulls_is_told_and_the_store_stays_as_it_is(fleet: Fleet) -> None:
    assert fleet.run("one")[0] == 0
    small = fleet.root / "small/output"
    small.mkdir(parents=True)
    mount = f'mount -t tmpfs -o size=700k none {small} && exec "$@"'
    own = [] if os.geteuid() == 0 else ["--map-root-user"]
    before = ["unshare", "--mount", *own, "sh", "-c", mount, "sh"]
    status, said = fleet.run("small", *before)
    assert status == 3 and "are free" in said, said
    fleet.require_whole(len(GOLDEN))
    assert fleet.run("small")[0] == 0, "with room it goes on"
    fleet.require_same("one", "small")


def test_a_line_that_is_cut_while_it_pushes_leaves_a_build_that_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sftp_server(tmp_path, monkeypatch) as server:
        fleet = Fleet(tmp_path, f"sftp://{LOCALHOST}:{server.port}{tmp_path}/shared")
        process = fleet.start("one")
        while not (tmp_path / "built").exists():
            time.sleep(0.05)
            assert process.poll() is None
        server.kill()
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        assert said.count("warning: ") <= 2 and "any more in this run" in said
        server.start()
        assert fleet.run("two")[0] == 0
        fleet.require_same("one", "two", but="buildinfo.json")
        fleet.require_whole(len(GOLDEN))
