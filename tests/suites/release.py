"""Builds one release from the mirror of the machine's own apt, and tells what came of it."""

import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pipeline.mirror.apt_sources import host_archive
from pipeline.site import MARKER
from pipeline.suites import SUITES
from pipeline.suites.accounts import Account
from tests.workshop import Outcome, Workshop

FROZEN = "frozen"  # the same mirror, taken though its copy is old
TAKEN = 'built all the same, with `valid_until = "ignore"` in the mirror\'s file'
_EXPIRED = "expired, Valid-Until was"
# a release past its life: its index still names packages that the archive has removed
_LOST = re.compile(r"error: .*?://[^/ ]+(/[^ ]*-security/\S+): (.*)\n(?s:.*)security=no")


@dataclass
class Releases(Workshop):
    """A site with a guest of each release, lean and small."""

    @classmethod
    def lay_out(cls, site: Path, output: Path) -> Self:
        """The site's files, in an empty folder."""
        for folder in ("guests", "mirrors"):
            (site / folder).mkdir(parents=True)
        (site / MARKER).touch()
        (site / "guests/defaults.toml").write_text('size = "1G"\nswap = "128M"\n')
        for name, suite in SUITES.items():
            (site / f"guests/{name}.toml").write_text(f'suite = "{name}"\n')
            frozen = f'url = "{host_archive(suite.distribution)}"\nvalid_until = "ignore"\n'
            (site / f"mirrors/{FROZEN}-{suite.distribution}.toml").write_text(frozen)
        return cls(output, site / "guests")

    def environment(self) -> dict[str, str]:
        """Named mirrors are the site's."""
        return {**super().environment(), "DOMU_SITE": str(self.guests.parent)}

    def ask(self, name: str, mirror: str) -> str:
        """What is wrong with a mirror's copy of a release, in its own words; empty if nothing."""
        outcome = self.doit("mirrors", f"mirrors={mirror}", f"suites={name}", "json=yes")
        assert outcome.code == 0, outcome.said
        troubles = [probe["trouble"] for probe in json.loads(outcome.said)]
        return "" if "" in troubles else str(troubles[0])

    def build(self, name: str, *words: str) -> Outcome:
        """`doit build`, then `doit check` if that went well."""
        words = (f"name={name}", *words)
        outcome = self.doit("build", *words)
        return self.doit("check", *words) if outcome.code == 0 else outcome

    def account_for(self, name: str) -> Account:
        """Ask for it, build and check it; AssertionError where it is there, but fails."""
        today, mirror, suite = _date(time.time()), "mirror=host", SUITES[name]
        trouble = self.ask(name, "host")
        if trouble.startswith(_EXPIRED):
            mirror = f"mirror={FROZEN}-{suite.distribution}"
            trouble = f"{trouble}; {TAKEN}"
        elif trouble:
            return Account(asked=today, answer=self._words(name, trouble))
        outcome = self.build(name, mirror)
        if lost := _LOST.search(outcome.said):
            trouble = f"`{lost[1]}`: {lost[2]}; built with `security=no`"
            outcome = self.build(name, mirror, "security=no")
        assert outcome.code == 0, outcome.said
        folder = self.output / "guests" / name
        stages = json.loads((folder / "stages.json").read_bytes())
        snapshot = self.output / f"store/mirror/{stages['mirror']['fingerprint'][:32]}"
        state = json.loads((snapshot / "snapshot.json").read_bytes())
        return Account(
            asked=today,
            answer=trouble,
            built=_date(stages["image"]["built_at"]),
            state=_date(state["epoch"]),
            kernel=json.loads((folder / "kernel.json").read_bytes())["abi"],
            packages=len((folder / "manifest").read_text().splitlines()),
            bootstrap=suite.default_bootstrap("amd64"),
        )

    def _words(self, name: str, trouble: str) -> str:
        """What the mirror said, and the archive of old releases beside it; no host's name."""
        distribution = SUITES[name].distribution
        said = [f"`/{distribution}/dists/{name}`: {trouble}"]
        if SUITES[name].is_archived:
            archive = (
                f"{host_archive(distribution).removesuffix(distribution)}debian-archive/debian"
            )
            answer = self.ask(name, archive) or "it is there"
            said.append(f"`/debian-archive/debian/dists/{name}`: {answer}")
        return "; ".join(said)


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
