"""A host's folder with an installed guest, asked in this process as the command line would.

What a word says and how it ends is the same as on the command line; anything but a PipelineError is
what a user would see as a traceback.
"""

import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from pipeline.commands import COMMANDS
from pipeline.commands.command_line import read_command_line
from pipeline.errors import PipelineError
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.stages import STAGES
from tests.conftest import ROOT
from tests.host.small_artifact import ABIS, make_artifact, make_kernel

NAME = "web1"
WITNESS = "a file of the host"


@dataclass(frozen=True)
class Said:
    """How a word ended: 0 or the error's exit code, its lines, the error."""

    code: int
    text: str
    error: PipelineError | None = None


class LifeBench:
    """Everything of a guest below `work`: artifact, kernels, host's folder, its witness."""

    def __init__(self, work: Path, **keys: str) -> None:
        self.work, self.root, self.output = work, work / "root", work / "output"
        self.keys = keys
        self.witness = work / "srv"
        self.artifact = self.output / "guests" / NAME
        (work / "guests").mkdir(parents=True)
        self.spec = Spec.model_validate({"name": NAME, "suite": "bookworm", **keys})
        for abi in ABIS:
            make_kernel(work / abi, abi)
        self.make_artifact(ABIS[0], "one")
        self.witness.mkdir()
        (self.witness / "passwd").write_text(WITNESS)

    def make_artifact(self, abi: str, generation: str, **keys: str) -> None:
        """The artifact as a build leaves it, in place of the one before."""
        shutil.rmtree(self.artifact, ignore_errors=True)
        self.artifact.mkdir(parents=True)
        kernel = make_kernel(self.work / f"kernel-{abi}-{generation}", abi, flavour=generation)
        make_artifact(
            self.artifact, NAME, kernel=kernel, generation=generation, **self.keys, **keys
        )

    def ask(self, word: str, *typed: str, **options: str) -> Said:
        """One word of the command line, with what is typed after it or else with these options.

        `of` stands for from; with options it is this guest that is meant.
        """
        if "of" in options:
            options["from"] = options.pop("of")
        command = COMMANDS[word]
        if command.is_of_host and "name" in command.variables and not typed:
            options.setdefault("name", NAME)
        project = Project(ROOT, self.output, self.work / "guests")
        heard = io.StringIO()
        subject: object = {NAME: self.spec} if command.is_single else self.spec
        with redirect_stdout(heard):
            try:
                line = read_command_line([word, *typed, *map("=".join, options.items())])
                recipe = Recipe(project, STAGES, options=line.building)
                command.run(recipe, subject, line.options_of(command))
            except PipelineError as error:
                return Said(error.exit_code, heard.getvalue(), error)
        return Said(0, heard.getvalue())

    def demand(self, word: str, *typed: str, **options: str) -> str:
        """A word that must go well."""
        said = self.ask(word, *typed, **options)
        assert said.error is None, f"{said.error} {said.error.details}\n{said.text}"
        return said.text

    def refused(self, word: str, *typed: str, **options: str) -> PipelineError:
        """A word that must end with one clear error and change nothing."""
        before = self.stock()
        said = self.ask(word, *typed, **options)
        assert said.error is not None, said.text
        assert "\n" not in said.error.brief
        assert said.error.hint, said.error.brief
        changed = set(self.stock().items()) ^ set(before.items())
        assert not changed, f"a refusal changed something: {changed}"
        self.require_host()
        return said.error

    def require_host(self) -> None:
        """Nothing of the host was touched."""
        assert [path.name for path in self.witness.iterdir()] == ["passwd"]
        assert (self.witness / "passwd").read_text() == WITNESS

    def stock(self) -> dict[str, str]:
        """Every entry of the host's folder and of what is published, with its kind and bytes."""
        found = {}
        for top in (self.root, self.output / "published"):
            for path in sorted(top.rglob("*")):
                if "locks" not in str(path) and path.name not in ("var", "lib", "domu"):
                    found[str(path)] = _describe(path)
        return found

    @property
    def record(self) -> Path:
        return self.root / "var/lib/domu/installed" / f"{NAME}.json"

    @property
    def journal(self) -> Path:
        return self.root / "var/lib/domu/journal" / f"{NAME}.json"

    @property
    def config(self) -> Path:
        return self.root / "etc/xen" / f"{NAME}.cfg"

    def disk(self, generation: int = 1, name: str = "disk.img") -> Path:
        return self.root / "var/lib/xen/images" / NAME / str(generation) / name

    def kernels(self) -> list[str]:
        folder = self.root / "var/lib/xen/kernels"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    @property
    def published(self) -> Path:
        return self.output / "published" / NAME

    def versions(self) -> list[Path]:
        return sorted(path for path in self.published.iterdir() if path.name.startswith("2"))

    def edit_record(self, **changes: object) -> None:
        """The record with other values."""
        table = {**json.loads(self.record.read_text()), **changes}
        self.record.write_text(json.dumps(table))


def _describe(path: Path) -> str:
    state = path.lstat()
    if path.is_symlink():
        return f"link {os.readlink(path)}"
    if path.is_file():
        return f"{state.st_size} {state.st_mtime_ns} {state.st_ino}"
    return f"{state.st_mode:o}"


@contextmanager
def kept_as_it_was(bench: LifeBench, aside: Path) -> Iterator[None]:
    """What a test changes below `work` is put back: making it anew for each would take a minute."""
    if not aside.exists():
        subprocess.run(["cp", "-a", "--sparse=always", bench.work, aside], check=True)
    try:
        yield
    finally:
        subprocess.run(["rm", "-rf", bench.work], check=True)
        subprocess.run(["cp", "-a", "--sparse=always", aside, bench.work], check=True)
