"""dpkg itself is asked: what we take for a name is one for dpkg too, and nothing usual is lost."""

import random
import subprocess
from collections.abc import Callable

import pytest

from pipeline.errors import PipelineError
from pipeline.walls import package_names as names
from tests.unit.test_walls_package_names import NEVER, RIGHT, WRONG

pytestmark = pytest.mark.integration
ASKED = {
    names.require_package: "--validate-pkgname",
    names.require_version: "--validate-version",
    names.require_architecture: "--validate-archname",
    names.require_trigger: "--validate-trigname",
}
LETTERS = "aZ09.-+~:_/ \t\x1b\x7fü"


def ours(require: Callable[..., str], name: str) -> bool:
    try:
        require(name, where="here")
    except PipelineError:
        return False
    return True


def dpkgs(option: str, name: str) -> bool:
    """Its word; what it only warns of, such as a version without a digit first, it takes."""
    asked = subprocess.run(["dpkg", option, name], capture_output=True, text=True, check=False)
    return asked.returncode == 0 or "dpkg: warning" in asked.stderr


@pytest.mark.parametrize("require", ASKED, ids=lambda require: require.__name__)
def test_dpkg_takes_what_we_take(require: Callable[..., str]) -> None:
    chance = random.Random(7)
    made = ["".join(chance.choices(LETTERS, k=chance.randint(1, 4))) for _ in range(60)]
    known = [*RIGHT[require], *WRONG[require], *NEVER]
    for name in (name for name in [*known, *made] if "\0" not in name):
        assert not ours(require, name) or dpkgs(ASKED[require], name), name
    assert all(dpkgs(ASKED[require], name) for name in RIGHT[require])
