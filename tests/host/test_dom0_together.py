"""Two commands at once on one guest: one after the other, with a word, and both are right."""

import os
import pickle
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.locks import locked
from pipeline.store.store import exchange
from tests.host.dom0_bench import NAME, LifeBench
from tests.host.small_artifact import ABIS, hostname_in
from tests.patience import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LifeBench]:
    made = LifeBench(tmp_path / "work")
    monkeypatch.setenv("DOMU_ROOT", str(made.root))
    yield made


class Beside:
    """A word in a process of its own, as another terminal's."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._read, write = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            status = 1
            try:
                os.write(write, pickle.dumps(action()))
                status = 0
            finally:
                os._exit(status)
        os.close(write)

    def result(self) -> tuple[int, str, str]:
        """Exit code, what it said, its error."""
        with open(self._read, "rb") as stream:
            content = stream.read()
        os.waitpid(self._child, 0)
        assert content, "it ended with a traceback"
        code, text, error = pickle.loads(content)
        return int(code), str(text), str(error)


def beside(bench: LifeBench, word: str, **options: str) -> Beside:
    def ask() -> tuple[int, str, str]:
        said = bench.ask(word, **options)
        return said.code, said.text, str(said.error)

    return Beside(ask)


def test_two_installs(bench: LifeBench) -> None:
    both = [beside(bench, "install", unproven="yes") for _ in range(2)]
    ends = sorted(one.result() for one in both)
    assert [end[0] for end in ends] == [0, 4], ends
    assert f"waiting: another command is at work on {NAME}" in ends[1][1]
    assert "installed already" in ends[1][2]
    assert hostname_in(bench.disk()) == f"{NAME} one"


@pytest.mark.parametrize("head_start_s", [0.0, 0.05, 0.15])
def test_a_rebuild_beside_a_removal(bench: LifeBench, head_start_s: float) -> None:
    bench.demand("install", unproven="yes")
    rebuild = beside(bench, "rebuild", of=str(bench.artifact), unproven="yes")
    time.sleep(head_start_s)
    removal = beside(bench, "remove", yes="yes")
    assert removal.result()[0] == 0
    code, _, error = rebuild.result()
    assert code in (0, 2), error
    left = [path for path in bench.root.rglob("*") if not path.is_dir()]
    assert left == [], "the guest came back"


def test_resizes_and_refreshes_and_an_undo(bench: LifeBench) -> None:
    bench.demand("install", unproven="yes")
    words = [
        beside(bench, "resize", size="48M"),
        beside(bench, "refresh", of=str(bench.work / ABIS[1])),
        beside(bench, "resize", size="64M"),
        beside(bench, "list-guests"),
    ]
    assert [one.result()[0] for one in words] == [0, 0, 0, 0]
    assert bench.disk().stat().st_size >> 20 in (48, 64)
    assert ABIS[1] in bench.config.read_text()


def waits_for_a_lock(pid: int) -> bool:
    lines = Path("/proc/locks").read_text().splitlines()
    return any(" -> " in line and str(pid) in line.split() for line in lines)


def test_publishing_beside_a_build(bench: LifeBench, tmp_path: Path) -> None:
    """The build has its locks and is half-way: another folder is about to be exchanged."""
    held = tmp_path / "held"

    def build() -> tuple[int, str, str]:
        store = bench.output / "store/.locks"
        with locked(store / f"volume-{NAME}"), locked(store / f"config-{NAME}"):
            aside = tmp_path / "aside"
            subprocess.run(["cp", "-a", bench.artifact, aside], check=True)
            with open(bench.artifact / "disk.img", "r+b") as stream:
                stream.write(b"half")
            held.touch()
            wait_for(lambda: waits_for_a_lock(os.getppid()), "publish waits")
            exchange(aside, bench.artifact)
        return 0, "", ""

    building = Beside(build)
    wait_for(held.exists, "the build")
    said = bench.demand("publish", unproven="yes")
    assert building.result()[0] == 0
    assert f"waiting: {NAME} is being built or published" in said
    assert hostname_in(bench.versions()[0] / "disk.img") == f"{NAME} one"


def test_five_publish_the_same(bench: LifeBench) -> None:
    ends = [one.result() for one in [beside(bench, "publish", unproven="yes") for _ in range(5)]]
    assert [end[0] for end in ends] == [0] * 5, ends
    assert len(bench.versions()) == 1
