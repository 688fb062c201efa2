"""One prover for all tests that boot guests."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.project import Project
from pipeline.proof.evidence import Evidence
from pipeline.proof.prove import prove, prove_foreign
from pipeline.proof.session import Asked
from pipeline.proof.timeouts import VARIABLE
from pipeline.recipe import Recipe
from pipeline.spec import Spec, load_all
from pipeline.stages import STAGES
from tests.conftest import ROOT, require
from tests.workshop import Workshop


@dataclass
class Prover:
    """Builds a guest that lets our key in, and proves it."""

    workshop: Workshop
    key: Path

    @property
    def recipe(self) -> Recipe:
        project = Project(ROOT, self.workshop.output, self.workshop.guests)
        return Recipe(project, STAGES)

    def spec(self, name: str, **overrides: str) -> Spec:
        keys = {"authorized_keys": f"{self.key}.pub", **overrides}
        return load_all(self.workshop.guests, [name], keys)[name]

    def build(self, name: str, **overrides: str) -> Path:
        words = [f"{key}={value}" for key, value in overrides.items()]
        return self.workshop.built(name, f"authorized_keys={self.key}.pub", *words)

    def prove(self, spec: Spec, asked: Asked | None = None) -> Evidence:
        return prove(self.recipe, spec, asked or Asked(self.key))

    def prove_foreign(self, configuration: Path, asked: Asked | None = None) -> Evidence:
        return prove_foreign(self.recipe, configuration, "4.17", asked or Asked(self.key))


@pytest.fixture(scope="session")
def prover(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Prover:
    require(shutil.which("qemu-system-x86_64") is not None, "qemu-system-x86 is not installed")
    require(shutil.which("ssh-keygen") is not None, "openssh-client is not installed")
    os.environ.setdefault(VARIABLE, "3")  # nothing here is judged by its speed
    key = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return Prover(workshop, key)
