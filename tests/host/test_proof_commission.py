"""What a worker may send of a proof, and what becomes of it here."""

import base64
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Broken, GuestFailed
from pipeline.proof.artifact import read_artifact
from pipeline.proof.checks import holds
from pipeline.proof.commission import prove_elsewhere, read_commission, read_evidence
from pipeline.proof.evidence import Evidence
from pipeline.proof.seals import read_verdict
from pipeline.proof.session import Asked
from pipeline.recipe import Recipe
from pipeline.spec import Spec, load_all
from tests import small

pytestmark = pytest.mark.integration


@dataclass
class Worker:
    """A machine that gets a copy, and says of it what the test wants; `harm` is done first."""

    room: Path
    ok: bool = True
    verdict: str = "proven"
    reason: str = ""
    harm: str = ""
    seen: dict[str, Any] = field(default_factory=dict)

    def prove(
        self, spec: Spec, folder: Path, told: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, bytes]] | None:
        copy = self.room / "copy"
        shutil.copytree(folder, copy)
        if self.harm == "other bytes":
            with open(copy / "disk.img", "r+b") as disk:
                disk.write(b"!")
        artifact, own, asked = read_commission(copy, json.loads(json.dumps(told)), self.room)
        self.seen = {"key": asked.read_key(), "password": asked.read_password(), "spec": own}
        self.seen["modes"] = {path.name: path.stat().st_mode & 0o777 for path in asked_files(asked)}
        self.seen["named"] = [artifact.named(path) for path, _ in artifact.disks]
        evidence = Evidence(spec.name, self.verdict, self.reason, seconds={"total": 1.0})
        evidence.facts = dict(artifact.facts)
        evidence.add(holds("hostname -f", spec.name, spec.name, ok=self.ok))
        evidence.digests, evidence.console = artifact.digests(), "web1 login:"
        evidence.write(artifact.evidence)
        files = read_evidence(artifact.evidence)
        if self.harm == "no evidence":
            files["proof.json"] = base64.b64encode(b'{"form": 2, "guest": []}').decode()
        return "build1", {name: base64.b64decode(text) for name, text in files.items()}

    def wait(self, _stage: str, _spec: Spec) -> bool:
        return False

    def serve(self, recipe: Any, specs: Iterable[Spec]) -> None:
        """It serves one."""


def asked_files(asked: Asked) -> list[Path]:
    return [path for path in (asked.key, asked.password) if path]


def have_proven(root: Path, worker: Worker, asked: Asked | None = None) -> Path:
    """A small guest's artifact folder, after that worker."""
    project = small.make_project(root, "web1")
    folder = small.build(project, "web1")
    (root / "room").mkdir()
    spec = load_all(project.guests)["web1"]
    recipe = Recipe(project, small.make_stages("1"), elsewhere=worker)
    evidence = prove_elsewhere(recipe, read_artifact(folder, spec), spec, asked or Asked())
    assert evidence is not None and evidence.is_unchanged
    return folder


def test_a_workers_evidence_is_a_proof_of_what_lies_here(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"PRIVATE")
    (tmp_path / "password").write_bytes(b"s3cret\n")
    worker = Worker(tmp_path / "room")
    asked = Asked(tmp_path / "key", password=tmp_path / "password")
    folder = have_proven(tmp_path, worker, asked)
    assert read_verdict(folder).is_proven
    record = json.loads((folder / "proof/proof.json").read_text())
    assert (record["verdict"], record["facts"]["proven by"]) == ("proven", "build1")
    assert record["digests"]["disk.img"]["mtime_ns"] == (folder / "disk.img").stat().st_mtime_ns
    assert (folder / "proof/console.log").read_text() == "web1 login:"
    assert (worker.seen["key"], worker.seen["password"]) == (b"PRIVATE", b"s3cret")
    assert worker.seen["modes"] == {"key": 0o600, "password": 0o600}
    assert folder / "disk.img" in worker.seen["named"], "as its configuration calls it"
    assert b"PRIVATE" not in (folder / "proof/proof.json").read_bytes()


@pytest.mark.parametrize(
    ("worker", "error", "says"),
    [
        ({"harm": "other bytes"}, Broken, "build1 proved other bytes"),
        ({"harm": "no evidence"}, Broken, "what build1 sent is no evidence"),
        ({"ok": False}, GuestFailed, "1 of 1 checks do not hold"),
        ({"verdict": "failed", "reason": "no login prompt"}, GuestFailed, "no login prompt"),
        ({"verdict": "broken", "reason": "QEMU died"}, Broken, "build1: QEMU died"),
    ],
    ids=["other bytes", "no evidence", "a check", "the guest", "the host"],
)
def test_what_is_no_proof_is_none(
    tmp_path: Path, worker: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        have_proven(tmp_path, Worker(tmp_path / "room", **worker))
    folder = tmp_path / "output/guests/web1"
    verdict = "failed" if error is GuestFailed else "broken"
    assert json.loads((folder / "proof/proof.json").read_text())["verdict"] == verdict
    assert not read_verdict(folder).is_proven


def test_what_boots_from_elsewhere_is_proven_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = small.make_project(tmp_path, "web1")
    folder = small.build(project, "web1")
    configuration, other = folder / "web1.cfg", tmp_path / "other.img"
    shutil.copyfile(folder / "disk.img", other)
    text = configuration.read_text().replace(str(folder / "disk.img"), str(other))
    configuration.write_text(text)
    spec, worker = load_all(project.guests)["web1"], Worker(tmp_path / "room")
    recipe = Recipe(project, small.make_stages("1"), elsewhere=worker)
    assert prove_elsewhere(recipe, read_artifact(folder, spec), spec, Asked()) is None
    assert f"proven here: {other} is no file of its folder" in capsys.readouterr().out
    assert worker.seen == {}
