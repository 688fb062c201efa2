"""Which folder is the user's own: DOMU_SITE, the marker above where one stands, the checkout."""

import os
from datetime import date
from pathlib import Path

import pytest

from pipeline import ROOT
from pipeline.errors import EnvironmentFault, UsageError
from pipeline.preflight import Machine, look_ahead
from pipeline.project import Project
from pipeline.site import MARKER
from pipeline.stages import rootfs
from tests.specs import make_spec


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "guests" / "deep").mkdir(parents=True)
    (folder / MARKER).write_text("version = 1\n")
    return folder


def test_without_a_site_the_checkout_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMU_CALLER", str(tmp_path))
    project = Project.here()
    assert (project.site, project.guests) == (None, ROOT / "guests")
    assert (project.output, project.mirrors) == (ROOT / "output", ROOT / "mirrors")
    assert project.elements == [ROOT / "elements"]


@pytest.mark.parametrize("below", ["", "guests", "guests/deep"])
def test_a_site_is_found_from_any_folder_in_it(
    site: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMU_CALLER", str(site / below))
    project = Project.here()
    assert (project.root, project.site) == (ROOT, site)
    assert (project.guests, project.output) == (site / "guests", site / "output")
    assert project.mirrors == site / "mirrors"


def test_what_is_named_wins_over_where_the_user_stands(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    (other / "elements").mkdir(parents=True)
    (other / MARKER).touch()
    monkeypatch.setenv("DOMU_CALLER", str(site))
    monkeypatch.setenv("DOMU_SITE", "../other")
    monkeypatch.setenv("DOMU_OUTPUT", "out")
    project = Project.here()
    assert project.guests.resolve() == other / "guests"
    assert project.output == site / "out"
    assert [path.resolve() for path in project.elements] == [other / "elements", ROOT / "elements"]


def test_a_folder_that_is_no_site_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMU_SITE", str(tmp_path))
    with pytest.raises(UsageError, match="no site"):
        Project.here().require_site()


def test_the_site_of_somebody_else_is_not_used_for_standing_in_it(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMU_CALLER", str(site))
    monkeypatch.setattr(os, "geteuid", lambda: (site / MARKER).stat().st_uid + 7)
    if (site / MARKER).stat().st_uid == 0:
        os.chown(site / MARKER, 65534, 65534)
    with pytest.raises(EnvironmentFault, match="another user"):
        Project.here()
    monkeypatch.setenv("DOMU_SITE", str(site))
    assert Project.here().site == site


def test_an_artifact_does_not_know_which_site_it_was_made_in(tmp_path: Path) -> None:
    made = []
    for name, content in (("a", "x"), ("b", "x"), ("c", "y")):
        home = tmp_path / name
        (home / "elements/mine").mkdir(parents=True)
        (home / "elements/mine/README.rst").write_text(name)
        (home / "elements/mine/element-provides").write_text(content)
        project = Project(ROOT, home / "output", home / "guests", home)
        made.append(rootfs.inputs(make_spec(name="tiny", elements=["mine"]), project))
    assert made[0] == made[1] != made[2]


def test_an_element_that_stands_in_for_a_shipped_one_is_said(tmp_path: Path) -> None:
    (tmp_path / "elements/lean-boot").mkdir(parents=True)
    project = Project(ROOT, tmp_path / "output", tmp_path / "guests", tmp_path)
    findings = look_ahead(make_spec(), project, Machine("x86_64", lambda: True, date(2026, 1, 1)))
    said = [finding.text for finding in findings if finding.subject == "elements"]
    assert said == ["the site's element 'lean-boot' is used, not the shipped one"]
