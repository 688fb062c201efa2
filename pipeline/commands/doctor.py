"""doit doctor: what will hurt on this host, each with its fix, and what we left lying about."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from pipeline.commands import options
from pipeline.console.answer import ANSWER
from pipeline.console.findings import print_findings
from pipeline.console.progress import print_line
from pipeline.dom0.doctor.configured import Configured
from pipeline.dom0.doctor.facts import read_facts
from pipeline.dom0.doctor.guests import find_guest_trouble
from pipeline.dom0.doctor.leftovers import list_leftovers, remove_leftovers
from pipeline.dom0.doctor.missing_programs import find_missing_programs
from pipeline.dom0.doctor.pitfalls import find_pitfalls
from pipeline.dom0.inventory import survey
from pipeline.dom0.layout import Layout
from pipeline.dom0.toolstack import find_toolstack, is_dom0
from pipeline.errors import EnvironmentFault, Finding, PipelineError
from pipeline.foreign.card_names import find_lost_card
from pipeline.foreign.modernization import survey_guest
from pipeline.foreign.old_guest import read_old_guest
from pipeline.namespace import is_root
from pipeline.preflight import has_vsyscall
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.scratch import scratch_folder
from pipeline.spec import Spec


def doctor(recipe: Recipe, specs: Mapping[str, Spec], asked: options.Doctor) -> None:
    """Look at everything; our own leftovers go unless it only looks.

    Raises EnvironmentFault (exit code 3) when something is wrong that the user has to mend.
    """
    project, layout, toolstack = recipe.project, Layout.here(), find_toolstack()
    facts = read_facts(layout.root, toolstack, is_dom0=is_dom0(), has_vsyscall=has_vsyscall())
    ours = survey(layout)[0]
    foreign = [guest for guest in facts.configured if guest.name not in ours]
    findings = [
        *find_pitfalls(facts),
        *find_guest_trouble(specs, layout, facts),
        *find_lost_cards(project, foreign, toolstack.domains() if toolstack else ()),
        *find_missing_programs(project),
    ]
    leftovers = list_leftovers(project, layout) if asked.dry else remove_leftovers(project, layout)
    if asked.json_form:
        ANSWER.add_findings("", findings, is_dom0=facts.is_dom0, leftovers=leftovers)
    else:
        where = "this host" if facts.is_dom0 else "this machine, which is no dom0"
        _show(where, findings, leftovers)
    wrong = [finding for finding in findings if finding.level == "error"]
    if wrong:
        raise EnvironmentFault(
            f"{len(wrong)} things are wrong here: {wrong[0].subject}: {wrong[0].message}",
            hint=wrong[0].hint,
        )


def _show(where: str, findings: Sequence[Finding], leftovers: Sequence[str]) -> None:
    print_line(f"{where}:" if findings else f"{where}: nothing to say")
    print_findings(findings)
    print_line("leftovers:" if leftovers else "leftovers: none")
    for line in leftovers:
        print_line(f"  {line}")


def find_lost_cards(
    project: Project, guests: Sequence[Configured], running: Collection[str]
) -> Iterator[Finding]:
    """Guests from elsewhere whose files set up a card that their udev calls otherwise.

    Their disks are read in a cage, those that nobody uses: what could not be looked at is said.
    """
    unseen = {}
    for guest in guests:
        if guest.name in running:
            unseen[guest.name] = "it runs"
        elif not is_root():
            unseen[guest.name] = "as root only"
        elif "hvm" not in (guest.values.get("type"), guest.values.get("builder")):
            try:
                yield from _find_lost_card(project, guest)
            except PipelineError as error:
                unseen[guest.name] = error.brief
    if unseen:
        why = "; ".join(f"{name}: {reason}" for name, reason in unseen.items())
        yield Finding("skipped", "cards", f"guests not looked into: {why}", code="unseen")


def _find_lost_card(project: Project, guest: Configured) -> Iterator[Finding]:
    old = read_old_guest(guest.path)
    if not (old.domain.cards and old.domain.disks):
        return
    with scratch_folder(project.scratch, "doctor") as work:
        tree = survey_guest(old, work)[2]
    words = " ".join(str(old.values.get(key, "")) for key in ("cmdline", "extra"))
    name = find_lost_card(tree, words)
    if name:
        yield Finding(
            "warning",
            guest.name,
            f"its files set up {', '.join(tree.interfaces)}, but its card will be called {name}",
            "in the guest: both names in its network files, or net.ifnames=0 for its kernel; "
            f"of a PV guest doit modernize cfg={guest.path} does it",
            code="card",
        )
