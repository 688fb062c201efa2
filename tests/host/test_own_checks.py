"""The tests' own checks, each seen to fail: a skip in CI, and what a test leaves behind."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.workshop import run_program

pytestmark = pytest.mark.integration
SEEDED = """
import subprocess, tempfile
from pathlib import Path
import pytest
from tests import leaks
from tests.conftest import require
leaks.SETTLE_S = 0.5
pytestmark = pytest.mark.integration
left = []

@pytest.fixture(scope="module", autouse=True)
def end():
    yield
    left[0].kill()
    left[0].wait()

def test_good(): pass
def test_required(): require(False, "a tool")
def test_skipped(): pytest.skip("for no reason")
@pytest.mark.skip(reason="by a mark")
def test_marked(): pass
def test_left():
    left.append(subprocess.Popen(["sleep", "1000"]))
    Path(tempfile.gettempdir(), "tmp.seeded").touch()
"""


def test_what_is_left_out_in_ci_or_left_behind_fails(tmp_path: Path) -> None:
    (tmp_path / "test_seeded.py").write_text(SEEDED)
    (tmp_path / "tmp").mkdir()
    words = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml"]
    words += [f"--basetemp={tmp_path / 'base'}", tmp_path / "test_seeded.py"]
    own = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    done = run_program(
        [sys.executable, "-m", "pytest", *words],
        {**own, "CI": "true", "TMPDIR": str(tmp_path / "tmp")},
    )
    failed = set(re.findall(r"^(?:ERROR|FAILED) \S*::(\w+) - (\w+)", done.stdout, re.MULTILINE))
    skipped = {(f"test_{name}", "CI") for name in ("required", "skipped", "marked")}
    assert failed == {*skipped, ("test_left", "AssertionError")}, done.stdout
    assert re.search(r"'\d+ sleep'.*'tmp\.seeded'", done.stdout), done.stdout
    last = done.stdout.splitlines()[-1].strip("= ")
    assert last.startswith("2 failed, 2 passed, 2 errors in "), last
