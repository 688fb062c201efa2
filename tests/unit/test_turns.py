"""Whatever has its turn has its day, and every day has something of each kind."""

import ast
from collections.abc import Iterator

import pytest

from tests import turns
from tests.conftest import ROOT
from tests.host import test_interruption_races as races


def told_in_tests() -> Iterator[tuple[str, str]]:
    """Each in_turn("kind", "story") of the tests' files."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "in_turn":
                kind, story = map(ast.literal_eval, node.args)
                yield kind, story


def test_every_story_is_some_test_and_has_its_day_within_two_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = {(kind, story) for kind, stories in turns.STORIES.items() for story in stories}
    assert set(told_in_tests()) == written
    for kind, stories in turns.STORIES.items():
        for day in range(2 * len(stories)):
            monkeypatch.setattr(turns, "TODAY", turns.TODAY + 1)
            today = [s for s in stories if turns.in_turn(kind, s).name == "today"]
            has_none = kind == "fault" and turns.is_long_day()
            assert len(today) == (0 if has_none else 1), (kind, day)
            written -= {(kind, story) for story in today}
    assert not written, "these never have their day"


def test_every_case_has_one_of_so_many_days(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    for _ in range(3):
        monkeypatch.setattr(turns, "TODAY", turns.TODAY + 1)
        today = [
            case.values[0] for case in turns.spread("abcdefg", 3) if case.marks[0].name == "today"
        ]
        assert len(today) in (2, 3)
        seen += today
    assert sorted(seen) == list("abcdefg")


def test_a_run_meets_every_ending_at_every_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [races.Point("renamed", f"file{number}") for number in range(7)]
    met = set()
    for _ in range(3 * len(races.ENDINGS)):
        monkeypatch.setattr(turns, "TODAY", turns.TODAY + races.DAYS)
        met |= set(races.cases(points))
    assert met == {(point, ending) for point in points for ending in races.ENDINGS}
