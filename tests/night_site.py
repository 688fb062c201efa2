"""A site that has nights: a mirror of the tests, some guests, `doit nightly` as a user types it."""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.sums import measure_file
from pipeline.proof.timeouts import VARIABLE
from tests.night_mirror import NightMirror
from tests.wire import WebServer
from tests.workshop import Outcome, run_program

NIGHT_S = 2400
# a guest cannot reach our loopback: the test host answers for the name that its sources say
DEFAULTS = """
suite = "bookworm"
mirror = "night"
guest_mirror = "http://nights.example.org/debian"
size = "1G"
swap = "64M"
memory = "192M"
"""


@dataclass(frozen=True)
class Told:
    """A night as it was told: how the command ended, report.json, and what is published then.

    `versions` are each guest's, the oldest first; `links` are where its channels lead.
    """

    outcome: Outcome
    report: Mapping[str, Any]
    versions: Mapping[str, Sequence[str]]
    links: Mapping[str, Mapping[str, str]]

    def guest(self, name: str) -> Mapping[str, Any]:
        """A guest's part of the report."""
        (found,) = [one for one in self.report["guests"] if one["guest"] == name]
        return dict(found)

    @property
    def verdicts(self) -> dict[str, str]:
        return {one["guest"]: one["verdict"] for one in self.report["guests"]}


class NightSite:
    """The folder of a site; its store and cache are those of the tests."""

    def __init__(self, folder: Path, workshop: Path, mirror: NightMirror) -> None:
        self.folder = folder
        self.output = folder / "output"
        self.mirror = mirror
        made = self._run("init", str(folder))
        assert made.code == 0, made.said
        self.output.mkdir(exist_ok=True)
        for name in ("store", "cache"):
            (workshop / name).mkdir(parents=True, exist_ok=True)
            (self.output / name).symlink_to(workshop / name)
        self.write("mirrors/night.toml", mirror.definition)
        self.write("guests/defaults.toml", DEFAULTS)

    def write(self, name: str, text: str) -> None:
        """A file of the user's."""
        (self.folder / name).write_text(text)

    def doit(self, *words: str) -> Outcome:
        """`doit WORDS...` in the site; output and errors together."""
        return self._run(*words, DOMU_SITE=str(self.folder))

    def night(self, *words: str) -> Told:
        """`doit nightly`, and everything that it left."""
        before = set(self._reports())
        outcome = self.doit("nightly", *words)
        new = sorted(set(self._reports()) - before)
        assert len(new) == 1, f"{new}: {outcome.said}"
        report = json.loads((new[0] / "report.json").read_bytes())
        return Told(outcome, report, self.versions(), self.links())

    def versions(self) -> dict[str, list[str]]:
        """The published versions of each guest, the oldest first."""
        return {
            root.name: sorted(path.name for path in root.glob("2*") if not path.is_symlink())
            for root in self._roots()
        }

    def links(self) -> dict[str, dict[str, str]]:
        """Where the channels of each guest lead."""
        return {
            root.name: {
                path.name: os.readlink(path) for path in root.iterdir() if path.is_symlink()
            }
            for root in self._roots()
        }

    def published(self, guest: str, version: str) -> Path:
        return self.output / "published" / guest / version

    def read_proof(self, guest: str) -> dict[str, Any]:
        """The proof of what a guest's channel leads to; {} where it was published without."""
        path = self.published(guest, "current") / "proof/proof.json"
        return dict(json.loads(path.read_bytes())) if path.exists() else {}

    def golden_digest(self, guest: str) -> str:
        """Of the golden image that a guest was made from last."""
        record = json.loads((self.output / "guests" / guest / "stages.json").read_bytes())
        stored = self.output / "store/image" / str(record["image"]["fingerprint"])[:32]
        return measure_file(stored / "golden.img")

    def _roots(self) -> list[Path]:
        return sorted(path for path in (self.output / "published").glob("[!.]*") if path.is_dir())

    def _reports(self) -> list[Path]:
        return [path.parent for path in (self.output / "reports").glob("2*/report.json")]

    def _run(self, *words: str, **variables: str) -> Outcome:
        return run_doit(*words, **variables)


class Follower:
    """A host that installs from the site's repository; `fetched` are bytes over the wire."""

    def __init__(self, folder: Path, site: NightSite) -> None:
        self.folder = folder
        self.root_of_trust = site.folder / "keys/root.json"
        self.server = WebServer(site.output / "repository")
        self.fetched: dict[str, int] = {}
        for name in ("root", "output", "guests"):
            (folder / name).mkdir(parents=True)

    def doit(self, what: str, *words: str) -> Outcome:
        """A command on the host, remembered as `what`."""
        before = self.server.sent
        variables = {"DOMU_ROOT": "root", "DOMU_OUTPUT": "output", "DOMU_GUESTS": "guests"}
        places = {name: str(self.folder / folder) for name, folder in variables.items()}
        outcome = run_doit(*words, **places)
        self.fetched[what] = self.server.sent - before
        return outcome

    def kept(self) -> set[str]:
        """The digests of the images that it has, measured anew."""
        return {measure_file(path) for path in (self.folder / "output/cache/images").glob("*")}


def run_doit(*words: str, **variables: str) -> Outcome:
    """`doit WORDS...` with these variables; output and errors together."""
    started = time.monotonic()
    argv = [sys.executable, "-m", "pipeline", *words]
    done = run_program(argv, {**os.environ, VARIABLE: "3", **variables}, timeout_s=NIGHT_S)
    return Outcome(done.returncode, done.stdout, time.monotonic() - started)
