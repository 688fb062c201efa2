"""Nights as a user starts them, over golden halves of a few files: verdicts, ends, kills, locks.

`check` is left out where it is not what is asked: an image of a few files is no guest.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import VerificationError
from pipeline.mirror.trouble import MirrorTrouble
from pipeline.night import guest_steps
from pipeline.night.timer import NAME, render_units
from pipeline.site import MARKER
from pipeline.stage import Stage
from pipeline.supply.keys import ROLES, make_key
from tests import small
from tests.conftest import require
from tests.patience import wait_for
from tests.torture.program import Ground
from tests.torture.verdict import find_half, find_leftovers

ONE, TWO = "one", "two"
FILE = 'guests = "all"\nunproven = true\nstable_after = 0\n'
ALL = os.environ.get("DOMU_TORTURE") == "all"
pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600 if ALL else 300)]
Watcher = Callable[[str, Path], None]


class Nights:
    """A site with two guests, and what its nights left."""

    def __init__(self, root: Path) -> None:
        self.ground = Ground.make(root, ONE, TWO)
        self.output = self.ground.output
        self.write(FILE)

    def write(self, text: str) -> None:
        """Another nightly.toml."""
        (self.ground.root / "nightly.toml").write_text(text)

    def night(
        self,
        *words: str,
        version: str = "1",
        watcher: Watcher | None = None,
        plug: Callable[[], None] | None = None,
    ) -> tuple[int, str]:
        """One night: exit code, what it said."""
        plug = plug or leave_out_check
        return self.ground.start(
            "nightly", *words, version=version, watcher=watcher, plug=plug
        ).wait()

    def good(self, *words: str, version: str = "1") -> str:
        """One that must end well."""
        code, said = self.night(*words, version=version)
        assert code == 0, said
        return said

    def report(self) -> dict[str, dict[str, Any]]:
        """Of the last night, by guest."""
        (*_earlier, last) = sorted(self.output.glob("reports/2*/report.json"))
        return {guest["guest"]: guest for guest in json.loads(last.read_text())["guests"]}

    def versions(self, guest: str) -> list[str]:
        """What is published, the oldest first."""
        return sorted(path.name for path in (self.output / "published" / guest).glob("2*"))

    def leads(self, guest: str, link: str = "current") -> str:
        """Where a channel leads."""
        return os.readlink(self.output / "published" / guest / link)


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path / "site")


def leave_out_check() -> None:
    vars(guest_steps)["check_guest"] = lambda _recipe, _spec: None


def let_check_fail() -> None:
    def check(_recipe: object, spec: Any) -> None:
        if spec.name == ONE:
            raise VerificationError(f"{ONE}: 40 checks, 1 failed", details="K7 kernel: other")

    vars(guest_steps)["check_guest"] = check


def let_check_take_long() -> None:
    vars(guest_steps)["check_guest"] = lambda _recipe, _spec: time.sleep(2)


def let_mirror_fail() -> None:
    """The mirror of both guests answers no more; each time that it is asked leaves a line."""
    make = small.make_stages

    def refuse(job: Any) -> None:
        with open(job.project.output / "asked", "a") as stream:
            stream.write("once\n")
        raise MirrorTrouble("http://mirror: connection refused", hint="see that it runs")

    def stages(version: str) -> list[Stage]:
        mirror, *others = make(version)
        return [replace(mirror, ages=True, build=refuse), *others]

    vars(small)["make_stages"] = stages
    leave_out_check()


def test_three_nights_of_two_guests(nights: Nights) -> None:
    nights.write(FILE.replace("0", "1") + "keep = 2\n[guest.two]\nkeep = 1\n")
    said = nights.good()
    assert "2 published" in said and "Traceback" not in said
    first = nights.versions(ONE)
    assert nights.leads(ONE) == first[0] == nights.report()[ONE]["version"]
    said = nights.good()
    assert "2 unchanged" in said
    assert nights.versions(ONE) == first
    assert not (nights.output / "published" / ONE / "stable").is_symlink(), "it is not proven"
    code, said = nights.ground.run("promote", f"name={ONE}", "unproven=yes")
    assert code == 0, said
    nights.good(version="2")
    told = nights.report()
    assert (told[ONE]["verdict"], told[ONE]["before"]) == ("published", first[0])
    assert nights.leads(ONE) == told[ONE]["version"] != first[0]
    assert nights.leads(ONE, "stable") == first[0]
    for number in range(40):
        (nights.output / f"reports/20200101T0000{number}Z").mkdir()
    nights.write(
        (nights.ground.root / "nightly.toml")
        .read_text()
        .replace("keep", "keep_reports = 31\nkeep", 1)
    )
    nights.good(version="3")
    assert len(list(nights.output.glob("reports/2*"))) == 31
    assert len(nights.versions(ONE)) == 3, "stable and the last two"
    assert len(nights.versions(TWO)) == 2, "the last one, and what it is compared with"
    assert not (nights.output / "published" / TWO / "stable").is_symlink()
    assert not find_half(nights.ground) and not find_leftovers(nights.ground)
    assert not (nights.output / "reports/.night.json").exists()


def test_one_guest_that_fails_stops_no_other_and_moves_nothing(nights: Nights) -> None:
    nights.good()
    before = nights.leads(ONE), nights.leads(TWO)
    page = nights.output / "night.xml"
    code, said = nights.night(f"junit={page}", version="2", plug=let_check_fail)
    assert code == 5, said
    assert page.read_text().count('<failure type="failed" message="40 checks, 1 failed"') == 1
    assert "1 published, 1 failed" in said and "K7 kernel: other" in said
    assert nights.leads(ONE) == before[0] and nights.leads(TWO) != before[1]
    told = nights.report()[ONE]
    assert (told["verdict"], told["failure"]["stage"]) == ("failed", "check")
    nights.good(version="2")
    assert nights.leads(ONE) != before[0]


def test_a_mirror_that_is_down_leaves_last_nights_images_and_one_line(nights: Nights) -> None:
    nights.good()
    before = nights.leads(ONE), nights.leads(TWO)
    code, said = nights.night(version="2", plug=let_mirror_fail)
    assert (code, "2 broken" in said) == (3, True), said
    error = said[said.index("error:") :]
    assert error.count("connection refused") == 1 and f"{ONE}, {TWO}: mirror: http://" in error
    assert (nights.output / "asked").read_text() == "once\n"
    assert (nights.leads(ONE), nights.leads(TWO)) == before
    assert (nights.versions(ONE), nights.versions(TWO)) == ([before[0]], [before[1]])
    (*_earlier, last) = sorted(nights.output.glob("reports/2*/report.json"))
    assert "connection refused" in str(json.loads(last.read_text())["mirrors"])


def test_a_site_with_keys_signs_its_versions(nights: Nights) -> None:
    nights.good()
    first = nights.output / "published" / ONE / nights.leads(ONE)
    assert not (first / "provenance.dsse.json").exists()
    site = nights.ground.root
    (site / MARKER).write_text("version = 1\n")
    for role in ROLES:
        make_key(site / "keys", role, b"open sesame")
    secret = site / "passphrase"
    secret.write_text("another\n")
    secret.chmod(0o600)
    nights.write(FILE + 'passphrase_file = "passphrase"\n')

    def stand_in_it() -> None:
        os.environ["DOMU_SITE"] = str(site)
        leave_out_check()

    code, said = nights.night(plug=stand_in_it)
    assert (code, "the passphrase is another one" in said) == (2, True), said
    assert "build" not in said, said  # it is asked for before anything is made
    secret.write_text("open sesame\n")
    code, said = nights.night(plug=stand_in_it)
    assert (code, "2 unchanged" in said) == (0, True), said
    assert (first / "provenance.dsse.json").is_file()
    assert nights.versions(ONE) == [first.name]


def test_a_spec_that_is_broken_or_gone_is_its_own_guests_fault(nights: Nights) -> None:
    (nights.ground.root / "guests/bad.toml").write_text('suite = "nosuch"\n')
    nights.write(f'guests = ["{ONE}", "bad", "gone"]\nunproven = true\n')
    code, said = nights.night()
    assert (code, "1 published, 2 failed" in said) == (1, True), said
    assert "guests/gone.toml is not there" in said and "nosuch" in said
    assert nights.versions(ONE) and not nights.versions(TWO)


def test_nothing_is_begun_after_the_limit(nights: Nights) -> None:
    code, said = nights.night("limit=1s", plug=let_check_take_long)
    assert (code, "1 published, 1 not begun" in said) == (1, True), said
    assert "the time limit was reached" in said
    assert not nights.versions(TWO)


def test_what_a_person_rolled_back_is_not_published_again(nights: Nights) -> None:
    nights.good()
    nights.good(version="2")
    first, second = nights.versions(ONE)
    code, said = nights.ground.run("publish", f"name={ONE}", "rollback=yes", version="2")
    assert code == 0, said
    said = nights.good(version="2")
    assert "was rolled back" in said
    assert (nights.leads(ONE), nights.versions(ONE)) == (first, [first, second])
    nights.good(version="3")
    assert nights.leads(ONE) not in (first, second)


def test_a_quiet_night_says_nothing_unless_it_must(nights: Nights) -> None:
    assert nights.good("quiet=yes") == ""
    code, said = nights.night("quiet=yes", version="2", plug=let_check_fail)
    assert code == 5
    assert said.startswith("error: night ") and f"{ONE}: check" in said


def test_a_night_answers_programs(nights: Nights) -> None:
    said = nights.good("json=yes", f"name={TWO}")
    told = json.loads(said[said.index("\n{") :])
    assert [guest["verdict"] for guest in told["guests"]] == ["published"]
    assert told["guests"][0]["guest"] == TWO and Path(told["report"]).is_dir()
    code, said = nights.night("name=web9")
    assert code == 2 and "web9" in said


def test_who_is_to_be_told_gets_the_reports_folder(nights: Nights) -> None:
    program = nights.ground.root / "tell"
    program.write_text('#!/bin/sh\necho "$@" >> "$(dirname "$0")/told"\nls "$2"\n')
    program.chmod(0o755)
    nights.write(FILE + 'notify = ["./tell", "me"]\n')
    nights.good()
    word, folder = (nights.ground.root / "told").read_text().split()
    assert (word, (Path(folder) / "report.json").is_file()) == ("me", True)
    for words, why in (('["false"]', "status 1"), ('["/nosuch"]', "no program")):
        nights.write(FILE + f"notify = {words}\n")
        code, said = nights.night()
        assert (code, why in said) == (3, True), said
        assert not (nights.output / "reports/.night.json").exists()


def test_two_nights_never_overlap_and_one_that_is_ended_is_told_of(nights: Nights) -> None:
    here = nights.ground.root / "here"

    def stay(name: str, path: Path) -> None:
        if name == "before publish" and path.parent.name == ONE:
            here.touch()
            time.sleep(240)

    run = nights.ground.start("nightly", watcher=stay, plug=leave_out_check)
    wait_for(here.exists, "the first publication")
    code, said = Ground(nights.ground.root).start("nightly").wait()
    assert code == 4, said
    assert f"process {run.pid}" in said and f"at {ONE}" in said
    run.signal(signal.SIGTERM)
    code, said = run.wait()
    assert code == 130, said
    said = nights.good()
    assert f"was ended at {ONE}; not begun: {TWO}" in said
    assert "2 published" in said
    assert not find_half(nights.ground) and not find_leftovers(nights.ground)


def points_of(nights: Nights) -> list[tuple[str, str]]:
    """Every checkpoint of a night that publishes two new versions, with the folder it is in."""
    notes = nights.ground.root / "points"

    def note(name: str, path: Path) -> None:
        with open(notes, "a") as stream:
            stream.write(f"{name}\t{path.parent.name}\n")

    code, said = nights.night(version="2", watcher=note)
    assert code == 0, said
    points = [tuple(line.split("\t")) for line in notes.read_text().splitlines()]
    return [(name, folder) for name, folder in dict.fromkeys(points)]


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", source, target], check=True)


def test_a_killed_night_is_finished_by_the_next(nights: Nights, tmp_path: Path) -> None:
    nights.good()
    kept = tmp_path / "kept"
    copy(nights.output, kept)
    points = points_of(nights)
    own = [(name, place) for name, place in points if place in (ONE, TWO, "reports")]
    few = [(name, ONE) for name in ("after publish", "before point", "after point")]
    chosen = own if ALL else [*few, ("before publish", TWO), ("after replace", "reports")]
    assert set(chosen) <= set(own)
    for name, place in chosen:
        print(name, place, flush=True)
        shutil.rmtree(nights.output)
        copy(kept, nights.output)
        first = nights.versions(ONE)

        def kill(point: str, path: Path, name: str = name, place: str = place) -> None:
            if (point, path.parent.name) == (name, place):
                os.kill(os.getpid(), signal.SIGKILL)

        code, said = nights.night(version="2", watcher=kill)
        assert code == -signal.SIGKILL, (name, place, said)
        said = nights.good(version="2")
        for guest in (ONE, TWO):
            told = nights.report()[guest]
            assert (told["verdict"], told["version"]) == ("published", nights.leads(guest))
            assert len(nights.versions(guest)) == 2, (name, place)
        assert nights.report()[ONE]["before"] == first[0], (name, place)
        assert not find_half(nights.ground), (name, place)
        assert not find_leftovers(nights.ground), (name, place)


def test_a_journal_that_is_none_is_an_error_that_says_so(nights: Nights) -> None:
    journal = nights.output / "reports/.night.json"
    journal.parent.mkdir(parents=True)
    for text in ("{", "[]", '{"name": 1}'):
        journal.write_text(text)
        code, said = nights.night()
        assert (code, ".night.json" in said, "Traceback" in said) == (1, True, False), said


def test_systemd_finds_nothing_wrong_with_the_units(nights: Nights, tmp_path: Path) -> None:
    require(shutil.which("systemd-analyze") is not None, "needs systemd-analyze")
    folder = tmp_path / "units"
    said = nights.good(f"units={folder}", "at=04:15")
    assert f"enable --now {NAME}.timer" in said
    units = sorted((folder / "etc/systemd/system").iterdir())
    assert [path.name for path in units] == [f"{NAME}.service", f"{NAME}.timer"]
    assert "OnCalendar=*-*-* 04:15:00" in units[1].read_text()
    assert f"DOMU_OUTPUT={nights.output}" in units[0].read_text()
    assert nights.night(f"units={folder}", "at=05:00")[0] == 2, "it says something else"
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    own = [line for line in done.stderr.splitlines() if NAME in line]
    assert (done.returncode, own) == (0, []), done.stderr


def test_odd_letters_in_paths_are_written_as_systemd_reads_them() -> None:
    units = render_units(
        program=Path("/srv/a b%c/doit"),
        home=Path("/srv/a b%c"),
        user="builder",
        at="03:30",
        environment={"DOMU_SITE": "/srv/a b%c"},
    )
    service = next(text for path, text in units.items() if path.suffix == ".service")
    assert 'ExecStart="/srv/a b%%c/doit" nightly quiet=yes' in service
    assert 'Environment="DOMU_SITE=/srv/a b%%c"' in service
