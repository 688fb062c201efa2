"""Whether an artifact counts as proven, and the reason when it does not."""

import json
import os
from pathlib import Path

import pytest

from pipeline.console.answer import Answer
from pipeline.proof.checks import equal, holds, unasked
from pipeline.proof.course import tell
from pipeline.proof.evidence import Evidence
from pipeline.proof.names import FOLDER, FORM, PROOF
from pipeline.proof.seals import find_change, read_verdict, seal_files


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "web1"
    folder.mkdir()
    (folder / "web1.cfg").write_text('name = "web1"\n')
    (folder / "vmlinuz").write_bytes(b"kernel")
    with open(folder / "disk.img", "wb") as disk:
        disk.write(b"content")
        disk.truncate(64 << 20)
    return folder


def prove(folder: Path, *, verdict: str = "proven", reason: str = "") -> None:
    evidence = Evidence(folder.name, verdict=verdict, reason=reason)
    evidence.add(holds("login prompt on hvc0", "login:", "login:", ok=True))
    evidence.digests = seal_files(
        folder, [folder / "web1.cfg", folder / "vmlinuz"], [folder / "disk.img"]
    )
    evidence.write(folder / FOLDER)


def change(path: Path) -> None:
    """Other bytes of the same length, and a time that a clock with coarse steps shows as well."""
    with open(path, "r+b") as stream:
        stream.write(b"X")
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def test_an_artifact_without_a_proof_is_not_proven(artifact: Path) -> None:
    assert read_verdict(artifact).reason == "it was never proven"


@pytest.mark.parametrize("is_glance", [False, True])
def test_an_artifact_is_proven_as_long_as_nothing_of_it_changes(
    artifact: Path, is_glance: bool
) -> None:
    prove(artifact)

    assert read_verdict(artifact, is_glance=is_glance).is_proven


@pytest.mark.parametrize("is_glance", [False, True])
@pytest.mark.parametrize("name", ["web1.cfg", "vmlinuz", "disk.img"])
def test_what_changes_after_the_proof_is_named(artifact: Path, name: str, is_glance: bool) -> None:
    prove(artifact)
    change(artifact / name)

    verdict = read_verdict(artifact, is_glance=is_glance)

    assert verdict.reason == f"changed since its proof: {name} is not what was booted"


def test_only_a_glance_trusts_the_time_of_change(artifact: Path) -> None:
    prove(artifact)
    disk = artifact / "disk.img"
    before = disk.stat()
    change(disk)
    os.utime(disk, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert read_verdict(artifact, is_glance=True).is_proven
    assert "disk.img" in read_verdict(artifact).reason


def test_a_file_that_is_gone_is_named(artifact: Path) -> None:
    prove(artifact)
    (artifact / "vmlinuz").unlink()

    assert "vmlinuz cannot be read" in read_verdict(artifact).reason


def test_a_moved_artifact_is_still_proven(artifact: Path, tmp_path: Path) -> None:
    prove(artifact)

    assert read_verdict(artifact.rename(tmp_path / "elsewhere")).is_proven


@pytest.mark.parametrize("verdict", ["failed", "broken"])
def test_a_proof_that_did_not_succeed_gives_its_reason(artifact: Path, verdict: str) -> None:
    prove(artifact, verdict=verdict, reason="no login prompt")

    assert read_verdict(artifact).reason == f"its last proof says {verdict}: no login prompt"


def test_a_damaged_or_older_proof_proves_nothing(artifact: Path) -> None:
    prove(artifact)
    record = artifact / FOLDER / PROOF
    whole = record.read_text()
    record.write_text(whole.replace('"form": 2', '"form": 1'))
    assert "form 1" in read_verdict(artifact).reason
    record.write_text(whole[:40])
    assert "cannot be read" in read_verdict(artifact).reason


def test_a_file_outside_the_folder_is_sealed_by_its_full_path(
    artifact: Path, tmp_path: Path
) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"elsewhere")
    seals = seal_files(artifact, [kernel])
    assert list(seals) == [str(kernel)]
    change(kernel)
    assert str(kernel) in find_change(artifact, seals)


def test_a_proof_on_disk_has_the_form_that_older_ones_have(tmp_path: Path) -> None:
    evidence = Evidence("web1")
    evidence.add(equal("failed units", "", ""), equal("swap", "64 MiB", ""), unasked("tty", "why"))
    evidence.write(tmp_path)
    record = json.loads((tmp_path / PROOF).read_bytes())
    assert record["form"] == FORM
    assert record["checks"] == [
        {"name": "failed units", "expected": "", "seen": "", "ok": True},
        {"name": "swap", "expected": "64 MiB", "seen": "", "ok": False},
        {"name": "tty", "expected": "asked in the guest", "seen": "why", "ok": None},
    ]


def test_a_program_is_told_of_a_proof_whatever_its_verdict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Answer()
    answer.is_wanted = True
    monkeypatch.setattr("pipeline.proof.course.ANSWER", answer)
    evidence = Evidence("web1", verdict="failed", reason="1 of 1 checks do not hold")
    evidence.add(equal("swap", "64 MiB", ""))
    tell(evidence, Path("proof.json"), as_json=True)
    answer.print(5, 1.0)
    told = json.loads(capsys.readouterr().out)
    assert (told["guest"], told["verdict"]) == ("web1", "failed")
    assert [finding["level"] for finding in told["findings"]] == ["error"]
    tell(evidence, Path("proof.json"), as_json=False)
    assert capsys.readouterr().out == ""  # the error says it
