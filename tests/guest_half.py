"""The guest half alone, onto volumes of this machine, from a golden half that is there already.

`python -m tests.guest_half OUTPUT STORE NAME [key=value...]`: the stages volume and config are
ours, the others give what STORE (of a build elsewhere, with its guest NAME beside it) holds.
`replace=yes` is an option, every other word a key of the spec.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from pipeline.build_options import BuildOptions
from pipeline.errors import PipelineError
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import load_all
from pipeline.stage import Job, Stage
from pipeline.stages import STAGES, config, volume
from pipeline.store.store import BUILDINFO, Store

ROOT = Path(__file__).resolve().parent.parent


def build(output: Path, store: Path, name: str, words: dict[str, str]) -> Path:
    """Build the guest half; its artifact folder."""
    options = BuildOptions(replace=words.pop("replace", "no") == "yes")
    guests = Path(os.environ.get("DOMU_GUESTS", ROOT / "guests"))
    project = Project(ROOT, output, guests)
    spec = load_all(project.guests, [name], words)[name]
    record = json.loads((store.parent / "guests" / name / "stages.json").read_text())
    given = [
        _given(stage, Store(store).location(stage.name, record[stage.name]["fingerprint"]))
        for stage in STAGES
        if stage.is_shared
    ]
    recipe = Recipe(project, [*given, volume.STAGE, config.STAGE], options=options)
    for stage in recipe.stages:
        recipe.build(stage, spec)
    return project.artifact(name)


def _given(stage: Stage, folder: Path) -> Stage:
    def take(job: Job) -> None:
        ignore = shutil.ignore_patterns(BUILDINFO)
        link = os.link  # a symbolic one would be digested nowhere
        shutil.copytree(folder, job.scratch, copy_function=link, dirs_exist_ok=True, ignore=ignore)

    return Stage(
        name=stage.name,
        summary=stage.summary,
        build=take,
        revision=1,
        after=stage.after,
        keys=stage.keys,
        seldom=stage.seldom,
        reads=stage.reads,
    )


def main(output: str, store: str, name: str, *words: str) -> int:
    """The same from a command line."""
    try:
        build(Path(output), Path(store), name, dict(word.split("=", 1) for word in words))
    except PipelineError as error:
        print(f"{error.brief}\n{error.details}\n{error.hint}")
        return error.exit_code
    finally:
        shutil.rmtree(Path(output) / "scratch", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
