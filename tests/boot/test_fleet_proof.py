"""A guest that a fleet's worker proves: it travels there sealed, its evidence comes back."""

import json
import shutil

import pytest

from pipeline.proof.seals import read_verdict
from tests.boot.conftest import Prover
from tests.turns import in_turn

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(3000)]
# of the worker's own: what the tests' test host is made of is not made twice
SHARED = ("mirror", "testhost", "testhost-tree")


@in_turn("boot", "a guest proven by a fleet's worker")
def test_a_worker_proves_a_guest_and_the_evidence_is_here(prover: Prover) -> None:
    output = prover.workshop.output
    place = output / "fleet/local/1/store"
    for name in SHARED:
        if (output / "store" / name).is_dir():
            shutil.copytree(output / "store" / name, place / name, dirs_exist_ok=True)
    folder = prover.workshop.built("test-drbd")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}

    done = prover.workshop.doit("prove", "name=test-drbd", "workers=local:1", ends=0)

    assert "begun by local-1" in done.said and "test-drbd is proven" in done.said
    assert read_verdict(folder).is_proven
    record = json.loads((folder / "proof/proof.json").read_bytes())
    assert record["facts"]["proven by"] == "local-1"
    assert record["facts"]["test host"]
    asked = {check["name"]: check["ok"] for check in record["checks"]}
    assert asked["uname -r"] and asked["xl shutdown"] and False not in asked.values()
    assert "login:" in (folder / "proof/console.log").read_text()
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    assert after == before
    local = output / "fleet/local"
    assert [path for path in local.glob("store/sealed/**/*") if path.is_file()] == []
    assert not list(local.glob("1/scratch/*")) and not list(local.glob("1/guests/*"))
    shutil.rmtree(local)
