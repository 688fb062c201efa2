"""What a collection removes: the oldest first, never what is needed."""

import json
from pathlib import Path

from pipeline.commands.store import needed_by_guests
from pipeline.locks import try_locked
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.store.gc import Entry, list_entries, plan_collection
from pipeline.store.store import BuildInfo, Store


def entry(name: str, *, used_at: float, size: int = 10, needed_by: str = "") -> Entry:
    return Entry(Path(name), size, used_at, needed_by)


def names(entries: tuple[Entry, ...]) -> list[str]:
    return [one.path.name for one in entries]


def test_the_least_recently_used_goes_first_and_no_more_than_must() -> None:
    entries = [entry("new", used_at=3), entry("old", used_at=1), entry("middle", used_at=2)]
    plan = plan_collection(entries, 20)
    assert names(plan.doomed) == ["old"]
    assert names(plan.spared) == ["middle", "new"]
    assert (plan.freed, plan.left) == (10, 20)


def test_what_is_needed_stays_even_beyond_the_limit() -> None:
    entries = [
        entry("golden", used_at=0, size=100, needed_by="guest web1"),
        entry("other", used_at=9),
    ]
    plan = plan_collection(entries, 50)
    assert names(plan.doomed) == ["other"]
    assert names(plan.kept) == ["golden"]
    assert plan.left == 100


def test_what_a_built_or_published_guest_was_made_from_is_needed(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    prints = {"guests/web1": "a" * 64, "published/web1/20260101T000000Z-1": "b" * 64, "": "c" * 64}
    for folder, print_ in prints.items():
        Store.of(project).location("image", print_).mkdir(parents=True)
        if folder:
            info = BuildInfo("image", print_, 1, {}, {})
            (project.output / folder).mkdir(parents=True)
            table = {"image": json.loads(info.to_json())}
            (project.output / folder / "stages.json").write_text(json.dumps(table))
    found = {
        one.path.name[0]: one.needed_by
        for one in list_entries(project, dict(needed_by_guests(project)))
    }
    assert found == {"a": "guest web1", "b": "published web1/20260101T000000Z-1", "c": ""}


def test_within_the_limit_nothing_goes() -> None:
    plan = plan_collection([entry("one", used_at=1), entry("two", used_at=2)], 20)
    assert plan.doomed == ()
    assert plan_collection([], 0).freed == 0


def test_a_run_keeps_collections_away_until_it_ends(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    first, second = Recipe(project, []), Recipe(project, [])
    for recipe in (first, second, first):
        recipe.hold()
    with try_locked(Store.of(project).runs_lock) as is_alone:
        assert not is_alone
    del first, recipe
    with try_locked(Store.of(project).runs_lock) as is_alone:
        assert not is_alone
    del second
    with try_locked(Store.of(project).runs_lock) as is_alone:
        assert is_alone
