"""Every release is built as a user builds it, with the bootstrap that it gets by default.

One in each run of the tests, by date; all of them with `pytest -m matrix tests/suites`. What came
of it is noted for docs/reference/suites.md by `python -m tests.suites --write`.
"""

import pytest

from pipeline.suites import SUITES
from pipeline.suites.accounts import read_accounts
from tests.conftest import require
from tests.suites.release import Releases
from tests.turns import TODAY
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(1800)]
BUILDABLE = [name for name, account in read_accounts().items() if account.built]
IN_TURN = BUILDABLE[TODAY % len(BUILDABLE)]


@pytest.fixture(scope="module")
def releases(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Guests of its own, in the session's store: what another test has built is not built again."""
    site = tmp_path_factory.mktemp("releases") / "site"
    releases = Releases.lay_out(site, site / "output")
    releases.output.mkdir()
    for name in ("store", "cache"):
        (workshop.output / name).mkdir(parents=True, exist_ok=True)
        (releases.output / name).symlink_to(workshop.output / name)
    return releases


def test_the_release_whose_turn_it_is_is_built_and_checked(releases: Releases) -> None:
    account = releases.account_for(IN_TURN)
    require(bool(account.built), f"{IN_TURN} on the mirror: {account.answer}")
    assert account.packages > 90
    assert (releases.output / "guests" / IN_TURN / f"{IN_TURN}.cfg").is_file()


@pytest.mark.matrix
@pytest.mark.parametrize("name", SUITES)
def test_a_release_is_built_or_the_mirror_says_why_not(releases: Releases, name: str) -> None:
    account = releases.account_for(name)
    if account.built:
        assert account.kernel and account.packages > 90
        return
    outcome = releases.doit("build", f"name={name}")
    assert outcome.code != 0 and "Traceback" not in outcome.said
    reason = "devtmpfs" if SUITES[name].own_xen else "404"  # those want dom0's kernel first
    assert reason in outcome.said and "next: " in outcome.said
