"""One thread is held at a publication, rename or removal while another ends the run.

Every checkpoint that a run passes (pipeline/interruption.py) is met with every way to end it: a
signal, a lost terminal, a closed pipe, a full disk, a sibling's failure. What is in its place
afterwards is whole, nothing is left over, the next run is right and gives the same bytes.
"""

import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from pipeline.namespace import is_root
from tests.conftest import require
from tests.patience import PATIENCE_S
from tests.torture.program import Ground, Run
from tests.torture.verdict import bytes_of, find_half, find_leftovers, find_processes, find_unfit
from tests.turns import spread, times_in_turn

pytestmark = pytest.mark.integration

GUEST = "one"
# each line: what is run before, and the run that is ended
RUNS = {
    "a cold build": ((), ("build", f"name={GUEST}")),
    "another volume": ((("build", f"name={GUEST}"),), ("build", f"name={GUEST}", "hostname=web2")),
    "publish": ((("build", f"name={GUEST}"),), ("publish", f"name={GUEST}", "unproven=yes")),
    "install": ((("build", f"name={GUEST}"),), ("install", f"name={GUEST}", "unproven=yes")),
    "lock": ((("build", f"name={GUEST}"),), ("lock", f"name={GUEST}")),
}
SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP}
ENDINGS = (*SIGNALS, "terminal", "pipe", "disk")
_VARIES = re.compile(r"\d{8}T\d{6}Z|[0-9a-f]{8,}|(?<=\.)\d+(?=\.|$)")
RELEASE_AFTER_S = 0.08
ALL = os.environ.get("DOMU_TORTURE") == "all"
DAYS = 2


@dataclass(frozen=True)
class Point:
    """A checkpoint by its name and the file's, without what differs from run to run."""

    name: str
    file: str

    @classmethod
    def of(cls, name: str, path: Path) -> Self:
        return cls(name, _VARIES.sub("#", path.name))

    def __str__(self) -> str:
        return f"{self.name} {self.file}"


class Bench:
    """A ground for each run, made once and copied for each case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ground = Ground.make(folder / "ground", GUEST)
        assert self.ground.run("build", f"name={GUEST}")[0] == 0
        self.first = bytes_of(self.ground)
        for part in ("store", "volumes", "guests", "logs"):
            shutil.rmtree(self.ground.output / part)
        self._copy(self.ground.root, self.folder / "kept-")

    def prepare(self, before: tuple[tuple[str, ...], ...]) -> None:
        """The state that a run starts from; identity is kept, so that bytes can be compared."""
        kept = self.folder / f"kept-{'-'.join(argv[0] for argv in before)}"
        if not kept.exists():
            self._copy(self.folder / "kept-", self.ground.root)
            for argv in before:
                code, said = self.ground.run(*argv)
                assert code == 0, said
            self._copy(self.ground.root, kept)
        self._copy(kept, self.ground.root)

    def _copy(self, source: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(
            ["cp", "-a", "--sparse=always", "--reflink=auto", source, target], check=True
        )

    def points_of(self, argv: tuple[str, ...]) -> list[Point]:
        """Every checkpoint of a run, in order."""
        notes = self.folder / "points"
        notes.unlink(missing_ok=True)

        def note(name: str, path: Path) -> None:
            with open(notes, "a") as stream:
                point = Point.of(name, path)
                stream.write(f"{point.name}\t{point.file}\n")

        code, said = self.ground.start(*argv, watcher=note).wait()
        assert code == 0, said
        lines = [line.split("\t") for line in notes.read_text().splitlines()]
        return list(dict.fromkeys(Point(name, file) for name, file in lines))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("races"))


class Hold:
    """A watcher that stops the thread at one point until it is let go."""

    def __init__(self, point: Point, folder: Path) -> None:
        self.point = point
        self.here, self.go = folder / "here", folder / "go"
        for path in (self.here, self.go):
            path.unlink(missing_ok=True)

    def __call__(self, name: str, path: Path) -> None:
        if Point.of(name, path) == self.point and not self.here.exists():
            self.here.touch()
            end = time.monotonic() + PATIENCE_S
            while not self.go.exists() and time.monotonic() < end:
                time.sleep(0.002)

    def wait(self, run: Run) -> None:
        end = time.monotonic() + PATIENCE_S
        while not self.here.exists():
            is_over = os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if is_over or time.monotonic() > end:
                raise AssertionError(f"{self.point} was not reached: {run.wait()}")
            time.sleep(0.002)


def fail_full(point: Point) -> Callable[[str, Path], None]:
    def fail(name: str, path: Path) -> None:
        if Point.of(name, path) == point:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    return fail


def end_run(bench: Bench, argv: tuple[str, ...], point: Point, ending: str) -> tuple[int, str]:
    """Hold a run at a point, end it, let it go; its exit code and words."""
    ground = bench.ground
    if ending == "disk":
        run = ground.start(*argv, watcher=fail_full(point))
        code, said = run.wait()
        assert not find_processes(run.pid)
        return code, said
    hold = Hold(point, bench.folder)
    with plugged(ending) as (plug, unplug):
        run = ground.start(*argv, watcher=hold, plug=plug)
        hold.wait(run)
        if ending in SIGNALS:
            run.signal(SIGNALS[ending])
        unplug()
        time.sleep(RELEASE_AFTER_S)
        hold.go.touch()
        code, said = run.wait()
    assert not find_processes(run.pid)
    return code, said


Unplug = Callable[[], None]


class Plugged:
    """Standard output as a pipe or a terminal whose other end goes away."""

    def __init__(self, ending: str) -> None:
        self.mine = self.theirs = -1
        if ending == "pipe":
            self.mine, self.theirs = os.pipe()
        elif ending == "terminal":
            self.mine, self.theirs = os.openpty()

    def __enter__(self) -> tuple[Callable[[], None] | None, Unplug]:
        return (self.plug if self.theirs >= 0 else None), self.unplug

    def plug(self) -> None:
        """In the child: its standard output, and the terminal that controls it."""
        os.close(self.mine)
        os.dup2(self.theirs, 1)
        if os.isatty(self.theirs):
            os.dup2(self.theirs, 2)
            fcntl.ioctl(self.theirs, termios.TIOCSCTTY, 0)
        os.close(self.theirs)

    def unplug(self) -> None:
        for descriptor in (self.mine, self.theirs):
            if descriptor >= 0:
                os.close(descriptor)
        self.mine = self.theirs = -1

    def __exit__(self, *_: object) -> None:
        self.unplug()


plugged = Plugged


def expect(ending: str, point: Point, code: int, said: str) -> None:
    """The exit code that docs/reference/exit-codes.md has, one line, no traceback."""
    assert "Traceback" not in said, said
    wanted: tuple[int, ...] = (130,)
    if ending == "pipe":
        wanted = (141, 0)  # when there was nothing more to say
    elif ending == "disk":
        wanted = (0, 3)  # a stamp or a lock's file is no reason to fail
        assert code == 0 or said.count("error: ") == 1, said
        assert code == 0 or "the disk is full" in said, said
    elif ending in SIGNALS:
        assert said.count("interrupted (") == 1, said
        assert "nothing was left behind" in said, said
        assert "is ready" not in said.partition("interrupted (")[2], said
    assert code in wanted, f"{code}: {said}"


def cases(points: list[Point]) -> Iterator[tuple[Point, str]]:
    """Each with each, or, in a usual run, a third of the points with one ending of each."""
    today = times_in_turn(DAYS)
    for number, point in enumerate(points):
        is_final = "publish" in point.name or "commit" in point.name
        if not ALL and not is_final and number % 3 != today % 3:
            continue
        endings = ENDINGS if ALL else [ENDINGS[(number + today // 3) % len(ENDINGS)]]
        for ending in endings:
            if ending == "disk" and point.name in ("remove", "removed"):
                continue  # a removal needs no room
            yield point, ending


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", spread(RUNS, DAYS))
def test_whatever_ends_a_run_wherever_it_stands(bench: Bench, what: str) -> None:
    before, argv = RUNS[what]
    bench.prepare(before)
    points = bench.points_of(argv)
    wanted = bytes_of(bench.ground)
    assert len(points) > 5
    done = 0
    for point, ending in cases(points):
        bench.prepare(before)
        code, said = end_run(bench, argv, point, ending)
        where = f"{what}, {point}, {ending}"
        try:
            expect(ending, point, code, said)
            assert not find_half(bench.ground)
            assert not find_unfit(bench.ground, GUEST)
            assert not find_leftovers(bench.ground)
            code, said = bench.ground.run(*argv)
            assert code == 0 or "is installed already" in said, said
            assert not find_leftovers(bench.ground)
            assert bytes_of(bench.ground) == wanted
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
        done += 1
    print(f"{what}: {len(points)} points, {done} endings")


def test_a_stage_that_forgets_a_file_publishes_nothing(bench: Bench) -> None:
    """The disk vanishes from scratch at the last moment, as an interruption once removed it."""
    before, argv = RUNS["a cold build"]
    bench.prepare(before)

    def take_away(name: str, path: Path) -> None:
        if name == "built" and path.name.startswith("config-"):
            (path / "disk.img").unlink()

    code, said = bench.ground.start(*argv, watcher=take_away).wait()
    assert code == 1, said
    assert "its result has no file disk.img" in said
    assert not (bench.ground.output / f"guests/{GUEST}").exists()
    assert bench.ground.run(*argv)[0] == 0


@pytest.mark.parametrize("name", ["disk.img", "vmlinuz", "initrd.img", "one.cfg", "manifest"])
def test_an_artifact_without_a_file_is_not_current(bench: Bench, name: str) -> None:
    before, argv = RUNS["publish"]
    folder = bench.ground.output / f"guests/{GUEST}"
    for kind in ("gone", "link", "fifo", "folder"):
        bench.prepare(before)
        path = folder / name
        os.rename(path, bench.folder / "away")
        if kind == "link":
            path.symlink_to(bench.folder / "away")
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        code, said = bench.ground.run("build", f"name={GUEST}")
        assert code == 0, f"{kind}: {said}"
        assert "config   one                  built" in said, f"{kind}: {said}"
        assert not find_half(bench.ground), kind


def test_a_failure_beside_it_leaves_a_sibling_whole(bench: Bench) -> None:
    before, argv = RUNS["a cold build"]
    bench.prepare(before)

    def fail(name: str, path: Path) -> None:
        if name == "built" and path.name.startswith("base-"):
            raise RuntimeError("a bug of a stage")

    code, said = bench.ground.start(*argv, watcher=fail).wait()
    assert code == 1
    assert "a bug of the pipeline" in said
    assert not find_half(bench.ground)
    assert not find_leftovers(bench.ground)
    assert bench.ground.run(*argv)[0] == 0


def test_nothing_was_left_behind_is_said_when_it_is_true(bench: Bench) -> None:
    """A file that cannot be removed from scratch is named instead."""
    require(is_root(), "sets an immutable file")
    before, argv = RUNS["a cold build"]
    bench.prepare(before)
    point = Point("built", "volume-one-#")
    hold = Hold(point, bench.folder)
    run = bench.ground.start(*argv, watcher=hold)
    hold.wait(run)
    (scratch,) = (bench.ground.output / "scratch").glob("volume-*")
    subprocess.run(["chattr", "+i", scratch / "known_hosts"], check=True)
    run.signal(signal.SIGTERM)
    time.sleep(RELEASE_AFTER_S)
    hold.go.touch()
    code, said = run.wait()
    assert code == 130, said
    assert "nothing was left behind" not in said
    assert "the next command clears up: " in said
    (left,) = (bench.ground.output / "scratch").glob("ended-*")
    subprocess.run(["chattr", "-i", left / "known_hosts"], check=True)
    assert bench.ground.run(*argv)[0] == 0
    assert not find_leftovers(bench.ground)
