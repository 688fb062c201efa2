"""`doit check` of a whole disk: as it was built, and with faults seeded around its root."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import VerificationError
from pipeline.report.disk_contents import opened_disk
from pipeline.spec import load_guest
from pipeline.storage import gpt
from pipeline.storage.gpt import MIB, SECTOR
from pipeline.storage.root_place import Place
from tests.host.witness import Witness, copy_witness
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build]
NAME = "everywhere"
ESP_AT, SWAP_MIB = 2 * MIB, 512
ROOT_AT = (2 + 64 + SWAP_MIB) * MIB
LOADER = "::/EFI/BOOT/BOOTX64.EFI"
TABLE, BIOS, EFI = "B3 partition table", "C2 GRUB for BIOS", "C2 GRUB for UEFI"


@pytest.fixture
def witness(workshop: Workshop, tmp_path: Path) -> Iterator[Witness]:
    spec = load_guest(NAME, guests_dir=workshop.guests)
    witness = copy_witness(workshop.built(NAME), spec, workshop.guests, tmp_path)
    yield witness
    witness.disk.unlink()


def patched(at: int, content: bytes) -> Callable[[Path], None]:
    """Bytes of the disk replaced, counted from its end where `at` is negative."""

    def seed(disk: Path) -> None:
        with open(disk, "r+b") as stream:
            stream.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
            stream.write(content)

    return seed


def run(*words: object) -> None:
    subprocess.run(list(map(str, words)), check=True, capture_output=True)


def without_loader(disk: Path) -> None:
    run("mdel", "-i", f"{disk}@@{ESP_AT}", LOADER)


def other_loader(disk: Path) -> None:
    run("mcopy", "-o", "-i", f"{disk}@@{ESP_AT}", "/bin/true", LOADER)


def other_uuid(disk: Path) -> None:
    run("tune2fs", "-f", "-U", "random", Place(disk=disk, offset=ROOT_AT, size=MIB).name)


def cut(disk: Path) -> None:
    os.truncate(disk, disk.stat().st_size - MIB)


FAULTS: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "no protective MBR": (patched(510, b"\0\0"), {TABLE}),
    "no first header": (patched(SECTOR, bytes(8)), {TABLE}),
    "a changed first header": (patched(SECTOR + 40, b"\1"), {TABLE}),
    "a changed first table": (patched(2 * SECTOR + 56, b"x"), {TABLE}),
    "no second header": (patched(-SECTOR, bytes(8)), {TABLE}),
    "a changed second table": (patched(-33 * SECTOR + 56, b"x"), {TABLE}),
    "a shorter disk": (cut, {TABLE, "B3 disk size"}),
    "no boot sector": (patched(0, bytes(440)), {BIOS}),
    "another core.img": (patched(MIB + 9000, bytes(64)), {BIOS}),
    "no loader for UEFI": (without_loader, {EFI}),
    "another loader for UEFI": (other_loader, {EFI}),
    "no FAT": (patched(ESP_AT, bytes(SECTOR)), {EFI}),
    "no swap": (patched(66 * MIB, bytes(4096)), {"A25 swap"}),
    "another UUID of the root": (other_uuid, {"C2 root in the menu"}),
}


def test_a_whole_disk_as_built_passes_every_check(witness: Witness) -> None:
    findings = witness.judge(with_sums=True)
    assert [finding for finding in findings if finding.level == "error"] == []
    subjects = {finding.subject for finding in findings}
    assert subjects >= {"partition table", "partitions", "GRUB for BIOS", "GRUB for UEFI"}
    with opened_disk(witness.folder, NAME, witness.scratch) as image:
        assert image.find("/etc/fstab") is not None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_seeded_into_a_whole_disk_is_found(witness: Witness, fault: str) -> None:
    seed, expected = FAULTS[fault]
    seed(witness.disk)
    assert witness.failures() == expected


def test_a_disk_without_any_table_has_no_root_to_read(witness: Witness) -> None:
    patched(SECTOR, bytes(8))(witness.disk)
    patched(-SECTOR, bytes(8))(witness.disk)
    with pytest.raises(VerificationError, match="its partition table has no root of this guest"):
        witness.judge()
    with open(witness.disk, "rb") as stream:
        assert gpt.find_faults(stream) == ["no first header", "no second header"]
