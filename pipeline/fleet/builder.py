"""An order carried out: `python -m pipeline.fleet.builder OUTPUT ANSWER <ORDER`, by a worker.

A process of its own, so that it can be killed with all that it has begun, and so that what it is
told of the machine that asked (apt's sources) is nobody else's. It prints a dot now and then.
"""

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline import ROOT, interruption
from pipeline.diagnosis import explained
from pipeline.elsewhere import Elsewhere
from pipeline.errors import PipelineError
from pipeline.files import write_durably
from pipeline.fleet.orders import unpack_site
from pipeline.fleet.prover import prove
from pipeline.fleet.task_graph import PROVE
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.scratch import remove_or_warn, scratch_folder
from pipeline.shared.shared_store import SharedStore, open_store
from pipeline.spec import Spec
from pipeline.stage import Stage, State
from pipeline.stages import STAGES, firmware
from pipeline.store.store import Store

_DOT_S = 0.5


class _BuiltBefore:
    """What others of the fleet built for this order: the shared store has it, however old."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def wait(self, stage: str, _spec: Spec) -> bool:
        """All but what is to be built now."""
        return stage != self._stage

    def serve(self, *_asked: object) -> None:
        """It is one order's."""

    def prove(self, *_asked: object) -> None:
        """It builds."""


def carry_out(order: dict[str, Any], output: Path, stages: Sequence[Stage]) -> dict[str, Any]:
    """The stage, or the proof; what to say of it."""
    with ExitStack() as stack:
        scratch = output / "scratch"
        site = stack.enter_context(scratch_folder(scratch, "site", mode=0o755))
        unpack_site(order["site"], site)
        (site / "guests").mkdir()
        project = Project(ROOT, output, site / "guests", site)
        shared = open_store(
            order["store"],
            Path(order["certificates"]),
            project.scratch,
            name=order["party"],
            is_strict=True,
        )
        if order["stage"] == PROVE:
            return {"proven": prove(Recipe(project, stages, shared=shared), shared, order)}
        before: Elsewhere = _BuiltBefore(order["stage"])
        recipe = Recipe(project, stages, shared=shared, elsewhere=before)
        if order["stage"] == firmware.STAGE.name:
            recipe = recipe.with_stage(firmware.STAGE)
        return {"built": _build(recipe, shared, order)}


def _build(recipe: Recipe, shared: SharedStore, order: dict[str, Any]) -> dict[str, Any]:
    """The stage, current here and in the shared store."""
    spec, begun = Spec.model_validate(order["spec"]), time.monotonic()
    for stage in _chain(recipe, order["stage"]):
        _discard_other(recipe, stage, spec, order["states"].get(stage, ""))
        state = recipe.build(stage, spec)
        _require_same(stage, state, order["states"].get(stage, state.identity))
    shared.push(state.folder)
    files = state.buildinfo.files if state.buildinfo else {}
    return {
        "fingerprint": state.fingerprint,
        "seconds": round(time.monotonic() - begun, 3),
        "size": sum(int(facts["size"]) for facts in files.values()),
        "was_built": recipe.origin(state) == "built",
        "moved": shared.moved.pulled_bytes + shared.moved.pushed_bytes,
    }


def _discard_other(recipe: Recipe, stage: str, spec: Spec, wanted: str) -> None:
    """Put away another state of the mirror than that of who asked, which is then pulled."""
    state = recipe.state(stage, spec)
    if not wanted or state.buildinfo is None or state.identity == wanted:
        return
    store = Store.of(recipe.project)
    grave = recipe.project.scratch / f"other-{uuid.uuid4().hex[:8]}"
    with store.lock(stage, state.fingerprint):
        store.discard(stage, state.fingerprint, grave)
    remove_or_warn(grave)


def _require_same(stage: str, state: State, wanted: str) -> None:
    if state.identity != wanted:
        raise PipelineError(
            f"{stage}: its state is {state.identity[:8]}, of the order's {wanted[:8]}: another"
            " build has put a newer one into the shared store"
        )


def _chain(recipe: Recipe, last: str) -> list[str]:
    """The stage and all before it, in the order of the recipe."""
    wanted = {last}
    for name in reversed(recipe.stages):
        if name in wanted:
            wanted |= set(recipe.stages[name].after)
    return [name for name in recipe.stages if name in wanted]


def _say_dots() -> None:
    while True:
        time.sleep(_DOT_S)
        print(".", flush=True)


def main(output: str, answer: str, stages: Sequence[Stage] = STAGES) -> None:
    """Read the order, carry it out, write the answer; the tests have smaller stages."""
    os.umask(0o022)
    interruption.install()
    threading.Thread(target=_say_dots, daemon=True).start()
    said: dict[str, Any]
    try:
        with explained():
            said = carry_out(json.load(sys.stdin), Path(output), stages)
    except PipelineError as error:
        where = f"{error.stage}: " if error.stage else ""
        said = {"error": f"{where}{error.brief}", "exit_code": error.exit_code}
    write_durably(Path(answer), json.dumps(said).encode(), mode=0o600)
    interruption.leave(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
