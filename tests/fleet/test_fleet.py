"""A fleet of real processes over real TLS, with small stages."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from pipeline.walls.certificates import make_authority, make_party
from tests.conftest import require
from tests.fleet.machines import Machines, machines
from tests.fleet.programs import PROGRAM
from tests.patience import wait_for
from tests.turns import TODAY, in_turn
from tests.workshop import ROOT, run_program

pytestmark = pytest.mark.integration

GUESTS = ("web1", "web2", "db1", "db2")
# of two golden images
TASKS = sorted(["base", "kernel", "rootfs", "rootfs", "image", "image"])
KILLS = int(os.environ.get("DOMU_FLEET_KILLS", "3"))


def build_alone(fleet: Machines, *guests: str) -> dict[str, dict[str, str]]:
    """The same guests by one machine without a fleet; its artifacts."""
    if guests:
        fleet.write_guests(*guests, machine="alone")
    words = [sys.executable, "-m", PROGRAM, "alone", str(fleet.root / "alone")]
    subprocess.run(words, check=True, capture_output=True)
    return fleet.artifacts("alone")


def tasks_of(fleet: Machines, event: str) -> list[str]:
    """The stages of which that was told."""
    return sorted(
        str(told["task"]).partition(":")[0] for told in fleet.events() if told["event"] == event
    )


def processes_below(folder: Path) -> list[str]:
    """Command lines of living processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words:
            found.append(words)
    return found


def has_nothing_below(folder: Path) -> bool:
    return not processes_below(folder)


def test_two_workers_build_each_fingerprint_once_and_the_same_bytes(tmp_path: Path) -> None:
    with machines(tmp_path) as fleet:
        fleet.write_guests(*GUESTS)
        fleet.start_scheduler()
        for name in ("build1", "build2"):
            fleet.start_worker(name, slots=1)
        fleet.start_build()
        said = fleet.end_build()
        ended = [event for event in fleet.events() if event["event"] == "fleet ended"]
        assert tasks_of(fleet, "fleet ended") == TASKS
        assert all(event["built"] for event in ended), "one build a fingerprint"
        assert {event["worker"] for event in ended} == {"build1", "build2"}, said
        assert fleet.artifacts() == build_alone(fleet, *GUESTS)


def test_uefi_is_built_once_by_a_worker_for_guests_of_any_suite(tmp_path: Path) -> None:
    with machines(tmp_path) as fleet:
        fleet.write_guests("web1", "web2", "db1")
        for path in (tmp_path / "desk/guests").glob("*.toml"):
            pc = 'type = "hvm"\nboot = "firmware"\nfirmware = "uefi"\n'
            text = path.read_text() + pc
            path.write_text(text.replace("bookworm", "trixie") if path.stem == "db1" else text)
        shutil.copytree(tmp_path / "desk/guests", tmp_path / "alone/guests")
        fleet.start_scheduler()
        fleet.start_worker("build1")
        fleet.start_build()
        said = fleet.end_build()
        assert tasks_of(fleet, "fleet ended").count("firmware") == 1, said
        assert said.count("from the shared store") == len(tasks_of(fleet, "fleet ended"))
        assert fleet.artifacts() == build_alone(fleet)


@in_turn("fleet", "killed workers")
def test_workers_killed_at_random_times_leave_nothing_and_every_build_is_right(
    tmp_path: Path,
) -> None:
    chance = random.Random(TODAY)
    with machines(tmp_path) as fleet:
        fleet.start_scheduler()
        for name in ("build1", "build2"):
            fleet.start_worker(name, slots=1, slow_s=0.3)
        for number in range(KILLS):
            guests = [f"web{number}", f"db{number}"]
            fleet.write_guests(*guests, first=2 * number, locale=f"C.UTF-{number + 10}")
            fleet.start_build()
            fleet.wait_for("desk", "begun by")
            victim, wait_s = chance.choice(["build1", "build2"]), chance.uniform(0, 5)
            time.sleep(wait_s)
            fleet.kill(victim)
            told = f"kill {number + 1}: {victim} after {wait_s:.2f} s"
            wait_for(partial(has_nothing_below, tmp_path / victim), told)
            assert str(tmp_path / victim) not in Path("/proc/self/mountinfo").read_text(), told
            said = fleet.end_build()
            assert not tasks_of(fleet, "fleet failed"), f"{told}\n{said}"
            assert set(tasks_of(fleet, "fleet ended")) == set(TASKS), f"{told}\n{said}"
            fleet.start_worker(victim, slots=1, slow_s=0.3)
            assert not list((tmp_path / victim / "output/scratch").glob("*")), told
            print(told, flush=True)
        names = [f"{kind}{number}" for number in range(KILLS) for kind in ("web", "db")]
        for number in range(KILLS):
            each = names[2 * number : 2 * number + 2]
            fleet.write_guests(
                *each, machine="alone", first=2 * number, locale=f"C.UTF-{number + 10}"
            )
        assert fleet.artifacts() == build_alone(fleet)


def test_certificates_that_are_not_the_fleets_are_refused_at_both_ends(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    with machines(tmp_path) as fleet:
        fleet.write_guests("web1")
        fleet.start_scheduler()
        stranger, expired = tmp_path / "stranger", tmp_path / "expired"
        make_authority(stranger, now)
        shutil.copytree(fleet.certificates, expired)
        for name in ("build1", "desk"):
            make_party(stranger, name, [], now)
            make_party(expired, name, [], now - timedelta(days=2), renew=True, days=1)
        fleet.start_build(certificates=stranger)
        assert "does not vouch for" in fleet.end_build(ends=3)
        fleet.start_build(certificates=expired)
        assert "has expired" in fleet.end_build(ends=5)
        # they trust it, it does not trust them
        shutil.copy(fleet.certificates / "ca.pem", stranger / "ca.pem")
        fleet.start_build(certificates=stranger)
        assert "not by this fleet's authority" in fleet.end_build(ends=5)
        fleet.start_worker("build1", certificates=stranger, waits="not by this fleet's")
        assert fleet.running.pop("build1").wait(timeout=240) == 5


@in_turn("fleet", "a killed scheduler")
def test_a_scheduler_that_is_killed_and_started_again(tmp_path: Path) -> None:
    with machines(tmp_path) as fleet:
        fleet.write_guests(*GUESTS)
        fleet.start_scheduler()
        for name in ("build1", "build2"):
            fleet.start_worker(name, slots=1, slow_s=0.5)
        fleet.start_build()
        fleet.wait_for("desk", "base ")
        fleet.kill("scheduler")
        fleet.wait_for("desk", "is lost")
        fleet.start_scheduler()
        said = fleet.end_build()
        assert "stays lost" not in said
        assert tasks_of(fleet, "fleet ended") == TASKS
        assert fleet.artifacts() == build_alone(fleet, *GUESTS)


def test_without_its_scheduler_the_build_goes_on_here(tmp_path: Path) -> None:
    with machines(tmp_path) as fleet:
        fleet.write_guests("web1")
        fleet.start_scheduler()
        fleet.start_worker("build1", slow_s=0.5)
        fleet.start_build()
        fleet.wait_for("desk", "begun by")
        fleet.kill("scheduler")
        assert "stays lost: what is not built yet is built here" in fleet.end_build()
        assert fleet.artifacts() == build_alone(fleet, "web1")


@in_turn("fleet", "another version")
def test_a_worker_of_another_version_is_named_and_gets_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("pipeline", "elements", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    with open(copy / "pipeline/stages/base.py", "a") as file:
        file.write("\n# another version\n")
    with machines(tmp_path) as fleet:
        fleet.write_guests("web1")
        fleet.start_scheduler()
        fleet.start_worker("build1", root=copy)
        fleet.start_build()
        said = fleet.end_build(ends=3)
        assert "build1 gets no work of ours: program" in said
        fleet.start_worker("build2")
        fleet.start_build()
        said = fleet.end_build()
        assert "build1 gets no work of ours: program" in said
        workers = {told["worker"] for told in fleet.events() if told["event"] == "fleet ended"}
        assert workers == {"build2"}


def test_an_interruption_takes_the_orders_back(tmp_path: Path) -> None:
    with machines(tmp_path) as fleet:
        fleet.write_guests(*GUESTS)
        fleet.start_scheduler()
        fleet.start_worker("build1", slow_s=120)
        fleet.start_build()
        fleet.wait_for("desk", "begun by")
        wait_for(lambda: processes_below(tmp_path / "build1" / "output"), "the worker's build")
        child = fleet.running["desk"]
        child.send_signal(signal.SIGINT)
        fleet.end_build(ends=130)
        builder = Path(f"{PROGRAM} {tmp_path / 'build1'}")
        wait_for(partial(has_nothing_below, builder), "its end: nobody waits for what it makes")


def test_systemd_finds_nothing_wrong_with_the_services(tmp_path: Path) -> None:
    require(shutil.which("systemd-analyze") is not None, "needs systemd-analyze")
    folder = tmp_path / "units"
    words = ["fleet", "units", f"units={folder}", "scheduler=tls://build1:8786"]
    env = {**os.environ, "DOMU_OUTPUT": str(tmp_path / "output 100%")}
    done = run_program([sys.executable, "-m", "pipeline", *words], env)
    assert done.returncode == 0, done.stdout
    units = sorted((folder / "etc/systemd/system").iterdir())
    assert [unit.name for unit in units] == ["domu-scheduler.service", "domu-worker.service"]
    assert "output 100%%" in units[1].read_text()
    done = run_program(["systemd-analyze", "verify", *units])
    assert done.returncode == 0, done.stdout
    assert not [line for line in done.stdout.splitlines() if "domu-" in line]
