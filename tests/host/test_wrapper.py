"""The wrapper: from any folder, through links, without a network, over a half made .venv."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.integration


def call(
    *argv: str | Path, cwd: Path, **environment: str | Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **{key: str(text) for key, text in environment.items()}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of guests, and another folder to stand in."""
    for name in ("guests", "here", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "guests/web1.toml").write_text("")
    return tmp_path


def test_through_a_link_on_the_path_from_any_folder(site: Path) -> None:
    (site / "second").symlink_to(ROOT / "doit")
    (site / "bin/domu").symlink_to("../second")
    path = f"{site}/bin:{os.environ['PATH']}"
    done = call("domu", "why", "name=web2", cwd=site / "here", PATH=path, DOMU_GUESTS="../guests")
    assert done.returncode == 2, done.stderr
    assert "or make it: domu create name=web2" in done.stderr
    assert not list((site / "here").iterdir())


def test_what_was_typed_is_what_is_printed(site: Path) -> None:
    relative = os.path.relpath(ROOT / "doit", site / "here")
    for typed in (str(ROOT / "doit"), relative):
        done = call(typed, cwd=site / "here", DOMU_GUESTS=site / "guests")
        assert f"  {typed} build name=NAME" in done.stdout, done.stderr
    assert "\n  ./doit build name=NAME" in call("./doit", cwd=ROOT).stdout
    assert "\n  ./doit build name=NAME" in call("sh", "doit", cwd=ROOT).stdout


def test_a_relative_path_is_meant_from_where_it_was_typed(site: Path) -> None:
    key = site / "here/k.pub"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key.with_suffix("")])
    done = call(
        *(ROOT / "doit", "why", "name=web1", "authorized_keys=k.pub", "events=e.jsonl"),
        cwd=site / "here",
        DOMU_GUESTS=site / "guests",
        DOMU_OUTPUT=site / "output",
    )
    assert done.returncode == 0, done.stderr
    assert (site / "here/e.jsonl").is_file()
    assert not (ROOT / "e.jsonl").exists()
    key.unlink()
    done = call(ROOT / "doit", "why", "name=web1", "authorized_keys=k.pub", cwd=site / "here")
    assert done.returncode == 2


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A checkout that was never used."""
    folder = tmp_path / "fresh"
    folder.mkdir()
    for path in (ROOT / "doit", ROOT / "system-packages.txt", *ROOT.glob("requirements*.lock")):
        shutil.copy(path, folder)
    return folder


def test_a_mirror_of_python_packages_that_is_not_there_is_told_in_seconds(fresh: Path) -> None:
    nobody = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PYTHON": sys.executable}
    started = time.monotonic()
    done = call("./doit", "build", cwd=fresh, **nobody)
    assert done.returncode == 3, done.stderr
    assert "requirements.lock could not be fetched" in done.stderr
    for word in ("PyPI cannot be reached", "PIP_INDEX_URL", "PIP_CERT", "PIP_FIND_LINKS"):
        assert word in done.stderr
    assert time.monotonic() - started < 60
    assert not (fresh / ".venv/installed.lock").exists()


def test_a_half_made_venv_is_mended_by_the_next_run(fresh: Path) -> None:
    (fresh / ".venv/bin").mkdir(parents=True)
    (fresh / ".venv/bin/python").symlink_to(sys.executable)
    (fresh / "requirements.lock").write_text("")
    (fresh / "pipeline").mkdir()
    (fresh / "pipeline/__main__.py").write_text("import sys; print('ran', sys.prefix)")
    done = call("./doit", "help", cwd=fresh, PYTHON=shutil.which("python3", path="/usr/bin") or "")
    assert (done.returncode, done.stdout) == (0, f"ran {fresh}/.venv\n"), done.stderr
    assert (fresh / ".venv/bin/pip").is_file()


@pytest.mark.parametrize(
    ("words", "installed", "is_enough"),
    [
        ("build", "requirements.lock", True),
        ("build", "requirements-supply.lock", True),
        ("push name=web1 host=xcp1", "requirements.lock", False),
        ("push name=web1 host=xcp1", "requirements-export.lock", False),
        ("push name=web1 host=xcp1", "requirements-fleet.lock", True),
        ("publish name=web1", "requirements.lock", False),
        ("publish name=web1", "requirements-export.lock", False),
        ("publish name=web1", "requirements-supply.lock", True),
        ("publish name=web1", "requirements-test.lock", True),
        ("install name=web1 from=/srv/web1", "requirements.lock", True),
        ("install name=web1 from=https://images.example.org", "requirements.lock", False),
        ("test", "requirements-supply.lock", False),
    ],
)
def test_what_signs_is_installed_for_those_who_sign(
    fresh: Path, words: str, installed: str, is_enough: bool
) -> None:
    (fresh / ".venv/bin").mkdir(parents=True)
    python = fresh / ".venv/bin/python"
    python.write_text('#!/bin/sh\necho "python $*"\n')
    python.chmod(0o755)
    shutil.copy(fresh / installed, fresh / ".venv/installed.lock")
    done = call("./doit", *words.split(), cwd=fresh, PYTHON="/bin/false")
    assert ("making .venv" not in done.stderr) == is_enough, done.stderr
    if is_enough:
        assert done.stdout == f"python -m pipeline {words}\n"


def test_what_tests_are_asked_by_reaches_them_and_nothing_else(fresh: Path) -> None:
    for name in ("dodo.py", "pipeline"):
        (fresh / name).symlink_to(ROOT / name)
    (fresh / ".venv/bin").mkdir(parents=True)
    shutil.copy(Path(sys.prefix, "pyvenv.cfg"), fresh / ".venv")
    (fresh / ".venv/lib").symlink_to(Path(sys.prefix, "lib"))
    (fresh / ".venv/bin/python").symlink_to(sys.executable)
    (fresh / ".venv/bin/pytest").write_text("#!/bin/sh\nenv\n")
    (fresh / ".venv/bin/pytest").chmod(0o755)
    shutil.copy(fresh / "requirements-test.lock", fresh / ".venv/installed.lock")
    asked = {"CI": "true", "DOMU_TEST_DAY": "7", "KILL_STRIDE": "1", "DOMU_PROOF_PATIENCE": "2"}

    done = call("./doit", "test", cwd=fresh, **asked, DOMU_GUESTS=fresh, OTHER="1")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for name, text in asked.items():
        assert lines.count(f"{name}={text}") == 2, done.stdout
    assert not [line for line in lines if line.startswith(("DOMU_GUESTS=", "OTHER="))]
