"""What a night ends with: the exit code, and one line for each cause."""

import pytest

from pipeline.errors import EnvironmentFault
from pipeline.night.verdicts import describe_guest, describe_night, find_trouble
from pipeline.report.outcome import Fault, GuestNight, Night

GOOD = GuestNight("web1", "published", version="v2", seconds={"build": 3.2, "prove": 99.6})
SAME = GuestNight("web2", "unchanged", version="v1")
REFUSED = GuestNight("db1", "failed", fault=Fault("prove", "2 checks do not hold", "see it"))
UNBUILT = GuestNight("db2", "failed", fault=Fault("rootfs", "a script failed"))
DOWN = Fault("mirror", "http://m: refused", "see that it runs")
BROKEN = GuestNight("db3", "broken", fault=DOWN)
LEFT = GuestNight("db4", "not begun")


def night(*guests: GuestNight) -> Night:
    return Night("20270101T033000Z", 100.0, 160.0, "host", guests)


@pytest.mark.parametrize(
    ("guests", "code"),
    [
        ((GOOD, SAME), 0),
        ((GOOD, UNBUILT), 1),
        ((GOOD, LEFT), 1),
        ((UNBUILT, BROKEN), 3),
        ((BROKEN, REFUSED, LEFT), 5),
    ],
)
def test_the_code_is_the_highest_of_what_happened(guests: tuple[GuestNight], code: int) -> None:
    trouble = find_trouble(night(*guests), "page")
    assert (trouble.exit_code if trouble else 0) == code


def test_guests_of_one_cause_are_one_line() -> None:
    other = GuestNight("db5", "broken", fault=DOWN)
    trouble = find_trouble(night(BROKEN, GOOD, other, LEFT), "page")
    assert trouble is not None
    assert trouble.details.splitlines() == [
        "db3, db5: mirror: http://m: refused",
        "    see that it runs",
        "db4: the time limit was reached",
    ]
    assert "page" in trouble.hint


def test_what_is_no_guests_fault_is_told_too() -> None:
    trouble = find_trouble(night(GOOD), "page", [EnvironmentFault("nobody was told", hint="mail")])
    assert trouble is not None
    assert (trouble.exit_code, trouble.details) == (3, "nobody was told\n    mail")


def test_a_guest_and_a_night_are_a_line_each() -> None:
    assert describe_guest(GOOD).split() == "web1 published v2 (build 3 s, prove 100 s)".split()
    assert describe_guest(REFUSED).split()[:3] == ["db1", "failed", "prove:"]
    assert describe_night(night(GOOD, LEFT, REFUSED)).endswith(
        "1 published, 1 failed, 1 not begun; 60 s"
    )
