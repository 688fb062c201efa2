"""Planning and building with small stages of our own: what is current, built, kept."""

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.guest.configurations import render_all
from pipeline.guest.network import network_files
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec, load_all
from pipeline.spec.rules import find_clashes
from pipeline.spec.view import SpecView, UndeclaredKey
from pipeline.stage import Job, Stage
from pipeline.stages import STAGES
from pipeline.storage.disks import targets_of
from tests.specs import make_spec

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
        return load_all(self.root / "guests")[name]

    def recipe(self) -> Recipe:
        project = Project(self.root, self.root / "output", self.root / "guests")
        return Recipe(project, [self.base(), self.rootfs(), self.volume()])

    def bake(self, name: str, job: Job) -> None:
        self.built.append(f"{name} {job.record['name']}")
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


def declare(keys: tuple[str, ...], use: Callable[[Spec], object], **more: Any) -> Stage:
    """A stage that uses the spec so, when its inputs are asked for."""
    inputs = lambda spec, _project: {"used": str(use(spec))}  # noqa: E731
    return Stage("first", "", lambda _job: None, 1, keys=keys, inputs=inputs, **more)


USES: dict[str, tuple[tuple[str, ...], Callable[[Spec], object]]] = {
    "a key": (("suite",), lambda spec: spec.suite),
    "what follows from keys": (("hostname", "domain"), lambda spec: spec.fqdn),
    "a method": (("suite", "boot", "kernel"), lambda spec: spec.mke2fs_features("ext4")),
    "what is worked out once": (("layout",), lambda spec: spec.layout),
}


@pytest.mark.parametrize("used", USES)
def test_a_stage_reads_what_it_has_declared_and_nothing_else(kitchen: Kitchen, used: str) -> None:
    spec = kitchen.add("one")
    keys, use = USES[used]
    project = kitchen.recipe().project
    sees = Recipe(project, [declare(keys, use)])
    assert sees.state("first", spec).inputs["used"] == str(use(spec))
    for number in range(len(keys)):
        fewer = (*keys[:number], *keys[number + 1 :])
        recipe = Recipe(project, [declare(fewer, use)])
        with pytest.raises(UndeclaredKey, match="stage first reads .*: declare it"):
            recipe.state("first", spec)


def test_a_build_that_reads_an_undeclared_key_fails(kitchen: Kitchen) -> None:
    spec, seen = kitchen.add("one"), []
    stage = Stage("first", "", lambda job: seen.append(job.spec.memory), 1, keys=("suite",))
    with pytest.raises(UndeclaredKey, match="stage first reads memory"):
        Recipe(kitchen.recipe().project, [stage]).build("first", spec)
    assert not seen


@pytest.mark.parametrize("place", ["outputs", "is_stale"])
def test_whatever_a_stage_is_asked_it_sees_its_own_keys_only(kitchen: Kitchen, place: str) -> None:
    def ask(*arguments: Any) -> str:
        spec = arguments[0] if isinstance(arguments[0], SpecView) else arguments[1]
        return str(spec.memory)

    changes: dict[str, Any] = {place: ask}
    spec, project = kitchen.add("one"), kitchen.recipe().project
    built = Stage("first", "", lambda _job: None, 1, keys=("suite",))
    Recipe(project, [built]).build("first", spec)
    changed = replace(built, **changes)
    with pytest.raises(UndeclaredKey, match="stage first reads memory"):
        Recipe(project, [changed]).state("first", spec)


def test_a_key_that_is_read_without_an_effect_changes_no_fingerprint(kitchen: Kitchen) -> None:
    project = kitchen.recipe().project
    reads = {"memory": "it does not matter"}
    recipe = Recipe(project, [declare(("suite",), lambda spec: bool(spec.memory), reads=reads)])
    first = recipe.state("first", kitchen.add("one")).fingerprint
    other = kitchen.add("two", 'suite = "bookworm"\nmemory = "2G"\n')
    assert recipe.state("first", other).fingerprint == first


@pytest.mark.parametrize("is_fingerprint", [True, False])
def test_the_keys_of_a_stage_before_it_are_seen_where_its_id_is_their_hash(
    kitchen: Kitchen, is_fingerprint: bool
) -> None:
    before = Stage(
        *("before", "", lambda _job: None, 1),
        keys=("memory",),
        identity=None if is_fingerprint else lambda _artifact: "the same for any memory",
    )
    stages = [before, declare((), lambda spec: spec.memory, after=("before",))]
    recipe, spec = Recipe(kitchen.recipe().project, stages), kitchen.add("one")
    if is_fingerprint:
        assert recipe.inputs_of(stages[1], spec) == {"used": "256M"}
    else:
        with pytest.raises(UndeclaredKey):
            recipe.inputs_of(stages[1], spec)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_what_a_stage_reads_without_an_effect_is_no_key_of_it(
    kitchen: Kitchen, stage: Stage
) -> None:
    recipe = Recipe(kitchen.recipe().project, STAGES)
    for key, reason in stage.reads.items():
        assert key in Spec.model_fields and reason
        assert key not in recipe.trusted_keys(stage), key


ROOT = Path(__file__).resolve().parents[2]
GUESTS = sorted([*ROOT.glob("guests/*.toml"), *ROOT.glob("tests/boot/guests/*.toml")])


@pytest.mark.parametrize(
    "path", [path for path in GUESTS if path.stem != "defaults"], ids=lambda path: path.stem
)
def test_every_stage_works_out_its_inputs_for_any_kind_of_guest(tmp_path: Path, path: Path) -> None:
    """What their builds read is tried by building them: tests/graph, tests/host, tests/boot."""
    recipe = Recipe(Project(ROOT, tmp_path / "output", path.parent), STAGES)
    spec = load_all(path.parent)[path.stem]
    for stage in STAGES:
        assert set(stage.keys) <= set(recipe.inputs_of(stage, spec))
        stage.outputs(recipe.view(stage, spec), recipe.project)
    seen = recipe.view(recipe.stages["config"], spec)
    assert dict(render_all(seen, recipe.project)) == dict(render_all(spec, recipe.project))
    seen = recipe.view(recipe.stages["volume"], spec)
    assert network_files(seen) == network_files(spec)
    assert targets_of(seen, recipe.project) == targets_of(spec, recipe.project)


def test_a_guest_with_its_kernel_inside_is_hvm_exactly_where_its_firmware_boots_it() -> None:
    """So the stage rootfs need not have `type` among its keys."""
    for kind, boot in itertools.product(("pv", "pvh", "hvm"), ("pygrub", "grub", "firmware")):
        spec = make_spec(type=kind, boot=boot)
        if not list(find_clashes(spec)):
            assert (spec.type == "hvm") == (spec.boot == "firmware")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bridge", "br9"),
        ("mac", "00:16:3e:00:00:09"),
        ("vifname", "web9"),
        ("rate", "1Mb/s"),
        ("model", "e1000"),
    ],
)
@pytest.mark.parametrize("init", ["systemd", "sysvinit"])
def test_the_hosts_side_of_a_card_is_in_no_file_of_the_guest(
    key: str, value: str, init: str
) -> None:
    """So the stage volume need not have it among its keys."""
    static = {"dhcp": False, "address": "10.0.0.2/24", "gateway": "10.0.0.1", "init": init}
    kind = {"type": "hvm"} if key == "model" else {}
    assert network_files(make_spec(**static, **kind, **{key: value})) == network_files(
        make_spec(**static, **kind)
    )


def test_scratch_of_a_dead_build_is_removed_by_the_next(kitchen: Kitchen) -> None:
    abandoned = kitchen.root / "output/scratch/base-one-dead"
    abandoned.mkdir(parents=True)
    (abandoned / "junk").touch()
    kitchen.build_all(kitchen.add("one"))
    assert not abandoned.exists()
