"""Guests that were not built here: what xen-create-image makes does not pass, and is told why."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.errors import GuestFailed
from pipeline.mirror.apt_sources import host_archive
from pipeline.proof.evidence import Evidence
from pipeline.proof.session import Asked
from tests.boot.conftest import Prover
from tests.boot.faults import copy_artifact
from tests.conftest import require
from tests.turns import in_turn

pytestmark = [
    pytest.mark.integration,
    pytest.mark.build,
    in_turn("boot", "what xen-create-image makes"),
    pytest.mark.timeout(3000),
]


@pytest.fixture
def enx(tmp_path: Path) -> Path:
    """The configuration of a bookworm guest by xen-create-image, as its users call it."""
    require(shutil.which("xen-create-image") is not None, "xen-tools is not installed")
    require(os.geteuid() == 0, "xen-create-image wants root")
    words = ["xen-create-image", "--hostname=enx", "--dist=bookworm", f"--dir={tmp_path}"]
    words += [f"--mirror={host_archive('debian')}", "--size=2G", "--swap=128M", "--memory=512M"]
    words += ["--dhcp", "--genpass=0", "--cache=no", "--role=udev", f"--output={tmp_path}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return tmp_path / "enx.cfg"


def test_xen_create_images_bookworm_reaches_its_prompt_and_no_network(
    prover: Prover, enx: Path
) -> None:
    with pytest.raises(GuestFailed) as caught:
        prover.prove_foreign(enx)

    assert "asked for no address" in caught.value.brief
    assert "the card was renamed: udev calls it enX0" in caught.value.hint
    assert re.search(r"FAIL address by DHCP +nothing", caught.value.details)
    assert re.search(r"  \| .*enx login:", caught.value.details)


def test_with_too_little_memory_it_is_told_that(prover: Prover, enx: Path) -> None:
    text = re.sub(r"(?m)^memory .*", "memory = '256'", enx.read_text())
    enx.write_text(re.sub(r"(?m)^name .*", "name = 'enx-small'", text))

    with pytest.raises(GuestFailed) as caught:
        prover.prove_foreign(enx)

    assert "memory= is too small" in caught.value.hint


def test_a_sound_guest_is_proven_from_its_configuration_alone(
    prover: Prover, tmp_path: Path
) -> None:
    copied = copy_artifact(prover.build("test-drbd"), tmp_path / "test-drbd")

    evidence: Evidence = prover.prove_foreign(copied.configuration, Asked())

    assert evidence.verdict == "proven"
    assert evidence.injected["into"] == "the overlay of disk.img"
    held = {check.subject for check in evidence.checks if check.level == "ok"}
    assert {"SSH with the key", "another key is refused", "default route", "xl shutdown"} <= held
    assert "hostname -f" not in held
    assert evidence.facts["foreign"] is True
