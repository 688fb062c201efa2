"""A built guest published with all that is said of it, and copies that tests may damage."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.folder import Source, read_source
from pipeline.artifact.published import Version, publish
from pipeline.errors import Finding
from pipeline.project import Project
from pipeline.proof.evidence import Evidence
from pipeline.proof.names import FOLDER
from pipeline.proof.seals import seal_files
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.spec.load import load_all
from pipeline.stages import STAGES
from pipeline.supply.keys import make_key
from pipeline.supply.statements import describe
from tests.conftest import ROOT
from tests.workshop import Workshop

GUEST = "test-drbd"


@dataclass(frozen=True)
class SupplyBench:
    """Where a guest was built, a site with keys, and an output folder for what is published."""

    built: Path
    site: Path
    output: Path
    spec: Spec

    @classmethod
    def of(cls, workshop: Workshop, site: Path) -> SupplyBench:
        """With a guest of the workshop's, and a proof that says what a proof of it would."""
        artifact = workshop.built(GUEST)
        (site / "domu.toml").write_text("version = 1\n")
        make_key(site / "keys", "statements", None)
        copy = site / "guests" / GUEST
        copy.parent.mkdir()
        subprocess.run(["cp", "-al", artifact, copy], check=True)
        spec = load_all(workshop.guests, [GUEST], {})[GUEST]
        bench = cls(workshop.output, site, site / "output", spec)
        bench.prove(copy)
        return bench

    @property
    def recipe(self) -> Recipe:
        """That of where it was built."""
        return Recipe(Project(ROOT, self.built, ROOT / "guests", self.site), STAGES)

    @property
    def source(self) -> Source:
        """The proven artifact."""
        return read_source(self.site / "guests" / GUEST, name=GUEST)

    def prove(self, folder: Path, *checks: Finding) -> None:
        """As a proof of these bytes would leave it; without a boot."""
        files = [folder / f"{GUEST}.cfg", folder / "vmlinuz", folder / "initrd.img"]
        evidence = Evidence(GUEST, verdict="proven")
        evidence.digests = seal_files(folder, files, [folder / "disk.img", folder / "swap.img"])
        evidence.add(Finding("ok", "it boots"), Finding("skipped", "ssh"), *checks)
        evidence.console = "login:\n"
        evidence.write(folder / FOLDER)

    def describe(self) -> Mapping[str, bytes]:
        """All that is said of it."""
        return describe(self.recipe, self.spec, self.source)

    def publish(self, statements: Mapping[str, bytes]) -> Version:
        """Its version, of this bench's own."""
        project = Project(ROOT, self.output, ROOT / "guests", self.site)
        return publish(project, self.source, proof="proven", statements=statements)


def copy_version(folder: Path, target: Path) -> Path:
    """The same files under other names: one that is to be changed has to be written anew."""
    subprocess.run(["cp", "-al", folder, target], check=True)
    target.chmod(0o700)
    return target


def statement_in(envelope: bytes) -> dict[str, Any]:
    """What an envelope holds, whoever signed it."""
    return dict(json.loads(base64.b64decode(json.loads(envelope)["payload"])))
