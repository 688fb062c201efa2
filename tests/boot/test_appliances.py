"""Appliances: guests that only make sense together, booted in one test host under real Xen."""

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pytest

from pipeline.appliance.appliance_evidence import ApplianceEvidence, appliance_folder
from pipeline.appliance.appliance_proof import prove_appliance, prove_artifacts
from pipeline.appliance.members import Appliance, load_appliance
from pipeline.artifact.sums import measure_file
from pipeline.errors import GuestFailed
from pipeline.process import run
from pipeline.proof.artifact import read_artifact
from pipeline.proof.names import FOLDER, PROOF
from pipeline.proof.session import Asked
from pipeline.storage.replicated import make_replicated
from tests.boot.conftest import Prover
from tests.boot.faults import Faulty, copy_artifact
from tests.turns import in_turn

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(3000)]
RESOURCE = "/etc/drbd.d/r0.res"


def build(prover: Prover, name: str, **overrides: str) -> Appliance:
    words = [f"{key}={text}" for key, text in overrides.items()]
    prover.workshop.doit("build", f"appliance={name}", *words, ends=0)
    return load_appliance(prover.recipe.project, name, overrides)


def digests(prover: Prover, appliance: Appliance) -> dict[Path, str]:
    folders = [prover.recipe.project.artifact(spec.name) for spec in appliance.members.values()]
    return {path: measure_file(path) for folder in folders for path in folder.glob("*.img")}


def held(evidence: ApplianceEvidence) -> set[str]:
    return {check.subject for check in evidence.checks if check.level == "ok"}


@in_turn("boot", "a disk that two guests replicate")
def test_a_replicated_disk_is_connected_taken_over_resynced_cut_and_healed(prover: Prover) -> None:
    appliance = build(prover, "test-drbd")
    before = digests(prover, appliance)

    evidence = prove_appliance(prover.recipe, appliance)

    assert evidence.failed == []
    assert held(evidence) >= {
        "r0: connected on a",
        "r0: no first sync on b",
        "r0: b goes on when a is destroyed",
        "r0: a gets what it has missed",
        "r0: a has what b wrote",
        "r0: cut: b",
        "r0: after_1pri = consensus",
        "r0: healed: a",
        "r0: what a wrote alone is kept",
        "b knows a by its name",
        "a: uname -r",
        "a: xl shutdown",
        "b: xl shutdown",
    }
    assert digests(prover, appliance) == before, "the proof changed an artifact"
    folder = appliance_folder(prover.recipe.project, "test-drbd") / FOLDER
    assert {path.name for path in folder.iterdir()} >= {
        "proof.json",
        "console-a.log",
        "console-b.log",
    }


@in_turn("boot", "a web server behind a router")
def test_a_web_server_is_reached_through_its_router_and_no_other_way(prover: Prover) -> None:
    evidence = prove_appliance(prover.recipe, build(prover, "routed-web"))

    assert evidence.failed == []
    assert held(evidence) >= {
        "the web server answers through the router",
        "nothing leads to it but the router",
        "it reaches the host through the router's NAT",
        "web: ready: port 80",
    }


SHARED = """\
[members.a]
spec = "test-drbd"
type = "pv"
[members.b]
spec = "test-drbd"
type = "pv"
after = ["a"]
[shared.quorum]
members = ["a", "b"]
size = "16M"
[[expect]]
name = "Xen's own script gives it to one guest"
member = "host"
command = "xl block-attach pair-a {disk},raw,xvdf,w"
[[expect]]
name = "Xen's own script refuses another guest"
member = "host"
command = "! xl block-attach pair-b {disk},raw,xvdf,w && xl block-detach pair-a xvdf"
[[expect]]
name = "xl has no w!"
member = "host"
command = "xl block-attach pair-a {disk},raw,xvdf,w! 2>&1 | grep 'unknown value for access'"
"""


@in_turn("boot", "two guests on one disk")
def test_each_of_two_guests_reads_what_the_other_writes(prover: Prover, tmp_path: Path) -> None:
    """At once with why it is QEMU that serves them."""
    site = replace(prover, workshop=replace(prover.workshop, guests=tmp_path / "guests"))
    shutil.copytree(prover.workshop.guests, site.workshop.guests)
    disk = site.workshop.output / "guests/pair-a/disk-quorum.img"
    appliances = tmp_path / "appliances"
    appliances.mkdir()
    (appliances / "pair.toml").write_text(SHARED.replace("{disk}", str(disk)))
    appliance = build(site, "pair", authorized_keys=f"{site.key}.pub")
    before = digests(site, appliance)

    evidence = prove_appliance(site.recipe, appliance, Asked(site.key))

    assert evidence.failed == []
    assert held(evidence) >= {
        "quorum: b reads what a has written",
        "quorum: a reads what b has written",
        "Xen's own script gives it to one guest",
        "Xen's own script refuses another guest",
        "xl has no w!",
        "b: xl shutdown",
    }
    assert digests(site, appliance) == before, "the proof changed the shared disk"


@dataclass(frozen=True)
class Pair:
    """The two nodes of test-drbd, the second one a copy that may be spoilt."""

    prover: Prover
    appliance: Appliance
    spoilt: Faulty

    @classmethod
    def make(cls, prover: Prover, folder: Path) -> Self:
        appliance = build(prover, "test-drbd")
        built = prover.recipe.project.artifact(appliance.members["b"].name)
        return cls(prover, appliance, copy_artifact(built, folder / built.name))

    def rewrite_resource(self, pattern: str, text: str) -> None:
        """In the second's own file of the resource."""
        file = self.spoilt.folder / "r0.res"
        self.spoilt.debugfs(f'dump {RESOURCE} "{file}"')
        before = file.read_text()
        file.write_text(re.sub(pattern, text, before))
        assert file.read_text() != before
        file.chmod(0o600)
        self.spoilt.debugfs(f"rm {RESOURCE}", f'write "{file}" {RESOURCE}')

    def explain(self) -> list[str]:
        """The causes that its proof names; it must fail."""
        project, members = self.prover.recipe.project, self.appliance.members
        known_hosts = project.artifact(members["b"].name) / "known_hosts"
        shutil.copy(known_hosts, self.spoilt.folder)
        folders = {"a": project.artifact(members["a"].name), "b": self.spoilt.folder}
        artifacts = {key: read_artifact(folder, members[key]) for key, folder in folders.items()}
        with pytest.raises(GuestFailed) as caught:
            prove_artifacts(self.prover.recipe, self.appliance, artifacts, Asked())
        record = appliance_folder(project, "test-drbd") / FOLDER / PROOF
        causes: list[str] = json.loads(record.read_bytes())["causes"]
        assert caught.value.hint == f"likely cause: {'; '.join(causes)}"
        return causes


@pytest.fixture
def pair(prover: Prover, tmp_path: Path) -> Pair:
    return Pair.make(prover, tmp_path)


@in_turn("fault", "another secret of DRBD")
def test_nodes_with_different_secrets_are_told_apart(pair: Pair) -> None:
    pair.rewrite_resource(r'shared-secret "?(\w)', 'shared-secret "X')
    assert pair.explain() == ["their shared secrets differ"]


@in_turn("fault", "another address of DRBD's peer")
def test_a_node_that_looks_for_its_peer_elsewhere_is_told(pair: Pair) -> None:
    pair.rewrite_resource(r"10\.77\.0\.1:", "10.77.0.5:")
    (cause,) = pair.explain()
    assert cause.startswith("test-drbd-b looks for test-drbd-a at 10.77.0.5; test-drbd-a has ")


@in_turn("fault", "another size of DRBD's disk")
def test_disks_of_different_sizes_are_told(pair: Pair) -> None:
    part = next(part for part in pair.appliance.members["b"].parts if part.name == "r0")
    disk = pair.spoilt.folder / "disk-r0.img"
    disk.unlink()
    make_replicated(run, disk, replace(part, size_mib=part.size_mib * 2))
    causes = ["the disks differ in size: 64 MiB in test-drbd-a, 128 in test-drbd-b"]
    assert pair.explain() == causes
