"""Guides about guests that move: their lines as they stand there, as far as this machine goes."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.host.small_artifact import make_artifact, make_kernel, put_in_partition
from tests.workshop import ROOT, Workshop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
RUN_HERE = ("sha256sum ", "qemu-img check ")


def lines_of(page: str) -> list[str]:
    """What a reader types, in order."""
    text = (ROOT / "docs/how-to" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return (
        "".join(block for language, block in blocks if not language)
        .replace("\\\n", " ")
        .splitlines()
    )


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("guides")
    kernel = make_kernel(root / "kernel", "6.1.0-1-test")
    for name in ("web1", "template1"):
        folder = root / "output/guests" / name
        folder.mkdir(parents=True)
        make_artifact(folder, name, kernel=kernel)
        put_in_partition(folder, root / f"tree-{name}")
    return root / "output"


@pytest.fixture
def shop(output: Path, tmp_path: Path) -> Workshop:
    for name in ("guests", "images"):
        (tmp_path / name).mkdir()
    return Workshop(output, tmp_path / "guests")


@pytest.mark.parametrize("page", ["to-kvm.md", "first-template.md"])
def test_what_is_exported_is_what_the_other_host_checks(
    shop: Workshop, tmp_path: Path, page: str
) -> None:
    images = tmp_path / "images"
    ran = []
    for line in lines_of(page):
        if line.startswith("./doit export "):
            shop.doit(*shlex.split(line.replace("/srv/images", str(images)))[1:], ends=0)
            ran.append(line)
        elif line.startswith(RUN_HERE):
            subprocess.run(shlex.split(line), cwd=images, check=True)
    assert ran
    assert (images / "SHA256SUMS").is_file()


def test_a_kvm_disk_is_looked_at_by_the_line_of_its_guide(shop: Workshop, tmp_path: Path) -> None:
    """The rest of it is tests/boot/test_adopt.py: a Debian of KVM's, adopted and booted."""
    shop.doit("export", "name=web1", "format=qcow2", f"to={tmp_path}/images", ends=0)
    line = next(line for line in lines_of("from-kvm.md") if line.endswith("dry=yes"))
    words = shlex.split(line.replace("/var/lib/libvirt", str(tmp_path)))[1:]
    outcome = shop.doit(*words)
    assert "the root file system is in partition 1 (ext4)" in outcome.said
    assert not (shop.output / "adopted").exists()


def test_the_terraform_and_packer_files_are_whole() -> None:
    text = (ROOT / "docs/how-to/first-template.md").read_text(encoding="utf-8")
    files = re.findall(r"^```(?:hcl|text)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(files) == 2
    for file in files:
        for opening, closing in ("{}", "[]", "()"):
            assert file.count(opening) == file.count(closing)
    named = set(re.findall(r"data\.(\w+\.\w+)\.", files[0]))
    made = {".".join(pair) for pair in re.findall(r'^data "(\w+)" "(\w+)"', files[0], re.MULTILINE)}
    assert named == made
