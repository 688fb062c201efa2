"""The word `doctor`: everything looked at, printed, and an exit code for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.console.answer import ANSWER
from pipeline.console.findings import print_findings
from pipeline.console.progress import print_line
from pipeline.dom0.doctor.facts import read_facts
from pipeline.dom0.doctor.guests import find_guest_trouble
from pipeline.dom0.doctor.leftovers import list_leftovers, remove_leftovers
from pipeline.dom0.doctor.pitfalls import find_pitfalls
from pipeline.dom0.layout import Layout
from pipeline.dom0.toolstack import find_toolstack, is_dom0
from pipeline.errors import EnvironmentFault, Finding
from pipeline.preflight import has_vsyscall
from pipeline.process import find_tool
from pipeline.project import Project
from pipeline.spec import Spec

PROGRAMS = "system-packages.txt"
_PURPOSES = {"build": "doit build", "prove": "doit prove", "test": "doit test"}


def examine(
    project: Project, specs: Mapping[str, Spec], *, only_looks: bool, as_json: bool
) -> None:
    """Look at everything; our own leftovers go unless `only_looks`.

    Raises EnvironmentFault (exit code 3) when something is wrong that the user has to mend.
    """
    layout, toolstack = Layout.here(), find_toolstack()
    facts = read_facts(layout.root, toolstack, is_dom0=is_dom0(), has_vsyscall=has_vsyscall())
    findings = [
        *find_pitfalls(facts),
        *find_guest_trouble(specs, layout, facts),
        *find_missing_programs(project),
    ]
    leftovers = list_leftovers(project, layout) if only_looks else remove_leftovers(project, layout)
    if as_json:
        ANSWER.add_findings("", findings, is_dom0=facts.is_dom0, leftovers=leftovers)
    else:
        where = "this host" if facts.is_dom0 else "this machine, which is no dom0"
        print_line(f"{where}:" if findings else f"{where}: nothing to say")
        print_findings(findings)
        print_line("leftovers:" if leftovers else "leftovers: none")
        for line in leftovers:
            print_line(f"  {line}")
    wrong = [finding for finding in findings if finding.level == "error"]
    if wrong:
        raise EnvironmentFault(
            f"{len(wrong)} things are wrong here: {wrong[0].subject}: {wrong[0].message}",
            hint=wrong[0].hint,
        )


def find_missing_programs(project: Project) -> Iterator[Finding]:
    """Programs of system-packages.txt that this machine has not, by what they are for."""
    missing: dict[str, dict[str, str]] = {}
    for line in (project.root / PROGRAMS).read_text().splitlines():
        words = line.split()
        is_entry = len(words) == 3 and not line.startswith("#") and words[2] in _PURPOSES
        if is_entry and find_tool(words[0]) is None:
            missing.setdefault(words[2], {})[words[0]] = words[1].replace(",", " ")
    for purpose, programs in missing.items():
        packages = " ".join(sorted(set(programs.values())))
        yield Finding(
            "warning",
            _PURPOSES[purpose],
            f"would miss {', '.join(sorted(programs))}",
            f"apt-get install --no-install-recommends {packages}",
        )
