"""`doit check` on a real guest: clean as built, and each seeded fault found by its own check."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.check import check_guest
from pipeline.console.answer import Answer
from pipeline.errors import InUseError, PipelineError, VerificationError
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec, load_guest
from pipeline.stages import STAGES
from tests.host.seeded_faults import FAULTS
from tests.host.witness import NAME, SPEC, Witness, copy_witness
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build]


@pytest.fixture(scope="module")
def built(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Spec, Path]:
    guests = tmp_path_factory.mktemp("guests")
    (guests / "defaults.toml").write_text("")
    (guests / f"{NAME}.toml").write_text(SPEC)
    artifact = Workshop(workshop.output, guests).built(NAME)
    return artifact, load_guest(NAME, guests_dir=guests), guests


@pytest.fixture
def witness(built: tuple[Path, Spec, Path], tmp_path: Path) -> Iterator[Witness]:
    yield copy_witness(*built, tmp_path)
    (tmp_path / "output/guests" / NAME / "disk.img").unlink(missing_ok=True)


def test_a_guest_as_built_passes_every_check_and_is_not_changed(
    witness: Witness, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in witness.folder.iterdir()}
    check_guest(Recipe(witness.project, STAGES), witness.spec)
    lines = capsys.readouterr().out.splitlines()
    count = len(lines) - 1
    assert lines[-1] == f"{NAME}: {count} checks, {count} ok"
    assert count > 50
    assert all(line.startswith("ok   ") for line in lines[:-1])
    assert {path.name: path.stat().st_mtime_ns for path in witness.folder.iterdir()} == before
    assert list((witness.project.output / "scratch").iterdir()) == []


def test_the_same_packages_from_elsewhere_are_no_other_spec(
    witness: Witness, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing would be built anew for another keyring's path, so it could never be mended."""
    spec = witness.spec.model_copy(
        update={"keyring": "/srv/keys/archive.gpg", "bootstrap": "debootstrap"}
    )
    check_guest(Recipe(witness.project, STAGES), spec)
    assert "FAIL" not in capsys.readouterr().out


@pytest.mark.parametrize("fault", FAULTS)
def test_a_seeded_fault_is_found_by_its_own_check(witness: Witness, fault: str) -> None:
    seed, expected = FAULTS[fault]
    seed(witness)
    assert witness.failures() == expected


def test_a_changed_file_is_found_by_its_sum(
    witness: Witness, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(witness.folder / "vmlinuz", "r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x5a")
    with pytest.raises(VerificationError) as caught:
        check_guest(Recipe(witness.project, STAGES), witness.spec)
    assert caught.value.exit_code == 5
    assert caught.value.details == "C12 SHA256SUMS: vmlinuz has changed"
    shown = capsys.readouterr().out
    assert "FAIL C12 SHA256SUMS" in shown
    assert shown.count("FAIL") == 1


def test_a_program_is_told_of_every_check(
    witness: Witness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Answer()
    answer.is_wanted = True
    monkeypatch.setattr("pipeline.check.ANSWER", answer)
    witness.put("/etc/hostname", "other\n")
    with pytest.raises(VerificationError, match="failed"):
        check_guest(Recipe(witness.project, STAGES), witness.spec, as_json=True)
    answer.print(5, 1.0)
    told = json.loads(capsys.readouterr().out)
    assert told["guest"] == NAME
    (wrong,) = [finding for finding in told["findings"] if finding["subject"] == "hostname"]
    assert (wrong["level"], wrong["code"], wrong["seen"]) == ("error", "A4", "other")
    assert wrong["message"] == f"expected {wrong['expected']}, seen other"
    assert len(told["findings"]) > 50


def test_a_disk_that_its_guest_wrote_to_is_a_warning(witness: Witness) -> None:
    noted = witness.project.volume(NAME)
    noted.mkdir(parents=True)
    (noted / "written.json").write_text('{"disk.img": 1, "swap.img": 2}')
    witness.put("/var/log/x", "the guest was here\n")
    findings = witness.judge(with_sums=True)
    assert [finding.subject for finding in findings if finding.level == "warning"] == ["disks"]
    assert [finding for finding in findings if finding.level == "error"] == []


def test_a_disk_that_is_no_file_system_is_told_without_a_traceback(witness: Witness) -> None:
    witness.disk.write_bytes(bytes(1 << 20))
    with pytest.raises(VerificationError, match="no ext2, ext3 or ext4 file system"):
        witness.judge()


def test_a_running_guest_is_left_alone(witness: Witness) -> None:
    with open(witness.disk, "rb") as stream:
        holder = subprocess.Popen(["sleep", "60"], stdin=stream)
    try:
        with pytest.raises(InUseError, match="is in use by"):
            witness.judge()
    finally:
        holder.kill()
        holder.wait()


def test_a_guest_that_was_not_built_says_what_to_do(
    built: tuple[Path, Spec, Path], tmp_path: Path
) -> None:
    project = Project(tmp_path, tmp_path / "output", built[2])
    with pytest.raises(PipelineError) as caught:
        check_guest(Recipe(project, STAGES), built[1])
    assert caught.value.hint == f"build it first: doit build name={NAME}"
