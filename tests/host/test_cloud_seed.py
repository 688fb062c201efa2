"""A template's disk and its seed as a build leaves them."""

import json
from pathlib import Path

import pytest

from pipeline.process import run
from pipeline.storage.ext import ExtImage
from tests import small

pytestmark = [pytest.mark.integration]
TEMPLATE = "cloud_init = true\n"
OWN = ("/etc/hostname", "/etc/ssh/ssh_host_ed25519_key", "/etc/systemd/network/10-card0.network")


def read(image: Path, name: str) -> str:
    return run(["mtype", "-i", image, f"::{name}"])


def test_the_seed_says_who_the_guest_is_and_its_disk_does_not(tmp_path: Path) -> None:
    project = small.make_project(tmp_path, "web1", "web2", text=f"{TEMPLATE}seed = {{}}\n")
    folders = {name: small.build(project, name) for name in ("web1", "web2")}
    for name, folder in folders.items():
        facts = run(["blkid", "-p", "-o", "export", folder / "seed.img"])
        assert "LABEL=cidata\n" in facts and "TYPE=vfat\n" in facts
        assert json.loads(read(folder / "seed.img", "meta-data"))["local-hostname"] == name
        keys = read(folder / "seed.img", "vendor-data")
        public = (folder / "known_hosts").read_text().splitlines()[0].split()[2]
        assert public in keys
        with ExtImage(folder / "disk.img") as image:
            assert not [path for path in OWN if image.find(path)]
        assert "access=ro" in (folder / f"{name}.cfg").read_text()
    again = small.build(project, "web1", replace=True)
    assert again == folders["web1"]


def test_a_template_without_a_seed_has_no_further_disk_and_no_known_keys(tmp_path: Path) -> None:
    project = small.make_project(tmp_path, "web1", text=TEMPLATE)
    folder = small.build(project, "web1")
    assert not (folder / "seed.img").exists()
    assert (folder / "known_hosts").read_text() == ""
    assert not (project.identity("web1") / "machine-id").exists()
