"""An archive that moves costs what it changes, and the bytes are those of a build from nothing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.host.archives import missing_tools
from tests.night_mirror import NightMirror, night_mirror
from tests.turns import in_turn
from tests.workshop import Outcome, Workshop

pytestmark = [
    pytest.mark.integration,
    pytest.mark.build,
    in_turn("build", "an archive that moves"),
]

GUEST = "web1"
SPEC = """\
suite = "bookworm"
size = "1G"
swap = "64M"
packages = ["less"]
snapshot_max_age = "0"
"""
GOLDEN = ("base", "kernel", "rootfs", "image")


@dataclass
class Nights:
    """One guest at several states of its mirror: what was said of each, what was made of it."""

    mirror: NightMirror
    root: Path
    cache: Path
    said: dict[str, Outcome] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def bench(self, name: str) -> Workshop:
        """An output folder of its own; packages and the guest's identity are those of all."""
        output = self.root / name / "output"
        if not output.exists():
            output.mkdir(parents=True)
            (output / "cache").symlink_to(self.cache)
            identity = self.root / "identity"
            identity.mkdir(mode=0o700, exist_ok=True)
            (output / "identity").symlink_to(identity)
        return Workshop(output, self.root / "guests")

    def build(self, state: str, folder: str = "warm") -> None:
        """Build the guest at the mirror's state of now."""
        bench = self.bench(folder)
        outcome = bench.doit("build", f"name={GUEST}", ends=0)
        self.said[state] = outcome
        record = bench.output / "guests" / GUEST / "stages.json"
        self.records[state] = json.loads(record.read_text())

    def files(self, state: str) -> dict[str, Any]:
        """The names and digests of all that the golden half is made of."""
        return {stage: self.records[state][stage]["files"] for stage in GOLDEN}


@pytest.fixture(scope="module")
def nights(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    require(not missing_tools(), f"needs {', '.join(missing_tools())}")
    root = tmp_path_factory.mktemp("nights")
    (root / "mirror").mkdir()
    (root / "guests").mkdir()
    with night_mirror(root / "mirror", workshop.output, "less") as mirror:
        where = f'mirror = "{mirror.server.url}/debian"\nkeyring = "{mirror.keyring}"\n'
        (root / f"guests/{GUEST}.toml").write_text(SPEC + where)
        nights = Nights(mirror, root, workshop.output / "cache")
        nights.build("first")
        mirror.add_unrelated()
        nights.build("unrelated")
        nights.build("unrelated, cold", "cold")
        mirror.add_update("hostname", "CVE-2026-11111: nothing at all.")
        nights.build("base")
        mirror.add_update("less", "CVE-2026-22222: nothing at all.")
        nights.build("package")
        nights.build("package, cold", "colder")
        yield nights


def test_a_state_that_changes_none_of_its_packages_builds_nothing(nights: Nights) -> None:
    outcome = nights.said["unrelated"]
    assert outcome.stages("built") == ["mirror"], outcome.said
    wanted = ["base", "config", "image", "kernel", "rootfs", "volume"]
    assert sorted(outcome.stages("reused")) == wanted
    print(f"{outcome.seconds:.1f} s")


def test_a_package_of_the_base_costs_no_kernel(nights: Nights) -> None:
    outcome = nights.said["base"]
    wanted = ["mirror", "base", "rootfs", "image", "volume", "config"]
    assert outcome.stages("built") == wanted, outcome.said
    assert "hostname 3.23+nmu1 -> 3.23+nmu1+night" in outcome.said
    print(f"{outcome.seconds:.1f} s")


def test_a_package_of_the_spec_costs_no_base(nights: Nights) -> None:
    outcome = nights.said["package"]
    wanted = ["mirror", "rootfs", "image", "volume", "config"]
    assert outcome.stages("built") == wanted, outcome.said
    assert sorted(outcome.stages("reused")) == ["base", "kernel"]


@pytest.mark.parametrize("state", ["unrelated", "package"])
def test_the_bytes_are_those_of_a_build_from_nothing(nights: Nights, state: str) -> None:
    assert nights.said[f"{state}, cold"].stages("reused") == []
    before = "first" if state == "unrelated" else state
    assert nights.files(before) == nights.files(f"{state}, cold")
    fingerprints = [
        {stage: nights.records[one][stage]["fingerprint"] for stage in GOLDEN}
        for one in (before, f"{state}, cold")
    ]
    assert fingerprints[0] == fingerprints[1]


def test_what_it_was_made_of_is_in_the_state_that_it_names(nights: Nights) -> None:
    """Of an older state, where nothing changed since; its packages are in the newer one too."""
    first, later = nights.records["first"], nights.records["unrelated"]
    assert first == later
    last = nights.records["package"]
    assert last["mirror"]["identity"] != first["mirror"]["identity"]
    assert last["kernel"] == first["kernel"]
    assert last["base"]["taken"]["mirror"] != first["base"]["taken"]["mirror"]
    added = last["rootfs"]["taken"]["mirror"]["packages"]
    assert list(added) == ["less"]
    assert "+night" in added["less"]


def test_why_says_which_packages_there_are_in_another_version(nights: Nights) -> None:
    bench = nights.bench("warm")
    before = bench.doit("why", f"name={GUEST}").said
    assert "then it is known whether its packages changed" in before
    assert "will be built first\n" not in before
    nights.mirror.add_update("hostname", "again")
    assert bench.doit("mirror", f"name={GUEST}").code == 0
    after = bench.doit("why", f"name={GUEST}", "snapshot_max_age=1h").said.splitlines()
    reasons = {words[0]: words[2] for line in after if len(words := line.split(maxsplit=2)) == 3}
    assert reasons["base"].startswith("hostname 3.23+nmu1+night"), after
    assert reasons["kernel"] == "current: its packages are the same"
    assert reasons["rootfs"] == "base will be built first"
