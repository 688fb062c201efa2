"""doit doctor: what will hurt on this host, each with its fix, and what we left lying about."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.commands import options
from pipeline.console.answer import ANSWER
from pipeline.console.findings import print_findings
from pipeline.console.progress import print_line
from pipeline.dom0.doctor.configured import Configured
from pipeline.dom0.doctor.facts import read_facts
from pipeline.dom0.doctor.guests import find_guest_trouble
from pipeline.dom0.doctor.leftovers import list_leftovers, remove_leftovers
from pipeline.dom0.doctor.missing_programs import find_missing_programs
from pipeline.dom0.doctor.pitfall import Pitfall
from pipeline.dom0.doctor.pitfalls import find_pitfalls
from pipeline.dom0.inventory import survey
from pipeline.dom0.layout import VARIABLE, Layout
from pipeline.dom0.setup.dom0_file import merge_settings
from pipeline.dom0.setup.host_change import apply_change, changing_host, read_settings
from pipeline.dom0.setup.host_plan import plan_change, show_plan
from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.toolstack import find_toolstack, is_dom0
from pipeline.errors import EnvironmentFault, Finding, PipelineError, VerificationError
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
    """Look at everything, mend with fix=; our own leftovers go unless it only looks.

    Raises EnvironmentFault (exit code 3) when something is wrong that the user has to mend.
    """
    layout = Layout.here()
    findings = look(recipe.project, specs, layout)
    if not asked.json_form:
        where = "this host" if is_dom0() else "this machine, which is no dom0"
        print_line(f"{where}:" if findings else f"{where}: nothing to say")
        print_findings(findings)
    mended: list[str] = []
    if asked.fix:
        mended = mend(layout, findings, only_shows=asked.dry, is_silent=asked.json_form)
        findings = findings if asked.dry else look(recipe.project, specs, layout)
    leftovers = _end_leftovers(recipe.project, layout, only_looks=asked.dry)
    if asked.json_form:
        facts = {"is_dom0": is_dom0(), "leftovers": leftovers, "mended": mended}
        ANSWER.add_findings("", findings, **facts)
    else:
        _show_rest(findings, leftovers, mended=[] if asked.dry else mended)
    wrong = [finding for finding in findings if finding.level == "error"]
    if wrong:
        raise EnvironmentFault(
            f"wrong here ({len(wrong)}): {wrong[0].subject}: {wrong[0].message}",
            hint=wrong[0].hint,
        )


def look(project: Project, specs: Mapping[str, Spec], layout: Layout) -> list[Finding]:
    """Everything that is found here."""
    toolstack = find_toolstack()
    facts = read_facts(layout.root, toolstack, is_dom0=is_dom0(), has_vsyscall=has_vsyscall())
    ours = survey(layout)[0]
    foreign = [guest for guest in facts.configured if guest.name not in ours]
    return [
        *find_pitfalls(facts),
        *find_guest_trouble(specs, layout, facts),
        *find_lost_cards(project, foreign, toolstack.domains() if toolstack else ()),
        *find_missing_programs(project),
    ]


def mend(
    layout: Layout, findings: Sequence[Finding], *, only_shows: bool, is_silent: bool
) -> list[str]:
    """What doit dom0 can set and take back, as one change of it; returns the codes it is for.

    Raises what `plan_change` and `apply_change` do.
    """
    pitfalls = list(_mendable(findings))
    say = (lambda _text: None) if is_silent else print_line
    if not pitfalls:
        say("nothing here can be mended by fix=yes: what to type is said above")
        return []
    is_trial = layout.root != Path("/")
    if not (is_root() or is_trial):
        raise EnvironmentFault("a host is set up by root only", hint="sudo ./doit doctor fix=yes")
    with changing_host(layout) as done:
        plan, remarks = plan_change(layout, _settings(layout, pitfalls))
        print_findings([] if is_silent else [said for said in remarks if said.level != "ok"])
        for text in [*done, *show_plan(plan, brief=not only_shows)]:
            say(text)
        if not plan.files:
            say("the files say so already: it counts from the next start of the host on")
            return []
        if not only_shows:
            apply_change(layout, plan)
    if is_trial:
        say(f"  below {layout.root} ({VARIABLE}): files alone, no command is run")
    for line in _lines(pitfalls):
        say(f"  in dom0.toml, where there is one: {line}")
    say("nothing was changed: dry=yes" if only_shows else "to take it back: doit dom0 undo=yes")
    return [pitfall.code for pitfall in pitfalls]


def _settings(layout: Layout, pitfalls: Sequence[Pitfall]) -> HostSettings:
    """What is in force, and what mends these; VerificationError for a name that cannot be."""
    settings = read_settings(layout)
    for pitfall in pitfalls:
        try:
            settings = merge_settings(settings, dict(pitfall.settings))
        except ValueError as error:
            raise VerificationError(
                f"{pitfall.subject}: {_lines([pitfall])} cannot stand in dom0.toml: {error}",
                hint=f"mend it by hand: {pitfall.hint}",
            ) from error
    return settings


def _mendable(findings: Sequence[Finding]) -> Iterator[Pitfall]:
    for finding in findings:
        if isinstance(finding, Pitfall) and finding.settings:
            yield finding


def _lines(pitfalls: Sequence[Pitfall]) -> list[str]:
    """What was set, as dom0.toml has it: [boot] dom0_mem = "1024M"."""
    tables = [table for pitfall in pitfalls for table in pitfall.settings.items()]
    lines = [
        f"[{name}] {key} = {json.dumps(value)}"
        for name, keys in tables
        for key, value in keys.items()
    ]
    return list(dict.fromkeys(lines))


def _end_leftovers(project: Project, layout: Layout, *, only_looks: bool) -> list[str]:
    return list_leftovers(project, layout) if only_looks else remove_leftovers(project, layout)


def _show_rest(
    findings: Sequence[Finding], leftovers: Sequence[str], *, mended: Sequence[str]
) -> None:
    if mended:
        print_line("what is left:" if findings else "nothing is left")
        print_findings(findings)
    elif any(_mendable(findings)):
        print_line("doit doctor fix=yes mends what doit dom0 can take back; dry=yes shows it")
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
            code="card-name",
        )
