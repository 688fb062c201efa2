"""What is done elsewhere: a shared store's artifacts, and those that workers built for this run."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.store.store import BuildInfo, read_buildinfo
from tests.unit.test_recipe import Kitchen


class Shelf:
    """A shared store that is a folder, without anything that makes one safe."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.leased: list[str] = []

    def pull(
        self,
        stage: str,
        fingerprint: str,
        scratch: Path,
        *,
        is_wanted: Callable[[BuildInfo], bool] = lambda _buildinfo: True,
    ) -> BuildInfo | None:
        folder = self.root / f"{stage}-{fingerprint}"
        found = read_buildinfo(folder)
        if found is None or not is_wanted(found):
            return None
        for name in found.files:
            shutil.copy2(folder / name, scratch / name)
        return found

    def push(self, folder: Path) -> bool:
        found = read_buildinfo(folder)
        assert found is not None
        place = self.root / f"{found.stage}-{found.fingerprint}"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder, place)
        return True

    @contextmanager
    def lease(self, stage: str, fingerprint: str) -> Iterator[None]:
        self.leased.append(stage)
        yield


class Workers:
    """They have built the stages that are named, and fail with one."""

    def __init__(self, *built: str, fails_in: str = "") -> None:
        self.built = built
        self.fails_in = fails_in
        self.asked: list[str] = []

    def wait(self, stage: str, spec: Spec) -> bool:
        self.asked.append(f"{stage} {spec.name}")
        if stage == self.fails_in:
            raise PipelineError("its worker fell over")
        return stage in self.built


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf")


def kitchens(tmp_path: Path) -> tuple[Kitchen, Kitchen]:
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.append(Kitchen(tmp_path / name))
    return made[0], made[1]


def build_all(recipe: Recipe, spec: Spec) -> None:
    for stage in recipe.stages:
        recipe.build(stage, spec)


def shared_recipe(kitchen: Kitchen, shelf: Shelf, **options: object) -> Recipe:
    plain = kitchen.recipe()
    return Recipe(plain.project, list(plain.stages.values()), shared=shelf, **options)  # type: ignore[arg-type]


def test_what_one_machine_built_another_pulls_the_guest_half_never(
    tmp_path: Path, shelf: Shelf
) -> None:
    one, two = kitchens(tmp_path)
    first, second = shared_recipe(one, shelf), shared_recipe(two, shelf)
    build_all(first, one.add("guest"))
    build_all(second, two.add("guest"))
    assert one.built == ["base guest", "rootfs guest", "volume guest"]
    assert two.built == ["volume guest"]
    assert shelf.leased == ["base", "rootfs"]
    for name in ("base", "rootfs"):
        (here,) = (tmp_path / "one/output/store" / name).glob("*")
        there = tmp_path / "two/output/store" / name / here.name
        for path in here.iterdir():
            assert path.read_bytes() == (there / path.name).read_bytes()


def test_an_artifact_that_is_too_old_is_not_pulled_unless_a_worker_built_it_for_this_run(
    tmp_path: Path, shelf: Shelf
) -> None:
    one, two = kitchens(tmp_path)
    is_old = {"is": False}

    def aging(kitchen: Kitchen) -> list[object]:
        base, *others = kitchen.recipe().stages.values()

        def is_stale(folder: Path, _spec: Spec) -> str:
            assert os.stat(folder / "base").st_size == 0 or folder.name != "times"
            return "old" if is_old["is"] else ""

        return [replace(base, ages=True, is_stale=is_stale), *others]

    first = Recipe(one.recipe().project, aging(one), shared=shelf)  # type: ignore[arg-type]
    first.build("base", one.add("guest"))
    is_old["is"] = True
    spec = two.add("guest")
    project = two.recipe().project
    Recipe(project, aging(two), shared=shelf).build("base", spec)  # type: ignore[arg-type]
    assert two.built == ["base guest"]
    workers = Workers("base")
    fleet = Recipe(project, aging(two), shared=shelf, elsewhere=workers)  # type: ignore[arg-type]
    assert fleet.build("base", spec).is_current
    assert two.built == ["base guest"]
    assert workers.asked == ["base guest"]
    assert fleet.origin(fleet.state("base", spec)) == "pulled"


def test_what_a_worker_failed_with_is_the_failure_of_the_stage(
    tmp_path: Path, shelf: Shelf
) -> None:
    one, _ = kitchens(tmp_path)
    recipe = shared_recipe(one, shelf, elsewhere=Workers(fails_in="base"))
    with pytest.raises(PipelineError, match="its worker fell over"):
        recipe.build("base", one.add("guest"))
    assert not one.built and not shelf.leased
