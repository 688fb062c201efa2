"""A package list comes from strangers: what reads it says one line, and holds its bounds."""

import json
from pathlib import Path

import pytest

from pipeline.errors import PipelineError, UsageError
from pipeline.project import Project
from pipeline.supply import bom
from pipeline.supply.bom import CYCLONEDX, SPDX, find_vulnerabilities
from tests.conftest import ROOT

pytestmark = pytest.mark.integration
ORDER = {
    "name": "web1",
    "suite": "bookworm",
    "arch": "amd64",
    "vendor": "debian",
    "serial": "5c1f5a0e-8d0c-5d3f-9d6e-1d1f1f3c0a51",
    "epoch": 1,
    "digests": [],
}
GOOD = "Package: hello\nStatus: install ok installed\nVersion: 2.10-3\nArchitecture: amd64\n"
EVIL = {
    "no version": GOOD.replace("Version: 2.10-3\n", ""),
    "no name": GOOD.replace("Package: hello\n", ""),
    "a version that is none": GOOD.replace("2.10-3", "\x00-/\x1b[2J"),
    "a state of two words": GOOD.replace("install ok installed", "installed"),
    "relations that are none": f"{GOOD}Depends: ((((((, | | [ <\n",
    "no text": "\udcff\udcfe\x00" * 100,
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(ROOT, tmp_path / "output", tmp_path)


def ask(project: Project, status: bytes) -> dict[str, bytes]:
    given = {"var/lib/dpkg/status": status}
    return dict(bom._ask(project, "web1", ORDER, given, (CYCLONEDX, SPDX)))


def test_markup_and_escapes_stay_text(project: Project) -> None:
    evil = f"{GOOD}Maintainer: <script>\x1b[2J <a@b>\nHomepage: javascript:alert(1)\n"
    said = ask(project, evil.encode())
    for content in said.values():
        assert b"\x1b" not in content
        json.loads(content)
    assert {one["name"] for one in json.loads(said[CYCLONEDX])["components"]} == {"hello"}


@pytest.mark.parametrize("kind", EVIL)
def test_a_status_that_is_none_is_one_line_or_a_bill(project: Project, kind: str) -> None:
    try:
        said = ask(project, EVIL[kind].encode("utf-8", "surrogateescape"))
    except PipelineError as error:
        assert "dpkg status cannot be read" in error.brief
        assert len(error.brief) < 500
    else:
        assert json.loads(said[CYCLONEDX])["bomFormat"] == "CycloneDX"
    assert not list((project.scratch).glob("bom-*"))


@pytest.mark.parametrize("text", [b"{", b"[1]", b'{"hello": {"CVE-1": 5}}', b"\xff" * 9])
def test_a_tracker_that_is_none_is_one_line(project: Project, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "tracker.json").write_bytes(text)
    bill = ask(project, f"{GOOD}Source: hello (2.10-3)\n".encode())[CYCLONEDX]
    with pytest.raises(PipelineError, match="no file of Debian's security tracker"):
        find_vulnerabilities(project, "web1", "bookworm", bill, tmp_path / "tracker.json")
    with pytest.raises(UsageError, match="no such file"):
        find_vulnerabilities(project, "web1", "bookworm", bill, tmp_path / "none.json")
