"""Stages x guests as doit tasks. Only this module and console/reporter.py know doit.

The whole graph is made for every guest; `name=` narrows what a command (build, check, why) means.
Guests that agree on a stage's inputs share one task.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from doit.exceptions import TaskFailed

from pipeline import interruption, process
from pipeline.appliance.members import Appliance, Appliances, read_appliances
from pipeline.commands import COMMANDS
from pipeline.commands.command import Command
from pipeline.commands.command_line import CommandLine, read_command_line
from pipeline.commands.create import create
from pipeline.commands.summary import print_summary
from pipeline.console.answer import ANSWER
from pipeline.console.events import Events
from pipeline.console.progress import WARNING, print_line
from pipeline.console.reporter import StageFailed, StageReporter
from pipeline.console.terminal import print_error
from pipeline.diagnosis import describe_room, explained, is_disk_full
from pipeline.elsewhere import SharedArtifacts
from pipeline.errors import EnvironmentFault, PipelineError, UsageError, WrongValueError
from pipeline.fleet.address import check_workers
from pipeline.fleet.task_graph import artifact_name
from pipeline.guest.passwords import ask_root_hashes
from pipeline.lockfile import prepare_locked
from pipeline.mirror.fetch import OFFLINE
from pipeline.plan import require_buildable
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.shared.fleet_file import find_certificates, find_party_name, find_store, find_workers
from pipeline.spec import Spec, Specs, is_key, load_all, translate_options
from pipeline.stages import STAGES
from pipeline.store.gc import remove_leftovers
from pipeline.walls.privacy import tighten

if TYPE_CHECKING:
    from pipeline.fleet.dispatch import Dispatch

Task = dict[str, Any]
Tasks = Iterator[Task]
MOST_THREADS = 4
MOST_WAITING = 64  # threads that wait for a fleet's workers


class IsCurrent:
    """doit's `uptodate` object: true when the artifact is current; its repr says why not."""

    def __init__(self, recipe: Recipe, stage: str, spec: Spec) -> None:
        self._recipe = recipe
        self._stage = stage
        self._spec = spec
        self.reason = ""
        self.early_s = 0.0  # it was built for so long before its task
        self.origin = "built"  # or pulled; "" where another run built it while this one waited

    def __call__(self, *_arguments: object) -> bool:
        """What doit asks, with the task and its saved values."""
        self.reason = self._find_reason()
        return not self.reason

    def __repr__(self) -> str:
        return self._find_reason() or "current"

    def facts(self) -> dict[str, str]:
        """The artifact's fingerprint and folder, for events."""
        state = self._recipe.state(self._stage, self._spec)
        return {"fingerprint": state.fingerprint, "folder": str(state.folder)}

    def _find_reason(self) -> str:
        """A mistake in the inputs is a reason too: the build that follows reports it."""
        try:
            state = self._recipe.state(self._stage, self._spec)
            early = self._recipe.find_early(state)
            self.early_s = early.seconds if early else 0.0
            return early.reason if early else state.reason
        except PipelineError as error:
            return error.brief


@dataclass(frozen=True)
class Graph:
    """The tasks of one project, for all guests; `chosen` are those that name= names, or all.

    `appliance` is the one whose members they are, if that is what was asked for.
    """

    project: Project
    recipe: Recipe
    specs: Specs
    chosen: tuple[str, ...]
    line: CommandLine
    unfit: tuple[PipelineError, ...] = ()
    appliance: Appliance | None = None
    events: Events = field(default_factory=Events)
    dispatch: Dispatch | None = None
    # of those that build here, while others wait for a fleet's workers
    places: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_threads()))

    @classmethod
    def load(cls) -> Graph:
        """The graph for this command line; a mistake in it ends the program with exit code 2."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold secrets
        ANSWER.begin()
        try:
            with explained():
                line = read_command_line(sys.argv[1:])
                if line.is_for_programs:
                    ANSWER.want()
                if line.junit:
                    ANSWER.want_junit(line.junit, " ".join(line.words))
                interruption.install()
                project = Project.here()
                graph = cls._load(project, line)
                path = line.options_of(line.commands[0]).events
                graph = replace(graph, events=Events(str(path or "")))
                workers = find_workers(project, line.workers) if line.may_share else ""
                return graph._with_fleet(workers) if workers else graph
        except PipelineError as error:
            print_error(error)
            ANSWER.add_failure((), error)
            with suppress(PipelineError):
                ANSWER.write_junit(0.0)
            ANSWER.print(error.exit_code, 0.0)
            raise SystemExit(error.exit_code) from None

    @classmethod
    def _load(cls, project: Project, line: CommandLine) -> Graph:
        if not line.makes_site:
            project.require_site()
        if line.is_of_host:
            # mistakes in specs wait
            specs = Specs()
            with suppress(UsageError):
                specs = load_all(project.guests, further=read_appliances(project).guests)
            _prepare_output(project, line)
            return cls(project, Recipe(project, STAGES), specs, (), line)
        project.require_usable_paths()
        known = read_appliances(project)
        names = known.guests_of(line.appliance) if line.appliance else line.guests
        shared = _open_shared(project, line)
        recipe = Recipe(project, STAGES, options=line.building, shared=shared)
        specs = _read_specs(recipe, line, names, known)
        chosen = names or tuple(sorted(specs.keys() - known.guests.keys()))
        unfit = _prepare_guests(recipe, line, [specs[guest] for guest in chosen])
        chosen = tuple(guest for guest in chosen if guest not in unfit)
        appliance = known.make(line.appliance, specs) if line.appliance else None
        graph = cls(project, recipe, specs, chosen, line, tuple(unfit.values()), appliance)
        graph._require_tasks()
        if not all(command.is_single for command in line.commands):
            every = (*chosen, *unfit)
            if appliance and all(command.whole for command in line.commands):
                every = names = (appliance.name,)
            ANSWER.expect(every, is_one=len(names) == 1, is_build=line.is_building)
            for guest, error in unfit.items():
                ANSWER.add_failure([guest], error)
        return graph

    def _with_fleet(self, workers: str) -> Graph:
        """The same with its stages built by that fleet."""
        from pipeline.fleet.dispatch import Dispatch
        from pipeline.fleet.handshake import find_own_party

        try:
            check_workers(workers)
        except WrongValueError as error:
            raise UsageError(f"workers: {error.message}", hint=error.hint) from error
        if self.recipe.options.locked or self.recipe.options.offline:
            raise UsageError(
                "workers= goes with neither locked=yes nor offline=yes",
                hint="both are about what lies on this machine: build here, without workers=",
            )
        specs = [self.specs[guest] for guest in self.chosen]
        dispatch = Dispatch(
            self.recipe,
            specs,
            workers,
            store=find_store(self.project, self.line.given.get("store")),
            party=find_own_party(self.project, None, None),
            tell=self.events.emit,
        )
        self.recipe.elsewhere = dispatch
        return replace(self, dispatch=dispatch)

    def _require_tasks(self) -> None:
        """Of what is asked for as NAME:WHAT."""
        for word in self.line.tasks:
            name, _, rest = word.partition(":")
            if name in self.recipe.stages:
                known = {self._task_name(name, guest) for guest in self.specs}
            else:
                known = set() if COMMANDS[name].is_single else set(self.chosen)
            if rest not in known:
                raise UsageError(f"{word}: no such task", hint="doit list --all shows them")

    @property
    def _broken(self) -> tuple[PipelineError, ...]:
        """What is wrong with specs, where it is about all guests: said when the others are done."""
        is_told = (
            self.line.guests
            or self.line.appliance
            or all(command.is_single for command in self.line.commands)
        )
        told = () if is_told or not self.specs.broken else (self.specs.broken,)
        return (*told, *self.unfit)

    @property
    def config(self) -> dict[str, Any]:
        """DOIT_CONFIG: threads, because only they share bars; see docs/architecture.md."""
        return {
            # what is current is asked of the artifacts: doit has nothing to keep from run to run
            "backend": "sqlite3",
            "dep_file": ":memory:",
            "reporter": StageReporter(self.events, self._broken, print_summary),
            "num_process": MOST_WAITING if self.dispatch else _threads(),
            "par_type": "thread",
            "verbosity": 2,
            "default_tasks": ["guests"],
        }

    def stage_tasks(self, stage: str) -> Tasks:
        """One task for each different artifact of a stage, with the guests that it serves."""
        summary = self.recipe.stages[stage].summary
        yield {"name": None, "doc": summary}
        served: dict[str, list[str]] = {}
        for name in (*self.chosen, *self.specs):
            guests = served.setdefault(self._task_name(stage, name), [])
            if name not in guests:
                guests.append(name)
        for task, guests in served.items():
            spec = self.specs[guests[0]]
            current = IsCurrent(self.recipe, stage, spec)
            shared = self.recipe.stages[stage].is_shared
            yield {
                "name": task,
                "doc": f"{summary}, for {', '.join(guests)}" if shared else summary,
                "actions": [(self._build, [stage, spec, current])],
                "task_dep": [
                    f"{upper}:{self._task_name(upper, guests[0])}"
                    for upper in self.recipe.stages[stage].after
                ],
                "uptodate": [current],
                "io": {"capture": False},
                "meta": {"stage": stage, "current": current, "guests": guests},
            }

    def _task_name(self, stage: str, guest: str) -> str:
        return artifact_name(self.recipe, stage, self.specs[guest])

    def _build(self, stage: str, spec: Spec, current: IsCurrent) -> TaskFailed | None:
        def build() -> None:
            if self.dispatch:
                self.dispatch.wait(stage, spec)
            with self.places:
                state = self.recipe.build(stage, spec)
            current.origin = self.recipe.origin(state)
            if self.dispatch:
                self.dispatch.compare(stage, spec, state.fingerprint)

        return _guarded(self.project, build)

    def command_tasks(self) -> Tasks:
        """The commands, each under its own name: one task a guest, or a single one."""
        for command in COMMANDS.values():
            if command.is_single:
                yield {
                    "basename": command.name,
                    "doc": command.doc,
                    "actions": [(self._act, [command, self.specs])],
                    "io": {"capture": False},
                    "meta": {"word": command.name},
                }
            else:
                yield {"basename": command.name, "name": None, "doc": command.doc}
                yield from self._tasks_of(command)

    def _tasks_of(self, command: Command) -> Tasks:
        """One task a guest, narrowed to the chosen by name=; one for an appliance as a whole."""
        subjects: dict[str, Spec | Appliance] = {}
        if command.whole and self.appliance:
            subjects[self.appliance.name] = self.appliance
        elif not command.creates or command in self.line.commands:
            subjects |= {guest: self.specs[guest] for guest in self.chosen}
        for name, subject in subjects.items():
            yield {
                "basename": command.name,
                "name": name,
                "doc": f"{command.doc}: {subject.description or name}",
                "actions": [(self._act, [command, subject])],
                "task_dep": [f"{command.after}:{name}"] if command.after else [],
                "io": {"capture": False},
                "meta": {"word": command.name, "guests": [name]},
            }

    def _act(self, command: Command, subject: object) -> TaskFailed | None:
        def act() -> None:
            options = self.line.options_of(command)
            if command.needs_output and not command.only_reads:
                self.recipe.hold()
            command.run(self.recipe, subject, options)

        return _guarded(self.project, act)


def _read_specs(
    recipe: Recipe, line: CommandLine, names: Sequence[str], known: Appliances
) -> Specs:
    """The specs of all guests, the new one's among them where one is created."""
    project, variables = recipe.project, line.variables
    if variables and not names:
        raise UsageError(
            f"{', '.join(sorted(variables))}: for which guest?",
            hint="add name=, for example: doit build name=test-drbd size=8G",
        )
    _print_notes(variables)
    if line.is_creating:
        _prepare_output(project, line)
        recipe.root_hashes = create(line, project, partial(_require, recipe))
        variables = {}
    specs = load_all(project.guests, names, variables, known.guests)
    if names and specs.problems and not line.only_reads:
        left_out = ", ".join(
            guest if guest in known.guests else f"{project.guests.name}/{guest}.toml"
            for guest in specs.problems
        )
        broken = f"{left_out}: broken, not compared with {', '.join(names)} (doit guests)"
        print_line(WARNING, f" {broken}")
    if not line.is_creating:
        _prepare_output(project, line)
    return specs


def _open_shared(project: Project, line: CommandLine) -> SharedArtifacts | None:
    """The store that this run shares with other machines, if there is one."""
    url = find_store(project, line.given.get("store")) if line.may_share else ""
    if not url:
        return None
    if line.building.offline:
        os.environ[OFFLINE] = "1"
    try:
        from pipeline.shared.shared_store import open_store  # the libraries of a fleet, an extra
    except ImportError as error:
        hint = f"./doit build store={url} installs what it needs"
        raise EnvironmentFault(f"{url}: {error}", hint=hint) from error
    own = find_party_name(project)
    return open_store(url, find_certificates(project), project.scratch, name=own)


def _threads() -> int:
    return min(MOST_THREADS, os.cpu_count() or 1)


def _require(recipe: Recipe, spec: Spec) -> None:
    _prepare_kept(recipe, [spec])
    require_buildable(recipe, spec, process.run)


def _prepare_guests(
    recipe: Recipe, line: CommandLine, specs: Sequence[Spec]
) -> dict[str, PipelineError]:
    """What has to be there and said before anything runs; the guests that cannot be built.

    Raises where none can.
    """
    if not line.makes_disks:
        _prepare_kept(recipe, specs)
        return {}
    unfit = {} if line.is_creating else _find_unfit(recipe, specs)
    if not line.is_creating:
        recipe.root_hashes = ask_root_hashes(spec for spec in specs if spec.name not in unfit)
    return unfit


def _find_unfit(recipe: Recipe, specs: Sequence[Spec]) -> dict[str, PipelineError]:
    unfit = {}
    for spec in specs:
        try:
            _require(recipe, spec)
        except PipelineError as error:
            unfit[spec.name] = error
    if specs and len(unfit) == len(specs):
        *others, last = unfit.values()
        for other in others:
            print_error(other)
        raise last
    return unfit


def _prepare_output(project: Project, line: CommandLine) -> None:
    if line.only_reads:
        return
    project.prepare_output()
    tighten(project.output)
    # modes in an artifact must not depend on who builds it; output/ itself has the user's
    os.umask(0o022)
    if not line.clears:
        remove_leftovers(project)


def _print_notes(variables: Mapping[str, str]) -> None:
    """What is done differently here for options of xen-create-image."""
    options = {key: text for key, text in variables.items() if not is_key(key, text)}
    for note in translate_options(options).notes:
        print_line(f"note: {note}")


def _prepare_kept(recipe: Recipe, specs: Iterable[Spec]) -> None:
    """locked=yes and offline=yes: the state to build from is put in place before anything runs."""
    if recipe.options.offline:
        os.environ[OFFLINE] = "1"
    if recipe.options.locked:
        recipe.hold()
        for spec in specs:
            prepare_locked(recipe, spec)


def _guarded(project: Project, action: Callable[[], None]) -> TaskFailed | None:
    try:
        with explained():
            action()
    except PipelineError as error:
        if is_disk_full(error):
            room = describe_room(project.output)
            error.details = "\n".join(filter(None, (error.details.rstrip(), room)))
        return StageFailed(error)
    return None
