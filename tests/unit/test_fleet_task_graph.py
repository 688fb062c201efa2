"""The graph that a fleet's scheduler gets."""

from pathlib import Path

from pipeline.fleet.task_graph import PROVE, Key, make_tasks
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import load_all
from pipeline.stages import STAGES

GUEST = 'suite = "bookworm"\nsize = "1G"\n'


def recipe_of(root: Path, texts: dict[str, str]) -> Recipe:
    (root / "guests").mkdir()
    for name, text in texts.items():
        (root / f"guests/{name}.toml").write_text(GUEST + text)
    return Recipe(Project(root, root / "output", root / "guests"), STAGES)


def test_guests_that_agree_share_their_tasks_and_wait_for_one_another(tmp_path: Path) -> None:
    vim = 'packages = ["vim"]\n'
    recipe = recipe_of(tmp_path, {"web1": "", "web2": "", "db1": vim})
    specs = load_all(recipe.project.guests)
    tasks = make_tasks(recipe, specs.values(), made_of="0", last=("volume",))
    count = {stage: len([key for key in tasks if key[0] == stage]) for stage in recipe.stages}
    assert count == {
        **{"mirror": 0, "base": 1, "kernel": 1, "rootfs": 2, "image": 2, "volume": 3},
        "config": 0,
    }
    seen: set[Key] = set()
    for key, task in tasks.items():
        assert set(task.after) <= seen, "what others wait for stands before them"
        seen.add(key)
    rank = {task.stage: task.priority for task in tasks.values()}
    assert rank["base"] > rank["rootfs"] > rank["volume"]


def test_a_golden_image_that_is_begun_is_finished_before_another_begins(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"web1": "", "db1": 'packages = ["vim"]\n'})
    tasks = make_tasks(recipe, load_all(recipe.project.guests).values(), made_of="0")
    rank = {(task.stage, task.guest): task.priority for task in tasks.values()}
    assert rank["image", "web1"] > rank["rootfs", "db1"]
    assert rank["image", "db1"] > rank["rootfs", "web1"]
    assert rank["base", "db1"] > rank["rootfs", "db1"], "it has two behind it"


def test_what_most_wait_for_comes_first(tmp_path: Path) -> None:
    texts = {f"web{number}": "" for number in range(5)}
    texts["odd"] = 'packages = ["vim"]\n'
    recipe = recipe_of(tmp_path, texts)
    tasks = make_tasks(
        recipe, load_all(recipe.project.guests).values(), made_of="0", last=("volume",)
    )
    image = {task.guest: task.priority for task in tasks.values() if task.stage == "image"}
    assert image["web0"] > image["odd"]


def test_a_key_is_of_what_it_is_made_of(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"web1": "", "web2": ""})
    specs = load_all(recipe.project.guests).values()
    one, other = (make_tasks(recipe, specs, made_of=text, proves=True) for text in "01")
    assert not set(one) & set(other)
    proofs = [task for task in one.values() if task.stage == PROVE]
    assert [task.guest for task in proofs] == ["web1", "web2"]
    assert {task.slot for task in proofs} == {"prove"}
    assert {task.after[0][0] for task in proofs} == {"image"}
