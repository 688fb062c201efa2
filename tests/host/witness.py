"""A finished guest to seed faults into: a copy of its artifact, edited with debugfs and as text."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.check import examine
from pipeline.errors import Finding
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.stages import STAGES

NAME = "witness"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBADMmqZNR7MX2l5Z7xEqzlXW0rDIPo3xBCMYFKbO0sS"
FOREIGN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmO3cWg7fJ0XYq1Wm0S7uH4D6Y6y8p6WmWjO2Zr8w1T"
# the same golden half as the shipped test-drbd; PV, which xm has a configuration for
SPEC = f"""
suite = "bookworm"
type = "pv"
size = "1G"
swap = "64M"
packages = ["drbd-utils"]
authorized_keys = ["{KEY} admin@example.org"]
"""


@dataclass
class Witness:
    """One copy of the guest in a project of its own."""

    project: Project
    spec: Spec
    scratch: Path

    @property
    def folder(self) -> Path:
        return self.project.artifact(self.spec.name)

    @property
    def disk(self) -> Path:
        return self.folder / "disk.img"

    def debugfs(self, *lines: str) -> None:
        script = self.scratch / "script"
        script.write_text("".join(f"{line}\n" for line in lines))
        done = subprocess.run(
            ["debugfs", "-w", "-f", script, self.disk], capture_output=True, text=True, check=True
        )
        complaints = [line for line in done.stderr.splitlines() if not line.startswith("debugfs")]
        assert not complaints, complaints

    def read(self, path: str) -> str:
        return self._ask(f'cat "{path}"').stdout

    def put(self, path: str, text: str, *, mode: int = 0o644, group: int = 0) -> None:
        """Write a file into the image, over the one that is there."""
        source = self.scratch / "source"
        source.write_text(text)
        is_there = "File not found" not in self._ask(f'stat "{path}"').stderr
        remove = [f'rm "{path}"'] if is_there else []
        self.debugfs(
            *remove,
            f'write "{source}" "{path}"',
            f'sif "{path}" mode 0{0o100000 | mode:o}',
            f'sif "{path}" uid 0',
            f'sif "{path}" gid {group}',
        )

    def replace(self, path: str, old: str, new: str, **attributes: int) -> None:
        """Change the text of a file in the image."""
        text = self.read(path)
        assert old in text
        self.put(path, text.replace(old, new), **attributes)

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a text file of the artifact."""
        text = (self.folder / name).read_text()
        assert old in text
        (self.folder / name).write_text(text.replace(old, new))

    def judge(self, *, with_sums: bool = False) -> list[Finding]:
        recipe = Recipe(self.project, STAGES)
        return examine(recipe, self.spec, with_sums=with_sums)

    def failures(self) -> set[str]:
        return {f"{one.code} {one.subject}" for one in self.judge() if one.level == "error"}

    def _ask(self, question: str) -> subprocess.CompletedProcess[str]:
        argv = ["debugfs", "-R", question, str(self.disk)]
        return subprocess.run(argv, capture_output=True, text=True, check=True)


def copy_witness(artifact: Path, spec: Spec, guests: Path, scratch: Path) -> Witness:
    """A copy of a finished artifact, its configurations naming their new place."""
    output = scratch / "output"
    project = Project(Path(__file__).resolve().parents[2], output, guests)
    folder = project.artifact(spec.name)
    folder.mkdir(parents=True)
    for path in artifact.iterdir():
        subprocess.run(["cp", "--sparse=always", path, folder], check=True)
    sums = folder / "SHA256SUMS"
    for suffix in ("cfg", "xm", "xml"):
        path = folder / f"{spec.name}.{suffix}"
        if suffix == "xm" and not path.exists():  # xend never had PVH
            continue
        before = hashlib.sha256(path.read_bytes()).hexdigest()
        path.write_text(path.read_text().replace(str(artifact), str(folder)))
        after = hashlib.sha256(path.read_bytes()).hexdigest()
        sums.write_text(sums.read_text().replace(before, after))
    return Witness(project, spec, scratch)
