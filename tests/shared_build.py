"""Builds a small guest with a shared store, in a process of its own that may be killed.

`python -m tests.shared_build ROOT URL CERTIFICATES PARTY` adds a line for each stage that was built
to ROOT/../built.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.recipe import Recipe
from pipeline.shared.shared_store import open_store
from pipeline.spec import load_all
from pipeline.stage import Job, Stage
from tests.small import make_project, make_stages

GUEST = "web1"


def main(root: Path, url: str, certificates: Path, party: str) -> None:
    project = make_project(root, GUEST)
    shared = open_store(url, certificates, project.scratch, name=party)
    recipe = Recipe(project, [_counted(stage, root) for stage in make_stages("1")], shared=shared)
    spec = load_all(project.guests)[GUEST]
    for stage in recipe.stages:
        recipe.build(stage, spec)


def _counted(stage: Stage, root: Path) -> Stage:
    def build(job: Job) -> None:
        make: Callable[[Job], None] = stage.build
        make(job)
        with open(root.parent / "built", "a") as log:
            log.write(f"{stage.name} {root.name}\n")

    return replace(stage, build=build)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    except PipelineError as error:
        print(f"{error.brief}\n{error.hint}")
        sys.exit(error.exit_code)
