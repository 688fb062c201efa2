"""A guest with `format = "xva"`: the file that a pool imports, beside the disk that it holds."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.formats.xva_reader import take_out
from pipeline.process import run
from pipeline.spec import load_guest
from tests.host.witness import Witness, copy_witness
from tests.workshop import Workshop
from tests.xva_import import import_xva

pytestmark = [pytest.mark.integration, pytest.mark.build]
NAME = "pool1"
SPEC = """\
suite = "bookworm"
type = "hvm"
boot = "firmware"
format = "xva"
size = "600M"
swap = "0"
"""


@pytest.fixture(scope="module")
def shop(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """The guest with nothing new but its own disk."""
    workshop.built("everywhere")
    folder = tmp_path_factory.mktemp("pool")
    guests, output = folder / "guests", folder / "output"
    for path in (guests, output):
        path.mkdir()
    for name in ("store", "cache"):
        (output / name).symlink_to((workshop.output / name).resolve())
    (guests / f"{NAME}.toml").write_text(SPEC)
    made = Workshop(output, guests)
    made.built(NAME)
    yield made
    shutil.rmtree(folder)


@pytest.fixture
def witness(shop: Workshop, tmp_path: Path) -> Iterator[Witness]:
    spec = load_guest(NAME, guests_dir=shop.guests)
    witness = copy_witness(shop.output / "guests" / NAME, spec, shop.guests, tmp_path)
    yield witness
    witness.disk.unlink()


def test_an_importer_takes_it_and_gets_the_disk(shop: Workshop, tmp_path: Path) -> None:
    folder = shop.output / "guests" / NAME
    xva = folder / f"{NAME}.xva"
    assert xva.stat().st_mode & 0o777 == 0o600
    (imported,) = import_xva(xva.read_bytes()).disks.values()
    assert imported == (folder / "disk.img").read_bytes()
    said = shop.outcomes[NAME].said
    assert f"xe vm-import filename={xva}" in said
    assert f"doit push name={NAME} host=" in said
    (found,) = take_out(xva, tmp_path, run).disks
    os.replace(tmp_path / found.file, tmp_path / "disk.img")
    run(["cmp", tmp_path / "disk.img", folder / "disk.img"])


def test_as_built_it_passes_every_check(witness: Witness) -> None:
    findings = witness.judge(with_sums=True)
    assert [finding for finding in findings if finding.level == "error"] == []
    (one,) = [finding for finding in findings if finding.subject == f"{NAME}.xva"]
    assert one.seen == "as an importer demands, with the disk beside it"


@pytest.mark.parametrize("fault", ["a byte", "cut", "gone"])
def test_a_damaged_one_is_found(witness: Witness, fault: str) -> None:
    xva = witness.folder / f"{NAME}.xva"
    if fault == "gone":
        xva.unlink()
    elif fault == "cut":
        os.truncate(xva, xva.stat().st_size // 2)
    else:
        with open(xva, "r+b") as stream:
            stream.seek(xva.stat().st_size // 2)
            byte = stream.read(1)[0]
            stream.seek(-1, os.SEEK_CUR)
            stream.write(bytes([byte ^ 1]))
    assert witness.failures() == {f"D8 {NAME}.xva"}
