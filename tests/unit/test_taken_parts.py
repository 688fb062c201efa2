"""A stage depends on what it takes of an earlier one, and on nothing else of that."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.artifact.record import describe_changes
from pipeline.cutoff import Offer, Taken, name_packages
from pipeline.errors import PipelineError
from pipeline.locks import try_locked
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec, load_all
from pipeline.stage import Job, Stage
from pipeline.stages import STAGES
from pipeline.stages.dib.requests import find_unforeseen, list_requests
from pipeline.store.store import BuildInfo
from tests.specs import make_spec

SUM = "0" * 64


@dataclass
class Archive:
    """A mirror with two packages, a base that takes one of them, and an image of the base."""

    root: Path
    packages: dict[str, str] = field(default_factory=lambda: {"bash": "1", "vim": "1"})
    is_old: bool = True
    trouble: str = ""
    asked: int = 0
    built: list[str] = field(default_factory=list)
    look: Callable[[], object] = lambda: None

    def spec(self) -> Spec:
        guests = self.root / "guests"
        guests.mkdir(exist_ok=True)
        (guests / "one.toml").write_text('suite = "bookworm"\n')
        return load_all(guests)["one"]

    def recipe(self) -> Recipe:
        project = Project(self.root, self.root / "output", self.root / "guests")
        return Recipe(project, [self.mirror(), self.base(), self.image()])

    def mirror(self) -> Stage:
        return Stage(
            *("mirror", "", self._fetch, 1),
            identity=lambda folder: (folder / "state").read_text(),
            is_stale=lambda _folder, _spec: "it is old" if self.is_old else "",
        )

    def base(self) -> Stage:
        return Stage(
            *("base", "", lambda job: self._make(job, "base"), 1),
            after=("mirror",),
            keys=("suite",),
            takes={"mirror": self._take},
        )

    def image(self) -> Stage:
        return Stage(*("image", "", lambda job: self._make(job, "image"), 1), after=("base",))

    def build(self) -> list[str]:
        """The stages that were built."""
        self.built.clear()
        recipe, spec = self.recipe(), self.spec()
        for name in recipe.stages:
            recipe.build(name, spec)
        return list(self.built)

    def _fetch(self, job: Job) -> None:
        self.built.append("mirror")
        (job.scratch / "state").write_text(json.dumps(self.packages))

    def _make(self, job: Job, name: str) -> None:
        self.built.append(name)
        (job.scratch / name).write_text(name)

    def _take(self, offer: Offer) -> Taken:
        self.asked += 1
        self.look()
        if self.trouble:
            raise PipelineError(self.trouble)
        state = json.loads((offer.artifacts["mirror"] / "state").read_text())
        return Taken({"packages": {"bash": f"{state['bash']} amd64 {SUM}"}}, {"hint": 1})


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def test_a_part_that_is_not_taken_builds_nothing_after(archive: Archive) -> None:
    assert archive.build() == ["mirror", "base", "image"]
    archive.packages["vim"] = "2"
    assert archive.build() == ["mirror"]


def test_a_part_that_is_taken_builds_what_follows_and_is_named(archive: Archive) -> None:
    archive.build()
    archive.packages["bash"] = "2"
    assert archive.build() == ["mirror", "base", "image"]


def test_going_back_finds_the_artifact_again_and_asks_nobody(archive: Archive) -> None:
    archive.build()
    archive.packages["bash"] = "2"
    archive.build()
    archive.packages["bash"], asked = "1", archive.asked
    assert archive.build() == ["mirror"]
    assert archive.asked == asked == 2


def test_before_the_mirror_is_asked_it_is_not_known(archive: Archive) -> None:
    archive.build()
    recipe, spec = archive.recipe(), archive.spec()
    states = [recipe.state(name, spec) for name in recipe.stages]
    assert [state.reason for state in states] == [
        "it is old",
        "mirror will be built first; then it is known whether its packages changed",
        "base may be built first",
    ]
    assert [state.is_current for state in states] == [False] * 3


def test_what_was_never_built_will_be(archive: Archive) -> None:
    recipe, spec = archive.recipe(), archive.spec()
    assert recipe.state("base", spec).reason == "mirror will be built first"
    assert recipe.state("image", spec).reason == "base will be built first"
    assert archive.asked == 0


def test_what_cannot_be_found_out_is_a_reason_and_ends_the_build(archive: Archive) -> None:
    archive.build()
    archive.packages["vim"], archive.trouble = "2", "apt has no idea"
    recipe, spec = archive.recipe(), archive.spec()
    recipe.build("mirror", spec)
    state = recipe.state("base", spec)
    assert state.reason == "apt has no idea"
    assert not state.is_current
    assert archive.asked == 2
    with pytest.raises(PipelineError, match="apt has no idea") as caught:
        recipe.build("base", spec)
    assert (caught.value.stage, caught.value.guest) == ("base", "one")
    archive.trouble = ""
    assert archive.build() == ["mirror"]


def test_nothing_is_read_from_an_artifact_whose_bytes_changed(archive: Archive) -> None:
    archive.is_old = False
    archive.build()
    for kept in (archive.root / "output/store/.taken").iterdir():
        kept.unlink()
    state = next((archive.root / "output/store/mirror").glob("*/state"))
    state.write_text(state.read_text().replace("1", "7"))
    recipe, spec = archive.recipe(), archive.spec()
    assert not recipe.state("base", spec).is_current
    assert archive.asked == 1
    assert archive.build() == ["mirror"]  # mended, and then asked
    assert archive.asked == 2


def test_what_is_asked_is_not_replaced_meanwhile(archive: Archive) -> None:
    places = archive.root / "output/store/.locks"
    free: list[bool] = []

    def look() -> None:
        for path in places.glob("mirror-*"):
            with try_locked(path) as is_free:
                free.append(is_free)

    archive.look = look
    archive.build()
    assert free == [False]


def test_a_damaged_answer_is_asked_for_again(archive: Archive) -> None:
    archive.is_old = False
    archive.build()
    for kept in (archive.root / "output/store/.taken").iterdir():
        kept.write_text('{"parts": ')
    assert archive.build() == []
    assert archive.asked == 2


def built_from(**packages: str) -> BuildInfo:
    taken = {"mirror": {"packages": packages}}
    return BuildInfo("base", "f", 1, {}, {"mirror": "m1"}, taken=taken)


def test_packages_are_told_with_before_and_after() -> None:
    last = built_from(bash=f"1 all {SUM}", old=f"1 all {SUM}", same=f"3 all {SUM}")
    now = {"bash": f"2 all {SUM}", "new": f"5 all {SUM}", "same": f"3 all {SUM[1:]}1"}
    changes = describe_changes(last, 1, {}, {"mirror": "m2"}, {"mirror": {"packages": now}})
    assert changes == ["bash 1 -> 2", "+new 5", "-old 1", "same 3, built anew"]


def test_where_the_whole_state_counts_the_reason_is_told() -> None:
    now = {"mirror": {"state": "m2", "because": "what element x installs is not known before"}}
    changes = describe_changes(built_from(), 1, {}, {"mirror": "m2"}, now)
    assert changes == [
        "the mirror changed, and all of it counts: what element x installs is not known before"
    ]
    assert describe_changes(built_from(), 1, {}, {"mirror": "m2"}) == ["mirror changed"]


def test_an_element_that_is_not_ours_may_install_anything(tmp_path: Path) -> None:
    own = tmp_path / "elements"
    ours = {"drbd": own / "drbd", "no-final-image": tmp_path / "stock/no-final-image"}
    assert find_unforeseen(ours, own) == ""
    theirs = {**ours, "ssh-server": tmp_path / "site/ssh-server", "zabbix": tmp_path / "x/zabbix"}
    assert find_unforeseen(theirs, own) == "ssh-server"


def test_requests_are_in_the_order_of_the_elements_scripts() -> None:
    spec = make_spec(boot="pygrub", kernel="linux-image-amd64", locale="de_DE.UTF-8")
    requests = list_requests(spec, ["drbd", "grub-menus"], ["less"])
    assert requests == [
        *(["less"], ["drbd-utils"], ["initramfs-tools"], ["linux-image-amd64"]),
        *(["openssh-server"], ["tzdata"], ["locales"]),
    ]


def test_only_what_knows_its_packages_takes_parts_of_the_mirror() -> None:
    assert [stage.name for stage in STAGES if stage.takes] == ["base", "kernel", "rootfs"]
    assert name_packages([]) == {}
