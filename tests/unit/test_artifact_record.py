"""The reasons that info and why print."""

from pipeline.artifact.record import describe_changes
from pipeline.store.store import BuildInfo

SUM = "0" * 64


def built_from(**inputs: object) -> BuildInfo:
    return BuildInfo("rootfs", "f", 1, dict(inputs), {"base": "b1"})


def test_nothing_changed_gives_no_reason() -> None:
    assert describe_changes(built_from(suite="sid"), 1, {"suite": "sid"}, {"base": "b1"}) == []


def test_a_changed_value_is_told_with_before_and_after() -> None:
    changes = describe_changes(built_from(suite="sid"), 1, {"suite": "trixie"}, {"base": "b1"})
    assert changes == ["suite: sid -> trixie"]


def test_a_package_that_came_and_one_that_went_are_named() -> None:
    last = built_from(packages=["nano", "less"])
    changes = describe_changes(last, 1, {"packages": ["less", "vim"]}, {"base": "b1"})
    assert changes == ["packages: +vim -nano"]


def test_a_touched_element_file_is_named() -> None:
    last = built_from(elements={"drbd": {"install.d/50-drbd": f"x {SUM}"}})
    now = {"elements": {"drbd": {"install.d/50-drbd": f"x {SUM[:-1]}1"}}}
    assert describe_changes(last, 1, now, {"base": "b1"}) == [
        "elements: drbd: install.d/50-drbd changed"
    ]


def test_a_new_base_and_a_new_recipe_are_reasons() -> None:
    assert describe_changes(built_from(), 2, {}, {"base": "b2"}) == [
        "this stage's recipe changed",
        "base changed",
    ]


def test_many_changes_are_cut_short() -> None:
    last = built_from(**{f"key{number}": 1 for number in range(20)})
    now = {f"key{number}": 2 for number in range(20)}
    changes = describe_changes(last, 1, now, {"base": "b1"})
    assert len(changes) == 7
    assert changes[-1] == "and 14 more"
