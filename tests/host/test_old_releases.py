"""etch and lenny from an archive with their layout, by debootstrap's own scripts for them."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from pipeline.archive.snapshot import read_snapshot
from pipeline.preflight import has_vsyscall
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.stages import base, mirror
from tests.conftest import ROOT, require
from tests.host.archives import Keys
from tests.host.misbehaving import MisbehavingMirror
from tests.host.old_archive import publish_old

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("suite", ["etch", "lenny"])
def test_an_old_release_is_bootstrapped_with_its_own_script_and_layout(
    tmp_path: Path, keys: Keys, old_key: str, suite: str
) -> None:
    require(os.geteuid() == 0, "debootstrap needs root")
    require(shutil.which("debootstrap") is not None, "needs debootstrap")
    require(has_vsyscall(), "the build host's kernel has no vsyscall")
    publish_old(tmp_path / "srv", keys, old_key, suite)
    ring = keys.export(tmp_path / "removed-keys.gpg", old_key)
    project = Project(ROOT, tmp_path / "output", tmp_path / "guests")
    with MisbehavingMirror(tmp_path / "srv") as archive:
        spec = Spec.model_validate(
            {
                "name": "old1",
                "suite": suite,
                "bootstrap": "debootstrap",
                "mirror": archive.url,
                "keyring": str(ring),
                "security": False,
            }
        )
        recipe = Recipe(project, [mirror.STAGE, base.STAGE])
        snapshot = read_snapshot(recipe.build("mirror", spec).folder)
        assert {path.name for path in snapshot.signed_files(snapshot.sources[0])} == {
            "Release-main",
            "Release-main.gpg",
        }
        state = recipe.build("base", spec)
    with tarfile.open(state.folder / "base.tar") as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
        status = tar.extractfile("./var/lib/dpkg/status")
        assert status is not None
        installed = status.read().decode()
    assert {"etc/inittab", "sbin/init", "etc/passwd", "var/lib/sysvinit-configured"} <= names
    assert "Package: udev\n" in installed and "Package: sysvinit\n" in installed
    assert installed.count("Status: install ok installed") == installed.count("Package: ")
