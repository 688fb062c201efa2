"""Guests that the pipeline built, booted under real Xen: nothing here is simulated but the CPU."""

from __future__ import annotations

import json

import pytest

from pipeline.artifact.sums import measure_file
from pipeline.files import digest_file
from pipeline.proof.seals import read_verdict
from pipeline.proof.session import Asked
from tests.boot.conftest import Prover

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(3000)]
KINDS = {
    "test-drbd": "PV, direct kernel, systemd",
    "sysvinit": "PV, direct kernel, inittab",
    "pygrub": "PV, its own kernel by pygrub",
    "pvh": "PVH, direct kernel",
}
# proven with every run of the tests; the rest of the kinds: test_matrix.py
BOOTED = [pytest.param(name, id=kind) for name, kind in KINDS.items()]


@pytest.mark.parametrize("name", BOOTED)
def test_a_guest_boots_and_answers(prover: Prover, name: str) -> None:
    folder = prover.build(name)
    before = {path.name: digest_file(path) for path in folder.iterdir() if path.is_file()}

    evidence = prover.prove(prover.spec(name))

    assert evidence.failed == []
    assert {check.subject for check in evidence.checks} >= {
        "login prompt on hvc0",
        "SSH with the key",
        "another key and passwords are refused",
        "hostname -f",
        "uname -r",
        "modprobe nf_tables",
        "xl shutdown",
        "apt-get update",
        "root's login on hvc0",
    }
    asked = {check.subject: check for check in evidence.checks}
    assert asked["root's login on hvc0"].seen == "refused"
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
    unasked = {check.subject: check.seen for check in evidence.checks if check.level == "skipped"}
    assert "prove_key" in unasked["SSH with the key"]
    held = {check.subject for check in evidence.checks if check.level == "ok"}
    assert {"host key over SSH", "address by DHCP", "xl shutdown"} <= held
