"""What a proof seals: the image that a copy-on-write disk rests on, a volume."""

import os
from pathlib import Path

import pytest

from pipeline.artifact.sums import measure_file
from pipeline.errors import PipelineError
from pipeline.process import run
from pipeline.proof.artifact import read_foreign
from pipeline.storage.images import make_overlay
from tests.conftest import require

pytestmark = [pytest.mark.integration]


def test_the_image_that_a_disk_rests_on_is_sealed_and_must_be_there(tmp_path: Path) -> None:
    golden, disk = tmp_path / "golden.img", tmp_path / "disk.qcow2"
    golden.write_bytes(bytes(1 << 20))
    make_overlay(run, disk, golden=golden, size_bytes=1 << 20)
    configuration = tmp_path / "web1.cfg"
    configuration.write_text(
        f"name = 'web1'\nkernel = '{disk}'\ndisk = [ 'format=qcow2,vdev=xvda,target={disk}' ]\n"
    )

    artifact = read_foreign(configuration, tmp_path / "proofs")

    assert artifact.golden == [golden]
    assert artifact.digests()["golden.img"]["kind"] == "fs-verity"
    golden.unlink()
    with pytest.raises(PipelineError, match=r"golden\.img, which does not exist"):
        read_foreign(configuration, tmp_path)


def test_a_volume_is_sealed_as_a_file_with_the_same_bytes(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "a loop device wants root")
    image = tmp_path / "disk.img"
    with open(image, "wb") as stream:
        stream.truncate(8 << 20)
        stream.seek(3 << 20)
        stream.write(os.urandom(1 << 20))
    device = Path(run(["losetup", "--find", "--show", image]).strip())
    try:
        assert measure_file(device) == measure_file(image)
    finally:
        run(["losetup", "--detach", device])
