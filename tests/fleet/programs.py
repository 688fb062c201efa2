"""The programs of a fleet for tests: real processes, real TLS; only the stages are small.

`python -m tests.fleet.programs scheduler|worker|build ...` is one of them, `... OUTPUT ANSWER` what
a worker starts for an order.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline import interruption
from pipeline.errors import PipelineError
from pipeline.fleet import builder
from pipeline.fleet.address import read_address
from pipeline.fleet.daemons import be_scheduler, be_worker
from pipeline.fleet.dispatch import Dispatch
from pipeline.fleet.task_graph import BUILD, PROVE
from pipeline.fleet.workplace import Workplace
from pipeline.project import Project
from pipeline.proof import prove as proofs
from pipeline.recipe import Recipe
from pipeline.spec import Spec, load_all
from pipeline.stage import Job, Stage
from pipeline.stages import firmware
from pipeline.walls.certificates import find_party
from tests import small

PROGRAM = "tests.fleet.programs"
SLOW_S = float(os.environ.get("FLEET_SLOW_S", "0.2"))


def stages() -> list[Stage]:
    """Small ones that take their time, so that a kill meets them."""
    return [_slow(stage) if stage.is_shared else stage for stage in small.make_stages("1")]


def _slow(stage: Stage) -> Stage:
    def build(job: Job) -> None:
        stage.build(job)
        time.sleep(SLOW_S)

    return replace(stage, build=build, ages=stage.name == "mirror")


def _make_firmware(job: Job) -> None:
    (job.scratch / "made").write_text(job.spec.suite)


def be_a_scheduler(root: str, certificates: str, party: str, listen: str) -> None:
    be_scheduler(project_of(root), read_address(listen), find_party(Path(certificates), party))


def be_a_worker(root: str, certificates: str, party: str, address: str, slots: str) -> None:
    kinds = {BUILD: float(slots), PROVE: 1.0}
    place = Workplace(project_of(root), party, kinds, certificates, party, builder=PROGRAM)
    be_worker(place, read_address(address), find_party(Path(certificates), party))


def build(root: str, certificates: str, party: str, address: str, store: str) -> None:
    """All guests of the folder, as doit builds them, stage after stage; its events to a file."""
    project = project_of(root)
    recipe = Recipe(project, stages())
    specs = load_all(project.guests)
    assert not specs.problems, specs.problems
    told: list[dict[str, object]] = []
    dispatch = Dispatch(
        recipe,
        list(specs.values()),
        address,
        store=store,
        party=find_party(Path(certificates), party),
        tell=lambda event, facts: told.append({"event": event, **facts}),
    )
    recipe.elsewhere = dispatch
    for stage, spec in list_tasks(recipe):
        state = recipe.build(stage, spec)
        dispatch.compare(stage, spec, state.fingerprint)
    build_firmware(recipe)
    Path(root, "events.json").write_text(json.dumps(told))
    interruption.leave(0)


def prove(root: str, certificates: str, party: str, address: str, store: str) -> None:
    """All guests of the folder, built here, proven by the fleet."""
    build_alone(root)
    project = project_of(root)
    recipe, specs = Recipe(project, stages()), load_all(project.guests)
    own = find_party(Path(certificates), party)
    recipe.elsewhere = Dispatch(recipe, list(specs.values()), address, store=store, party=own)
    for spec in specs.values():
        proofs.prove(recipe, spec)
    interruption.leave(0)


def build_alone(root: str) -> None:
    """The same without a fleet."""
    recipe = Recipe(project_of(root), stages())
    for stage, spec in list_tasks(recipe):
        recipe.build(stage, spec)
    build_firmware(recipe)


def list_tasks(recipe: Recipe) -> list[tuple[str, Spec]]:
    """Stage after stage, as doit has them; the small trees have no GRUB, which UEFI's disks ask."""
    specs = load_all(recipe.project.guests).values()
    golden = [stage.name for stage in recipe.stages.values() if stage.is_shared]
    return [
        (stage, spec)
        for stage in recipe.stages
        for spec in specs
        if stage in golden or not spec.is_uefi
    ]


def build_firmware(recipe: Recipe) -> None:
    """As the stage config has it built for each guest that asks for it."""
    for spec in load_all(recipe.project.guests).values():
        if spec.is_uefi:
            recipe.build_beside(firmware.STAGE, firmware.own_spec(spec))


def project_of(root: str) -> Project:
    """Its folders below one."""
    folder = Path(root)
    (folder / "guests").mkdir(parents=True, exist_ok=True)
    project = Project(folder, folder / "output", folder / "guests", folder)
    project.prepare_output()
    return project


def main(word: str, *words: str) -> None:
    """One of them."""
    interruption.install()
    firmware.STAGE = _slow(Stage("firmware", "firmware", _make_firmware, 1, after=("mirror",)))
    roles: dict[str, Callable[..., None]] = {
        "scheduler": be_a_scheduler,
        "worker": be_a_worker,
        "build": build,
        "prove": prove,
        "alone": build_alone,
    }
    if word in roles:
        try:
            roles[word](*words)
        except PipelineError as error:
            print(f"error: {error}\n{error.details}\n{error.hint}", flush=True)
            interruption.leave(error.exit_code)
    else:
        builder.main(word, words[0], stages())


if __name__ == "__main__":
    main(*sys.argv[1:])
