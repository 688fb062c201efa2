"""Planning and building with small stages of our own: what is current, built, kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.project import Project
from pipeline.recipe import Job, Recipe, Stage
from pipeline.spec import Spec, load_all

GUEST = 'suite = "bookworm"\n'


class Kitchen:
    """Two shared stages and one guest stage over a temporary project; counts what is built."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "guests").mkdir()
        (root / "guests/defaults.toml").write_text("")
        self.built: list[str] = []
        self.element = "one"
        self.fails_in = ""

    def add(self, name: str, text: str = GUEST) -> Spec:
        (self.root / f"guests/{name}.toml").write_text(text)
        return load_all(self.root / "guests", None, {})[name]

    def recipe(self) -> Recipe:
        project = Project(self.root, self.root / "output", self.root / "guests")
        return Recipe(project, [self.base(), self.rootfs(), self.volume()])

    def bake(self, name: str, job: Job) -> None:
        self.built.append(f"{name} {job.spec.name}")
        (job.scratch / name).write_text(f"{job.spec.suite} {self.element}")
        if self.fails_in == name:
            raise PipelineError(f"{name} went wrong")

    def base(self) -> Stage:
        return Stage("base", "", lambda job: self.bake("base", job), 1, keys=("suite",))

    def rootfs(self) -> Stage:
        return Stage(
            "rootfs",
            "",
            lambda job: self.bake("rootfs", job),
            1,
            after=("base",),
            keys=("packages",),
            inputs=lambda _spec, _project: {"element": self.element},
        )

    def volume(self) -> Stage:
        return Stage(
            "volume",
            "",
            lambda job: self.bake("volume", job),
            1,
            after=("rootfs",),
            keys=("hostname",),
            folder=lambda project, guest: project.volume(guest),
        )

    def build_all(self, spec: Spec) -> list[str]:
        self.built.clear()
        recipe = self.recipe()
        for name in recipe.stages:
            recipe.build(name, spec)
        return list(self.built)


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path)


def test_a_second_build_does_nothing(kitchen: Kitchen) -> None:
    spec = kitchen.add("one")
    assert len(kitchen.build_all(spec)) == 3
    assert kitchen.build_all(spec) == []


def test_a_second_guest_costs_only_its_guest_half(kitchen: Kitchen) -> None:
    kitchen.build_all(kitchen.add("one"))
    assert kitchen.build_all(kitchen.add("two")) == ["volume two"]


def test_a_touched_element_rebuilds_rootfs_and_what_follows(kitchen: Kitchen) -> None:
    spec = kitchen.add("one")
    kitchen.build_all(spec)
    kitchen.element = "two"
    assert kitchen.build_all(spec) == ["rootfs one", "volume one"]


def test_a_new_host_name_rebuilds_only_the_guest_half(kitchen: Kitchen) -> None:
    kitchen.build_all(kitchen.add("one"))
    renamed = kitchen.add("one", 'suite = "bookworm"\nhostname = "other"\n')
    assert kitchen.recipe().state("volume", renamed).reason == "hostname: one -> other"
    assert kitchen.build_all(renamed) == ["volume one"]


def test_going_back_to_an_older_element_finds_its_artifact_again(kitchen: Kitchen) -> None:
    spec = kitchen.add("one")
    kitchen.build_all(spec)
    kitchen.element = "two"
    kitchen.build_all(spec)
    kitchen.element = "one"
    assert kitchen.build_all(spec) == ["volume one"]


def test_a_failed_stage_leaves_no_scratch_and_keeps_the_old_artifact(kitchen: Kitchen) -> None:
    spec = kitchen.add("one")
    kitchen.build_all(spec)
    old = kitchen.recipe().state("volume", spec).folder / "volume"
    kitchen.element, kitchen.fails_in = "two", "volume"
    with pytest.raises(PipelineError) as caught:
        kitchen.build_all(spec)
    assert (caught.value.stage, caught.value.guest) == ("volume", "one")
    assert old.read_text() == "bookworm one"
    assert os.listdir(kitchen.root / "output/scratch") == []


def test_a_truncated_artifact_counts_as_absent_and_is_built_again(kitchen: Kitchen) -> None:
    spec = kitchen.add("one")
    kitchen.build_all(spec)
    folder = kitchen.recipe().state("rootfs", spec).folder
    (folder / "rootfs").write_text("short")
    assert kitchen.build_all(spec) == ["rootfs one"]


def test_half_an_artifact_without_buildinfo_counts_as_absent(kitchen: Kitchen) -> None:
    spec = kitchen.add("one")
    kitchen.build_all(spec)
    (kitchen.recipe().state("base", spec).folder / "buildinfo.json").unlink()
    assert kitchen.build_all(spec)[0] == "base one"


def test_the_group_of_a_stage_holds_the_keys_of_those_before_it(kitchen: Kitchen) -> None:
    recipe = kitchen.recipe()
    assert recipe.keys_of("volume") == ("hostname", "packages", "suite")
    other = kitchen.add("two", 'suite = "trixie"\n')
    assert recipe.group_of("rootfs", kitchen.add("one")) != recipe.group_of("rootfs", other)


def test_scratch_of_a_dead_build_is_removed_by_the_next(kitchen: Kitchen) -> None:
    abandoned = kitchen.root / "output/scratch/base-one-dead"
    abandoned.mkdir(parents=True)
    (abandoned / "junk").touch()
    kitchen.build_all(kitchen.add("one"))
    assert not abandoned.exists()
