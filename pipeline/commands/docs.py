"""`doit docs`: the pages as a site that can be read and searched without a network."""

import os
import sys
from pathlib import Path

from pipeline import process
from pipeline.commands.options import Options
from pipeline.console.progress import print_line
from pipeline.errors import CommandFailed, EnvironmentFault
from pipeline.files import write_durably
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.scratch import scratch_folder
from pipeline.store.store import publish_folder

_LOCK = "requirements-docs.lock"


def build_site(recipe: Recipe, _specs: object, _options: Options) -> None:
    """output/docs/, by Sphinx from locked requirements; a warning of Sphinx's is an error."""
    project = recipe.project
    python = _make_environment(project)
    with scratch_folder(project.scratch, "docs") as scratch:
        site = scratch / "site"
        argv = [python, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
        argv += ["-c", project.root / "docs", "-d", scratch / "trees", project.root, site]
        process.run(argv, env={"HOME": str(scratch)})
        publish_folder(site, project.output / "docs")
    print_line(f"the pages are in {project.output / 'docs' / 'index.html'}")


def _make_environment(project: Project) -> Path:
    """Sphinx's own virtual environment, made anew when its lock has changed; its python."""
    folder = project.output / "docs-venv"
    python, mark = folder / "bin/python", folder / _LOCK
    lock = (project.root / _LOCK).read_bytes()
    if mark.is_file() and mark.read_bytes() == lock:
        return python
    print_line(f"making {folder} from {_LOCK}")
    mark.unlink(missing_ok=True)
    settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    settings = {"PIP_RETRIES": "2", "PIP_DEFAULT_TIMEOUT": "15", **settings}
    try:
        if not (folder / "bin/pip").exists():
            process.run([sys.executable, "-m", "venv", folder])
        pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        process.run([*pip, "--require-hashes", "-r", project.root / _LOCK], env=settings)
    except CommandFailed as error:
        raise EnvironmentFault(
            f"what {_LOCK} names cannot be installed",
            details="\n".join(error.details.splitlines()[-2:]),
            hint="is PyPI reachable? PIP_INDEX_URL, PIP_CERT, or PIP_FIND_LINKS and PIP_NO_INDEX=1",
        ) from error
    write_durably(mark, lock)
    return python
