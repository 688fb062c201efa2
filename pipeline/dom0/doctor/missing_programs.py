"""What `doit build`, `prove` and `test` would miss here: programs of system-packages.txt."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import Finding
from pipeline.process import find_tool
from pipeline.project import Project

PROGRAMS = "system-packages.txt"
_PURPOSES = {"build": "doit build", "prove": "doit prove", "test": "doit test"}


def _is_there(program: str) -> bool:
    """A program of this machine, or a file that programs need."""
    if program.startswith("/"):
        return Path(program).exists()
    return find_tool(program) is not None


def find_missing_programs(project: Project) -> Iterator[Finding]:
    """Programs of system-packages.txt that this machine has not, by what they are for."""
    missing: dict[str, dict[str, str]] = {}
    for line in (project.root / PROGRAMS).read_text().splitlines():
        words = line.split()
        is_entry = len(words) == 3 and not line.startswith("#") and words[2] in _PURPOSES
        if is_entry and not _is_there(words[0]):
            missing.setdefault(words[2], {})[words[0]] = words[1].replace(",", " ")
    for purpose, programs in missing.items():
        packages = " ".join(sorted(set(programs.values())))
        yield Finding(
            "warning",
            _PURPOSES[purpose],
            f"would miss {', '.join(sorted(programs))}",
            f"apt-get install --no-install-recommends {packages}",
            code="programs",
        )
