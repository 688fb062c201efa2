"""A proof knows the image that a copy-on-write disk rests on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.process import run
from pipeline.proof.artifact import read_foreign
from pipeline.storage.images import make_overlay

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
