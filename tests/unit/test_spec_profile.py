"""`profile`: comfort is packages and nothing else, lean is what there was before it."""

import pytest
from pydantic import ValidationError

from pipeline.spec import values_of
from pipeline.stages import STAGES
from pipeline.suites import SUITES
from tests.specs import make_spec


def test_comfort_is_the_same_guest_as_its_packages_by_name() -> None:
    comfort = make_spec(profile="comfort", packages=["vim", "less"])
    assert comfort.packages[-1] == "vim"  # less is the profile's own
    assert comfort.packages.count("less") == 1
    by_name = make_spec(packages=list(comfort.packages))
    one, other = values_of(comfort), values_of(by_name)
    assert {key for key in one if one[key] != other[key]} == {"profile"}
    # no stage looks at it: what is built, and shared, follows from the packages
    assert all("profile" not in (*stage.keys, *stage.reads) for stage in STAGES)


def test_the_default_is_lean_and_adds_nothing() -> None:
    assert make_spec() == make_spec(profile="lean")
    assert make_spec().packages == ()
    assert make_spec(packages=["vim"]).packages == ("vim",)


@pytest.mark.parametrize("suite", SUITES)
def test_every_release_has_a_comfortable_guest(suite: str) -> None:
    for init in SUITES[suite].inits:
        spec = make_spec(suite=suite, init=init, profile="comfort", packages="vim")
        assert {"vim-tiny", "less", "iputils-ping", "cron", "logrotate", "vim"} <= {*spec.packages}
        assert (SUITES[suite].log_package in spec.packages) is (init == "sysvinit")


def test_a_spec_that_is_read_back_is_the_same() -> None:
    spec = make_spec(profile="comfort", packages=["vim"])
    assert make_spec(profile="comfort", packages=list(spec.packages)) == spec


@pytest.mark.parametrize("packages", [7, {"vim": 1}, [["vim"]], ["a b"]])
def test_wrong_packages_are_told_with_any_profile(packages: object) -> None:
    with pytest.raises(ValidationError, match="packages"):
        make_spec(profile="comfort", packages=packages)
    with pytest.raises(ValidationError, match="profile"):
        make_spec(profile="fat")
