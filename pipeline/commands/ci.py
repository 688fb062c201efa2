"""Jobs for CI systems: one a guest."""

import json
import sys
from collections.abc import Sequence

from pipeline.commands.site_options import CiMatrix
from pipeline.console import output_file
from pipeline.errors import UsageError
from pipeline.recipe import Recipe
from pipeline.spec import Specs

# GitLab reads it from the checkout; what a job does stands there
GITLAB_JOB = "ci/gitlab-guest.yml"


def write_matrix(recipe: Recipe, specs: Specs, options: CiMatrix) -> None:
    """A job a guest. One whose spec is broken has a job too, which says what is wrong with it."""
    guests = list(dict.fromkeys(options.name.split(","))) if options.name else sorted(specs.names)
    if not guests:
        raise UsageError(
            f"{recipe.project.guests} has no guest to build", hint="doit create name=web1 makes one"
        )
    text = _gitlab(guests) if options.format == "gitlab" else _github(guests)
    if options.to is None:
        sys.stdout.write(text)
        return
    output_file.prepare(options.to, "to")
    output_file.write(options.to, text.encode(), "to")


def _gitlab(guests: Sequence[str]) -> str:
    """A child pipeline. A job has a word before the name: `cache` and `pages` are keywords."""
    lines = ["# made by: doit ci-matrix format=gitlab", "include:", f"  - local: {GITLAB_JOB}"]
    for guest in guests:
        job, value = json.dumps(f"guest {guest}"), json.dumps(guest)
        lines += ["", f"{job}:", "  extends: .guest", "  variables:", f"    GUEST: {value}"]
    return "".join(f"{line}\n" for line in lines)


def _github(guests: Sequence[str]) -> str:
    """What `strategy.matrix` takes with fromJSON, in one line."""
    return f"{json.dumps({'guest': guests})}\n"
