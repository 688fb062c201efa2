"""Every kind of boot, release and disk once: `pytest -m matrix tests/boot`, an hour and more.

What each guest is stands in its spec, tests/boot/guests/. The core of it runs always:
tests/boot/test_guests_boot.py.
"""

import json
from pathlib import Path

import pytest

from pipeline.files import digest_file
from pipeline.proof.session import Asked
from pipeline.spec import list_guests
from tests.boot.conftest import Prover
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(3000)]
READ_BY_CHECK = ("/:ext4", "/:ext3", "/:ext2")
GUESTS = Path(__file__).with_name("guests")


@pytest.fixture(scope="session")
def matrix(prover: Prover) -> Prover:
    """The same workshop and key, for the guests that exist to be proven."""
    return Prover(Workshop(prover.workshop.output, GUESTS), prover.key)


@pytest.mark.matrix
@pytest.mark.parametrize("name", list_guests(GUESTS))
def test_a_kind_of_guest_boots_and_answers(matrix: Prover, name: str) -> None:
    folder = matrix.build(name)
    spec = matrix.spec(name)
    if spec.layout in READ_BY_CHECK:
        words = [f"authorized_keys={matrix.key}.pub"]
        checked = matrix.workshop.doit("check", f"name={name}", *words)
        assert checked.code == 0, checked.said
    disk = next(path for path in folder.glob("disk.*"))
    before = digest_file(disk)

    evidence = matrix.prove(spec, Asked())

    assert evidence.failed == []
    assert evidence.injected["path"] == "/root/.ssh/authorized_keys"
    record = json.loads((folder / "proof/proof.json").read_bytes())
    assert record["verdict"] == "proven"
    assert {check["name"] for check in record["checks"] if check["ok"]} >= {
        "login prompt on hvc0",
        "SSH with the key",
        "hostname -f",
        "address",
        "swap",
        "system state",
        "xl shutdown",
    }
    assert digest_file(disk) == before, "the proof changed the artifact"
