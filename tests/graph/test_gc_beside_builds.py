"""doit gc beside what builds, locks and publishes: it takes nothing that they need."""

import shutil
import threading
from pathlib import Path

import pytest

from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build]

TINY = 'suite = "bookworm"\nsize = "1G"\nswap = "64M"\n'


@pytest.fixture
def bench(workshop: Workshop, tmp_path: Path) -> Workshop:
    """An empty store, the session's packages, a guest of which nothing is there."""
    workshop.built("test-drbd")
    output, guests = tmp_path / "output", tmp_path / "guests"
    output.mkdir()
    shutil.copytree(workshop.output / "cache", output / "cache")
    guests.mkdir()
    (guests / "defaults.toml").write_text("")
    (guests / "tiny.toml").write_text(TINY)
    return Workshop(output, guests)


@in_turn("build", "collections beside a build")
def test_builds_beside_collections_are_right_every_time(bench: Workshop) -> None:
    """packages= makes every artifact one that no spec in guests/ would use."""
    ended = threading.Event()
    said: list[str] = []

    def collect() -> None:
        while not ended.is_set():
            outcome = bench.doit("gc", "keep=0", ends=0)
            said.append(outcome.said)

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for word in ("build", "lock", "check"):
            outcome = bench.doit(word, "name=tiny", "packages=less", ends=0)
            assert "Traceback" not in outcome.said and "damaged" not in outcome.said
    finally:
        ended.set()
        collector.join()
    assert any("nothing was removed" in text for text in said), said
    assert not list((bench.output / "scratch").iterdir())


def test_a_collection_takes_what_killed_fetches_and_older_versions_left(bench: Workshop) -> None:
    debs, apt = bench.output / "cache/debs", bench.output / "cache/apt"
    left = [debs / f".{'a' * 64}.4000000.1", bench.output / f"cache/indexes/.{'b' * 64}.xz.7.1"]
    for path in left:
        path.write_bytes(b"half")
    (apt / "domu.lock").mkdir(parents=True)  # as a guest's script could leave it
    (apt / "partial").symlink_to("/dev/zero")
    bench.doit("gc", "keep=100G", ends=0)
    assert not [path for path in (*left, apt) if path.exists()]
    assert list(debs.glob("[0-9a-f]*"))
