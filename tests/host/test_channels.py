"""Channels of published versions: they move by night, by hand and back; what they name stays."""

import time
from pathlib import Path

import pytest

from pipeline.artifact import published
from pipeline.artifact.channels import NIGHTLY, STABLE, Notes, read_notes
from pipeline.artifact.folder import read_source
from pipeline.artifact.published import Version, channels, note_night, prune
from pipeline.project import Project
from pipeline.store.store import BUILDINFO, BuildInfo
from tests.conftest import ROOT
from tests.host.dom0_bench import NAME, LifeBench
from tests.host.small_artifact import ABIS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


class Shelf:
    """A guest's published versions, each of other bytes, as nights would leave them."""

    def __init__(self, bench: LifeBench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench, self._monkeypatch = bench, monkeypatch
        self.project = Project(ROOT, bench.output, bench.work / "guests")
        self._count = 0

    def publish(self, generation: str, proof: str = "proven") -> Version:
        """A new version, an hour after the one before."""
        self._count += 1
        self.bench.make_artifact(ABIS[0], generation)
        made = BuildInfo("config", f"{self._count:064x}"[::-1], 1, {}, {}, "", 0.0, 0, {})
        (self.bench.artifact / BUILDINFO).write_bytes(made.to_json())
        stamp = f"20270101T{self._count:02}0000Z"
        self._monkeypatch.setattr(time, "strftime", lambda *_arguments: stamp)
        source = read_source(self.bench.artifact, name=NAME)
        return published.publish(self.project, source, proof=proof)

    def where(self) -> dict[str, str]:
        """Channel to the name of its version."""
        return {name: version.name for name, version in channels(self.project, NAME).items()}

    def night(self, name: str, stable_after: int = 3) -> None:
        """A good night for what is current."""
        note_night(self.project, NAME, name, stable_after=stable_after)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    bench = LifeBench(tmp_path / "work")
    monkeypatch.setenv("DOMU_ROOT", str(bench.root))
    return Shelf(bench, monkeypatch)


def test_stable_follows_after_so_many_good_nights(shelf: Shelf) -> None:
    first = shelf.publish("one")
    shelf.night("1")
    assert shelf.where() == {NIGHTLY: first.name}
    second = shelf.publish("two")
    shelf.night("2")
    shelf.night("2")  # a night that was told twice is one
    assert STABLE not in shelf.where()
    shelf.night("3")
    assert shelf.where() == {NIGHTLY: second.name, STABLE: first.name}
    shelf.night("4", stable_after=0)
    assert shelf.where()[STABLE] == first.name
    shelf.night("5")
    assert shelf.where()[STABLE] == second.name


def test_what_was_rolled_back_or_is_unproven_never_becomes_stable(shelf: Shelf) -> None:
    first, second = shelf.publish("one"), shelf.publish("two")
    third = shelf.publish("three", proof="never proven")
    shelf.night("1", stable_after=1)
    assert STABLE not in shelf.where(), "it is not proven"
    said = shelf.bench.demand("publish", rollback="yes")
    assert f"current is {second.name} again" in said
    said = shelf.bench.demand("publish", rollback="yes")
    assert f"current is {first.name} again" in said
    shelf.night("2", stable_after=1)
    assert shelf.where() == {NIGHTLY: first.name, STABLE: first.name}
    notes = read_notes(third.folder.parent)
    assert notes.is_withdrawn(STABLE, second.name) and notes.is_withdrawn(NIGHTLY, third.name)
    shelf.bench.demand("promote", channel="nightly", version=second.name)
    shelf.night("3", stable_after=1)
    assert shelf.where()[STABLE] == second.name, "chosen by hand, it may go on"


def test_promotion_by_hand_and_its_undo(shelf: Shelf) -> None:
    first, second = shelf.publish("one"), shelf.publish("two")
    third = shelf.publish("three", proof="never proven")
    refusal = shelf.bench.refused("promote")
    assert (refusal.exit_code, "not proven" in refusal.brief) == (5, True)
    refusal = shelf.bench.refused("promote", version="20260101T000000Z-00000000")
    assert (refusal.exit_code, first.name in refusal.hint) == (2, True)
    assert shelf.bench.refused("promote", rollback="yes").exit_code == 2
    shelf.bench.demand("promote", version=second.name)
    assert shelf.where() == {NIGHTLY: third.name, STABLE: second.name}
    said = shelf.bench.demand("promote", unproven="yes")
    assert f"stable is {third.name}, not proven: never proven" in said
    shelf.bench.demand("promote", rollback="yes")
    shelf.bench.demand("publish", rollback="yes", channel="stable")
    assert shelf.where() == {NIGHTLY: third.name, STABLE: first.name}
    disk = second.folder / "disk.img"
    disk.chmod(0o600)
    disk.write_bytes(b"other bytes")
    refusal = shelf.bench.refused("promote", version=second.name)
    assert (refusal.exit_code, "disk.img" in refusal.brief) == (5, True)


def test_retention_by_count_and_size_spares_what_is_referenced(shelf: Shelf) -> None:
    versions = [shelf.publish(text) for text in ("one", "two", "three", "four", "five")]
    shelf.bench.demand("promote", version=versions[1].name)
    gone = prune(shelf.project, NAME, keep=2, needed={versions[0].fingerprint})
    assert [version.name for version in gone] == [versions[2].name]
    two = published.measure([versions[0], versions[1]])
    assert published.measure([versions[0]]) < two < 2 * published.measure([versions[0]])
    gone = prune(shelf.project, NAME, keep=7, keep_bytes=1)
    assert [version.name for version in gone] == [versions[0].name, versions[3].name]
    assert {path.name for path in shelf.bench.versions()} == set(shelf.where().values())
    assert not prune(shelf.project, NAME, keep=1, keep_bytes=1)


def test_an_installed_guest_keeps_its_version(shelf: Shelf) -> None:
    first = shelf.publish("one")
    shelf.bench.demand("install", of="published", unproven="yes")
    shelf.publish("two")
    shelf.publish("three")
    said = shelf.bench.demand("publish", keep="1", unproven="yes")
    assert "removed" in said
    assert first.folder.is_dir()


def test_a_record_of_channels_that_is_none_stops_what_would_need_it(shelf: Shelf) -> None:
    first = shelf.publish("one")
    shelf.publish("two")
    notes = first.folder.parent / "channels.json"
    for text in ("[]", "{", '{"withdrawn": 1, "nights": []}', '{"nights": [["a"]]}'):
        notes.write_text(text)
        refusal = shelf.bench.refused("publish", rollback="yes")
        assert "channels.json" in refusal.brief and refusal.hint
    notes.unlink()
    shelf.bench.demand("publish", rollback="yes")


def test_the_record_keeps_a_bounded_number_of_nights() -> None:
    notes = Notes()
    for number in range(500):
        notes = notes.add_night(str(number), "a" if number < 300 else "b")
    assert len(notes.nights) == 400
    assert notes.ages() == {"a": 400, "b": 200}
