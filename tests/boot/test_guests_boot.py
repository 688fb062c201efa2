"""Guests that the pipeline built, booted under real Xen: nothing here is simulated but the CPU."""

import json
from pathlib import Path

import pytest

from pipeline.artifact.sums import measure_file
from pipeline.files import digest_file
from pipeline.proof.seals import read_verdict
from pipeline.proof.session import Asked
from tests.boot.conftest import Prover
from tests.boot.faults import copy_artifact
from tests.turns import in_turn, is_long_day, spread

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(3000)]
KINDS = {
    "pvh-grub": "PVH, its own kernel by GRUB",
    "test-drbd": "PVH, direct kernel, systemd",
    "sysvinit": "PV, direct kernel, inittab",
    "pygrub": "PV, its own kernel by pygrub",
}
ON_USUAL_DAYS = pytest.mark.other_day if is_long_day() else pytest.mark.build
# both kinds of PVH with every run of the tests (a guest of the long day has a direct kernel), one
# of PV; the rest of the kinds: test_matrix.py
BOOTED = [
    pytest.param("pvh-grub", id=KINDS["pvh-grub"]),
    pytest.param("test-drbd", id=KINDS["test-drbd"], marks=ON_USUAL_DAYS),
    *(
        pytest.param(*case.values, id=case.id, marks=[*case.marks, ON_USUAL_DAYS])
        for case in spread(("sysvinit", "pygrub"), 2, KINDS)
    ),
]
# who may enter: nobody, the key of somebody whose private half is not here, one that is given
DOORS = {"sysvinit": "locked", "pvh-grub": "locked", "test-drbd": "another's", "pygrub": "own"}


@pytest.mark.parametrize("name", BOOTED)
def test_a_guest_boots_and_answers(prover: Prover, name: str) -> None:
    door = DOORS[name]
    folder = prover.workshop.built(name) if door == "locked" else prover.build(name)
    spec = prover.spec(name, **({"authorized_keys": ""} if door == "locked" else {}))
    before = {path.name: digest_file(path) for path in folder.iterdir() if path.is_file()}

    evidence = prover.prove(spec, Asked(prover.key if door == "own" else None))

    assert evidence.failed == []
    assert [check for check in evidence.checks if check.level != "ok"] == []
    assert bool(evidence.injected) is (door != "own")
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
    assert ("pygrub runs restricted" in asked) is (name == "pygrub")
    assert evidence.facts.get("restricted", False) is (name == "pygrub")
    after = {path.name: digest_file(path) for path in folder.iterdir() if path.is_file()}
    assert after == before, "the proof changed the artifact"
    record = json.loads((folder / "proof/proof.json").read_bytes())
    assert (record["verdict"], record["unchanged"]) == ("proven", True)
    assert record["injected"] == evidence.injected
    disk = next(path for path in before if path.startswith("disk."))
    assert record["digests"][disk]["digest"] == measure_file(folder / disk)
    assert record["digests"][f"{name}.cfg"]["digest"] == before[f"{name}.cfg"]
    assert read_verdict(folder).is_proven
    assert "login:" in (folder / "proof/console.log").read_text()


@in_turn("boot", "nobody lets root in")
def test_a_guest_that_lets_no_root_in_is_proven_from_outside_and_says_why(
    prover: Prover, tmp_path: Path
) -> None:
    settings = tmp_path / "settings"
    settings.write_text("PermitRootLogin no\n")
    path = "/etc/ssh/sshd_config.d/00-own.conf"
    copied = copy_artifact(prover.build("test-drbd"), tmp_path / "test-drbd")
    copied.debugfs(f'write "{settings}" {path}')

    evidence = prover.prove_foreign(copied.configuration, Asked())

    assert (evidence.verdict, evidence.injected) == ("proven", {})
    unasked = {check.subject: check.seen for check in evidence.checks if check.level == "skipped"}
    assert unasked["SSH with the key"].endswith("permitrootlogin no")
    held = {check.subject for check in evidence.checks if check.level == "ok"}
    assert {"another key is refused", "address by DHCP", "xl shutdown"} <= held
