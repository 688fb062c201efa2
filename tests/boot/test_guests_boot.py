"""Guests that the pipeline built, booted under real Xen: nothing here is simulated but the CPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.canonical import digest_file
from pipeline.project import Project
from pipeline.proof.errors import GuestFailed
from pipeline.proof.evidence import Evidence
from pipeline.proof.patience import VARIABLE
from pipeline.proof.prove import prove
from pipeline.proof.session import Asked
from pipeline.proof.verdict import read_verdict
from pipeline.recipe import Recipe
from pipeline.spec import Spec, load_all
from pipeline.stages import STAGES
from pipeline.verity import measure_file
from tests.conftest import ROOT, require
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(3000)]
KINDS = {
    "test-drbd": "PV, direct kernel, systemd",
    "sysvinit": "PV, direct kernel, inittab",
    "pygrub": "PV, its own kernel by pygrub",
    "pvh": "PVH, direct kernel",
}
# one guest is proven with every run of the tests; the others take minutes each
ALWAYS = "test-drbd"
BOOTED = [
    pytest.param(name, id=kind, marks=[] if name == ALWAYS else [pytest.mark.boot])
    for name, kind in KINDS.items()
]


class Prover:
    """Builds a guest that lets our key in, and proves it."""

    def __init__(self, workshop: Workshop, key: Path) -> None:
        self.workshop = workshop
        self.key = key

    def spec(self, name: str, **overrides: str) -> Spec:
        keys = {"authorized_keys": f"{self.key}.pub", **overrides}
        return load_all(self.workshop.guests, name, keys)[name]

    def build(self, name: str, **overrides: str) -> Path:
        words = [f"{key}={value}" for key, value in overrides.items()]
        return self.workshop.built(name, f"authorized_keys={self.key}.pub", *words)

    def prove(self, spec: Spec, asked: Asked | None = None) -> Evidence:
        project = Project(ROOT, self.workshop.output, self.workshop.guests)
        return prove(Recipe(project, STAGES), spec, asked or Asked(self.key))


@pytest.fixture(scope="session")
def prover(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Prover:
    require(shutil.which("qemu-system-x86_64") is not None, "qemu-system-x86 is not installed")
    require(shutil.which("ssh-keygen") is not None, "openssh-client is not installed")
    os.environ.setdefault(VARIABLE, "3")  # nothing here is judged by its speed
    key = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return Prover(workshop, key)


@pytest.mark.parametrize("name", BOOTED)
def test_a_guest_boots_and_answers(prover: Prover, name: str) -> None:
    folder = prover.build(name)
    before = {path.name: digest_file(path) for path in folder.iterdir() if path.is_file()}

    evidence = prover.prove(prover.spec(name))

    assert evidence.failed == []
    assert {check.name for check in evidence.checks} >= {
        "login prompt on hvc0",
        "SSH with the key",
        "another key and passwords are refused",
        "hostname -f",
        "uname -r" if name != "pygrub" else "default route",
        "modprobe nf_tables",
        "xl shutdown",
    }
    after = {path.name: digest_file(path) for path in folder.iterdir() if path.is_file()}
    assert after == before, "the proof changed the artifact"
    record = json.loads((folder / "proof/proof.json").read_bytes())
    assert record["verdict"] == "proven"
    disk = next(path for path in before if path.startswith("disk."))
    assert record["digests"][disk]["digest"] == measure_file(folder / disk)
    assert record["digests"][f"{name}.cfg"]["digest"] == before[f"{name}.cfg"]
    assert read_verdict(folder).is_proven
    assert "login:" in (folder / "proof/console.log").read_text()


@pytest.mark.boot
def test_a_guest_without_a_key_of_ours_is_proven_from_outside(prover: Prover) -> None:
    prover.build("test-drbd")

    evidence = prover.prove(prover.spec("test-drbd"), Asked())

    assert evidence.verdict == "proven"
    unasked = {check.name: check.seen for check in evidence.checks if check.ok is None}
    assert "prove_key" in unasked["SSH with the key"]
    held = {check.name for check in evidence.checks if check.ok}
    assert {"host key over SSH", "address by DHCP", "xl shutdown"} <= held


@pytest.mark.boot
def test_a_root_that_names_no_disk_is_diagnosed(prover: Prover, tmp_path: Path) -> None:
    folder = prover.build("test-drbd")
    configuration = folder / "test-drbd.cfg"
    sound = configuration.read_text()
    configuration.write_text(sound.replace('root = "/dev/xvda1', 'root = "/dev/xvdz9'))
    try:
        with pytest.raises(GuestFailed) as caught:
            prover.prove(prover.spec("test-drbd"))
    finally:
        configuration.write_text(sound)

    assert "root= does not name the disk's vdev" in caught.value.hint
    assert "/dev/xvdz9 did not appear" in caught.value.details
    record = json.loads((folder / "proof/proof.json").read_bytes())
    assert record["verdict"] == "failed"
