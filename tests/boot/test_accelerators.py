"""Whether a processor can run Xen is found out by running it."""

from pathlib import Path

import pytest

from pipeline.project import Project
from pipeline.proof import accelerators, machine
from pipeline.proof.accelerators import TCG, Accelerator, choose_accelerator, try_accelerator
from pipeline.proof.testhost import ensure_host
from pipeline.recipe import Recipe
from pipeline.stages import STAGES
from tests.conftest import ROOT
from tests.specs import make_spec
from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(1800)]


@in_turn("boot", "what runs Xen")
def test_what_runs_xen_is_told_from_what_does_not(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workshop.output / "scratch").mkdir(parents=True, exist_ok=True)
    recipe = Recipe(Project(ROOT, workshop.output, workshop.guests), STAGES)
    host = ensure_host(recipe, make_spec(name="any"))
    words = machine.boot_words(host.folder, machine.TRIED_WORDS)
    log = tmp_path / "log"
    assert try_accelerator(TCG, words, tmp_path, log=log, timeout_s=120) == ""

    # with this model the emulator cannot run Xen: a stand-in for a KVM that cannot
    broken = Accelerator("kvm", ("-accel", "tcg", "-cpu", "qemu32"))
    assert try_accelerator(broken, words, tmp_path, log=log, timeout_s=5) != ""

    project = Project(ROOT, tmp_path, tmp_path)
    project.scratch.mkdir()
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accelerators, "DEVICE", device)
    monkeypatch.setattr(accelerators, "KVM", broken)
    monkeypatch.setattr(accelerators, "TRY_S", 5.0)
    assert choose_accelerator(project, words, is_nested=False, log=log) == TCG
    assert (tmp_path / "cache/kvm.json").is_file()
    monkeypatch.setattr(accelerators, "KVM", TCG)  # not tried again: the answer is kept
    assert choose_accelerator(project, words, is_nested=False, log=log) == TCG
    device.unlink()
    assert choose_accelerator(project, words, is_nested=False, log=log) == TCG
