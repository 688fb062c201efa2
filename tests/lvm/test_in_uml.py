"""The tests below inside/, run with real LVM in one boot of User-Mode Linux; see tests/uml.py."""

import ast
import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import ROOT, require
from tests.lvm.conftest import IN_UML
from tests.turns import spread, times_in_turn
from tests.uml import missing_uml, run_in_uml

pytestmark = [pytest.mark.integration, pytest.mark.timeout(2400)]
BOOT_S = 2300  # minutes on a quiet machine
INSIDE = Path(__file__).with_name("inside")
DISK_MIB = 768
DAYS = 2


def names_of(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [f"{path.name}::{node.name}" for node in functions if node.name.startswith("test_")]


TESTS = [name for path in sorted(INSIDE.glob("test_*.py")) for name in names_of(path)]


def _asked() -> list[str]:
    """KILL_STRIDE=1 kills at every command, else it is every sixth, from another one each time."""
    stride = [f"KILL_STRIDE={os.environ['KILL_STRIDE']}"] if "KILL_STRIDE" in os.environ else []
    return [f"{IN_UML}=1", f"DOMU_TEST_DAY={times_in_turn(DAYS)}", *stride]


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[str]]:
    """Each inner test of those asked for: what went wrong in each case, "" for a good one."""
    require(not missing_uml(), missing_uml())
    names = [item.name for item in request.session.items if item.path == request.path]
    asked = [INSIDE / name for name in TESTS if f"{test_with_real_lvm.__name__}[{name}]" in names]
    work = tmp_path_factory.mktemp("uml")
    disks = [work / "pv.img", work / "spare.img"]
    for disk in disks:
        with open(disk, "wb") as stream:
            stream.truncate(DISK_MIB << 20)
    report = "--junitxml=/mnt/results/report.xml"
    argv = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"]
    argv += ["-o", "timeout=0", report, *map(str, asked)]
    ended = run_in_uml(work, argv, folder=ROOT, disks=disks, variables=_asked(), timeout_s=BOOT_S)
    written = work / "results/report.xml"
    assert written.is_file(), f"{ended.output}\n{ended.console}"
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(written).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name', '')}"
        wrong = [
            part.text or part.tag for part in case if part.tag in ("failure", "error", "skipped")
        ]
        found.setdefault(name.partition("[")[0], []).append("\n".join(wrong))
    return found


@pytest.mark.parametrize("name", spread(TESTS, DAYS))
def test_with_real_lvm(name: str, outcomes: dict[str, list[str]]) -> None:
    assert name in outcomes, "it did not run"
    wrong = "\n".join(filter(None, outcomes[name]))
    assert not wrong, wrong
