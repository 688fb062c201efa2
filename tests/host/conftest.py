"""Fixtures of the tests that need a real machine: a signed archive behind a faulty mirror."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.mirror import credentials, fetch, http_client, take_snapshot
from tests.conftest import require
from tests.host.archives import Keys, ReleaseForm, SmallArchive, missing_tools
from tests.host.bad_mirror import MisbehavingMirror
from tests.host.mirror_bench import Bench, lay_out

SHORT = http_client.Bounds(connect_s=1, silent_s=1, head_s=2)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    require(not missing_tools(), f"needs {', '.join(missing_tools())}")
    made = Keys(tmp_path_factory.mktemp("keys") / "home")
    yield made
    made.close()


@pytest.fixture(scope="module")
def good_key(keys: Keys) -> str:
    return keys.make("good")


@pytest.fixture(scope="module")
def old_key(keys: Keys) -> str:
    return keys.make("old", born_days_ago=1500, lives_days=900)


@pytest.fixture(scope="module")
def pristine(
    tmp_path_factory: pytest.TempPathFactory, keys: Keys, good_key: str
) -> tuple[Path, ReleaseForm]:
    root = tmp_path_factory.mktemp("archive") / "srv"
    return root, lay_out(root, keys, good_key)


@pytest.fixture
def bench(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keys: Keys,
    good_key: str,
    pristine: tuple[Path, ReleaseForm],
) -> Iterator[Bench]:
    monkeypatch.setattr(http_client, "BOUNDS", SHORT)
    monkeypatch.setattr(fetch, "PAUSE_S", 0.0)
    monkeypatch.setattr(take_snapshot, "RACE_PAUSE_S", 0.0)
    monkeypatch.setattr(credentials, "APT_FOLDER", tmp_path / "apt")
    root, form = pristine
    shutil.copytree(root, tmp_path / "srv")
    ring = keys.export(tmp_path / "keyring.gpg", good_key)
    archive = SmallArchive(tmp_path / "srv", keys)
    with MisbehavingMirror(tmp_path / "srv") as mirror:
        yield Bench(tmp_path / "project", archive, mirror, ring, form)
