"""What is too long for every run of the tests: a part of it each day, all of it by `pytest -m ""`.

A story is a test, or several that share a long set-up, with a day of its own in the turn of its
kind. DOMU_TEST_DAY=N is another day than today's, to see what it has.
"""

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

STORIES = {
    "boot": (
        "a guest's life in a dom0",
        "nights",
        "the line of 2009",
        "an old guest",
        "an adopted KVM disk",
        "an adopted Alpine Linux",
        "old guests on volumes",
        "a proof's key in every disk",
        "the screen and the console",
        "a proof by xl in a dom0",
        "volumes in a dom0",
        "saved, restored, rebooted",
        "what xen-create-image makes",
        "the kernel that a guest installed",
        "the project in a dom0",
        "nobody lets root in",
        "what runs Xen",
        "a PV guest's life in a dom0",
        "a screen, the network and a CD of an HVM",
        "a host set up for guests",
        "a web server behind a router",
        "a guest on DRBD of two hosts",
        "two guests on one disk",
        "a guest proven by a fleet's worker",
        "one image, four boots",
        "UEFI under Xen",
        "a disk that two guests replicate",
        "cloud-init in bookworm",
        "cloud-init in trixie",
        "cloud-init in noble",
    ),
    "build": (
        "an archive that moves",
        "a mirror that dies half way",
        "a newer e2fsprogs",
        "collections beside a build",
    ),
    "bytes": (
        "an ordinary user's",
        "cold, from a lock",
        "without a network, on another day",
    ),
    "fleet": (
        "killed workers",
        "a killed scheduler",
        "another version",
        "a full disk on a worker",
        "two who ask at once",
    ),
    "fault": (
        "no PVH note",
        "root= names no disk",
        "no disk driver",
        "LZ4 and PV GRUB",
        "a renamed card",
        "no getty",
        "a dead test host",
        "an agent that stands still",
        "a full disk",
        "another secret of DRBD",
        "another address of DRBD's peer",
        "another size of DRBD's disk",
    ),
}
# takes as long as all that boots on another day; on its own day no other guest boots
LONG = "nights"
TODAY = int(os.environ.get("DOMU_TEST_DAY") or datetime.now(UTC).toordinal())


def in_turn(kind: str, story: str) -> pytest.MarkDecorator:
    """The mark of a story: `other_day` is left out unless asked for."""
    if kind == "fault" and is_long_day():
        return pytest.mark.other_day
    stories = STORIES[kind]
    return _mark(stories.index(story), len(stories))


def is_long_day() -> bool:
    """Whether it is the day of the long story, which boots guests of each type itself."""
    boots = STORIES["boot"]
    return TODAY % len(boots) == boots.index(LONG)


def spread(cases: Iterable[Any], days: int, ids: Mapping[Any, str] | None = None) -> list[Any]:
    """The cases of a parametrized test, each on one of so many days; `ids` are their names."""
    return [
        pytest.param(case, marks=_mark(number, days), id=ids[case] if ids else None)
        for number, case in enumerate(cases)
    ]


def times_in_turn(days: int) -> int:
    """The day by which a case of `spread` takes its own parts in turn, so that each part comes."""
    return TODAY // days


def _mark(place: int, days: int) -> pytest.MarkDecorator:
    return pytest.mark.today if place % days == TODAY % days else pytest.mark.other_day
