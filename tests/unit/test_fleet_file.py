"""fleet.toml, DOMU_STORE and store=: which store a run shares, and whose certificates it takes."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentFault, SpecError, UsageError, WrongValueError
from pipeline.fleet.handshake import find_own_party
from pipeline.mirror.fetch import OFFLINE
from pipeline.project import Project
from pipeline.remote.place import open_place, refuse_others
from pipeline.shared.fleet_file import VARIABLE, check_store, find_certificates, find_store
from pipeline.walls.certificates import make_authority, make_party


def test_the_command_line_wins_over_the_environment_over_the_file(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_store(project, None) == ""
    project.fleet_file.write_text('store = "s3://file/store/"\ncertificates = "keys/of-fleet"\n')
    assert find_store(project, None) == "s3://file/store"
    monkeypatch.setenv(VARIABLE, "s3://environment/store")
    assert find_store(project, None) == "s3://environment/store"
    assert find_store(project, "s3://line/store") == "s3://line/store"
    assert find_store(project, "none") == ""
    monkeypatch.setenv(VARIABLE, "none")
    assert find_store(project, None) == "", "none is not asked further"
    assert find_certificates(project) == project.fleet_file.parent / "keys/of-fleet"


def test_mistakes_are_told_with_the_place_where_they_stand(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "ftp://host/x")
    with pytest.raises(UsageError, match="DOMU_STORE: 'ftp://host/x' is no URL of a store"):
        find_store(project, None)
    monkeypatch.delenv(VARIABLE)
    project.fleet_file.write_text("store = 7\nstor = 1\n")
    with pytest.raises(SpecError) as refusal:
        find_store(project, None)
    assert {problem.subject for problem in refusal.value.problems} == {"store", "stor"}


@pytest.mark.parametrize(
    "url",
    "s3://bucket s3://b/store sftp://me@host:2222/srv file:///srv/a http://h https://h/x".split(),
)
def test_urls_of_stores_are_known(url: str) -> None:
    assert check_store(url) == url


@pytest.mark.parametrize(
    "url",
    ["", "s3://", "file:///", "file://host/x", "/srv/store", "sftp://h:99999/x", "http://h/?a", 7],
)
def test_what_is_none_is_refused(url: object) -> None:
    with pytest.raises(WrongValueError):
        check_store(url)


def test_passwords_and_a_network_that_is_forbidden_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for url in ("sftp://me:word@host/x", "s3://key:word@bucket/x"):
        with pytest.raises(UsageError, match="a password in a URL"):
            open_place(url)
    monkeypatch.setenv(OFFLINE, "1")
    with pytest.raises(UsageError, match="offline=yes"):
        open_place("sftp://host/x")
    assert open_place("file:///srv/x").is_writable


def test_root_writes_to_no_folder_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    refuse_others(f"file://{folder}")
    folder.mkdir()
    refuse_others(f"file://{folder}")
    folder.chmod(0o777)
    if folder.stat().st_uid == 0:
        with pytest.raises(EnvironmentFault, match="others may write there"):
            refuse_others(f"file://{folder}")


def test_of_several_certificates_the_file_says_whose_is_meant(project: Project) -> None:
    now = datetime.now(UTC)
    make_authority(project.fleet, now)
    for name in ("build1", "build2"):
        make_party(project.fleet, name, [], now)
    with pytest.raises(UsageError, match="has the certificates of build1, build2") as refusal:
        find_own_party(project, None, None)
    assert 'party = "build1" in fleet.toml' in (refusal.value.hint or "")
    project.fleet_file.write_text('party = "build2"\n')
    own = find_own_party(project, None, None)
    assert own is not None and own.name == "build2"
    project.fleet_file.write_text('party = "desk"\n')
    with pytest.raises(UsageError, match="has no certificate of desk"):
        find_own_party(project, None, None)
