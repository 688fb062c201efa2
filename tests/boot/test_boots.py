"""One disk, started in every way that it has: under Xen by GRUB, SeaBIOS, UEFI; in plain QEMU."""

import shutil
import tarfile
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import Finding
from pipeline.files import digest_file
from pipeline.formats.xva_reader import take_out
from pipeline.process import run
from pipeline.proof.boots import BOOTS
from pipeline.proof.evidence import Evidence
from pipeline.proof.prove import prove
from pipeline.proof.session import Asked
from pipeline.spec import Spec
from pipeline.spec.domain import FIRMWARE_FILE
from pipeline.stages import firmware
from tests.boot.conftest import Prover
from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [
    pytest.mark.integration,
    pytest.mark.build,
    pytest.mark.timeout(6000),
]
WHOLE = 'suite = "bookworm"\ndisk = "whole"\nboot = "grub"\nmemory = "512M"\n'


@pytest.fixture
def whole(prover: Prover, tmp_path: Path) -> Prover:
    """A prover of a guest on a whole disk, which lets only the proof's own key in."""
    guests = tmp_path / "guests"
    guests.mkdir()
    (guests / "everywhere.toml").write_text(WHOLE)
    return Prover(Workshop(prover.workshop.output, guests), prover.key)


def prove_boots(whole: Prover, *boots: str, key: Path | None = None) -> Evidence:
    def make_firmware(spec: Spec) -> Path:
        own = firmware.own_spec(spec)
        return whole.recipe.build_beside(firmware.STAGE, own) / FIRMWARE_FILE

    whole.build("everywhere")
    asked = Asked(key, boots=boots)
    return prove(whole.recipe, whole.spec("everywhere"), asked, make_firmware)


def see(evidence: Evidence, *boots: str) -> dict[str, Finding]:
    """Every start came to its end, from the same bytes."""
    assert evidence.verdict == "proven"
    told = evidence.facts["boots"]
    assert list(told) == [boot for boot in BOOTS if boot in boots]
    assert all(entry["login_s"] > 0 and not entry["failed"] for entry in told.values())
    assert evidence.facts["sha256"]["before"] == evidence.facts["sha256"]["after"]
    return {check.subject: check for check in evidence.checks}


@in_turn("boot", "one image, four boots")
def test_one_image_boots_in_four_ways(whole: Prover) -> None:
    four = ("pvh", "hvm", "qemu", "qemu-uefi")
    seen = see(prove_boots(whole, *four), *four)

    for boot in four:
        assert seen[f"{boot}: root on the command line"].seen.startswith("root=UUID=")
        assert seen[f"{boot}: SSH with the key"].level == "ok"
        wanted = "uefi" if boot.endswith("uefi") else "bios"
        assert seen[f"{boot}: firmware"].seen == wanted
    assert seen["qemu: login prompt on ttyS0"].level == "ok"
    assert seen["qemu: power off"].seen == seen["qemu-uefi: power off"].seen == "powered down"


@in_turn("boot", "UEFI under Xen")
def test_the_same_image_boots_by_uefi_under_xen(whole: Prover) -> None:
    both = ("pvh-uefi", "hvm-uefi")
    seen = see(prove_boots(whole, *both), *both)

    for boot in both:
        assert seen[f"{boot}: firmware"].seen == "uefi"
        assert seen[f"{boot}: SSH with the key"].level == "ok"
        assert seen[f"{boot}: xl shutdown"].level == "ok"


def take_disk(container: Path, form: str, folder: Path) -> Path:
    """The disk in what another system takes, as a raw file."""
    if form == "xva":
        (found,) = take_out(container, folder, partial(run, log=None)).disks
        return folder / found.file
    if form == "ova":
        with tarfile.open(container) as archive:
            archive.extractall(folder, filter="data")
        (container,) = folder.glob("*.vmdk")
    kinds = {"ova": "vmdk", "vhd": "vpc"}
    run(["qemu-img", "convert", "-f", kinds[form], "-O", "raw", container, folder / "disk.raw"])
    return folder / "disk.raw"


@in_turn("boot", "one image, four boots")
@pytest.mark.parametrize(
    ("suite", "form"), [("bookworm", "ova"), ("bookworm", "vhd"), ("trixie", "xva")]
)
def test_a_disk_boots_that_was_taken_out_of_a_container(
    whole: Prover, tmp_path: Path, suite: str, form: str
) -> None:
    toml = whole.workshop.guests / "everywhere.toml"
    toml.write_text(toml.read_text().replace("bookworm", suite))
    disk = whole.build("everywhere") / "disk.img"
    container, folder = tmp_path / f"web1.{form}", tmp_path / "out"
    folder.mkdir()
    whole.workshop.doit("export", "name=everywhere", f"format={form}", f"to={container}", ends=0)
    taken = take_disk(container, form, folder)
    assert digest_file(taken) == digest_file(disk)
    shutil.move(taken, disk)

    evidence = prove_boots(whole, "qemu", key=whole.key)

    seen = see(evidence, "qemu")
    assert not evidence.injected
    assert seen["qemu: SSH with the key"].level == "ok"
    assert seen["qemu: power off"].seen == "powered down"
