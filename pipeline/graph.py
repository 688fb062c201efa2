"""Stages x guests as doit tasks. Only this module and console/reporter.py know doit.

The whole graph is made for every guest; `name=` narrows what the words (build, check, why) mean.
Guests that agree on a stage's inputs share one task.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import doit.doit_cmd
from doit.exceptions import TaskFailed

from pipeline.commands import HOST_WORDS, OPTIONS, READING_WORDS, SPEC_WORDS, Word
from pipeline.console.events import Events
from pipeline.console.reporter import StageFailed, StageReporter
from pipeline.console.terminal import print_error
from pipeline.diagnosis import explain_os_error
from pipeline.errors import PipelineError, UsageError, suggest_nearest
from pipeline.mirror.fetch import OFFLINE
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec, create_spec, load_all, parse_overrides, translate_options
from pipeline.stages import STAGES
from pipeline.store.gc import remove_leftovers
from pipeline.walls.privacy import tighten

Task = dict[str, Any]
Tasks = Iterator[Task]
RUN_OPTIONS = OPTIONS | {"replace", "events"}
MOST_THREADS = 4
_CLEARING = {"gc", "doctor"}  # they say what they remove of the dead, and heed dry=yes
_DOIT_READS = {"list", "info", "help", "tabcompletion", "dumpdb"}


class IsCurrent:
    """doit's `uptodate` object: true when the artifact is current; its repr says why not."""

    def __init__(self, recipe: Recipe, stage: str, spec: Spec) -> None:
        self._recipe = recipe
        self._stage = stage
        self._spec = spec
        self.reason = ""
        self.came_from_elsewhere = False  # another run built it while this one waited

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
            return self._recipe.state(self._stage, self._spec).reason
        except PipelineError as error:
            return error.brief


@dataclass(frozen=True)
class Graph:
    """The tasks of one project, for all guests; `chosen` are those that name= names, or all."""

    project: Project
    recipe: Recipe
    specs: Mapping[str, Spec]
    chosen: tuple[str, ...]
    events: Events = field(default_factory=Events)

    @classmethod
    def load(cls) -> Graph:
        """The graph for this command line; a mistake in it ends the program with exit code 2."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold secrets
        try:
            with _explained():
                graph = cls._load(Project.here(), dict(doit.doit_cmd._CMDLINE_VARS or {}))
                return replace(graph, events=Events(graph.recipe.options.get("events", "")))
        except PipelineError as error:
            print_error(error)
            raise SystemExit(error.exit_code) from None

    @classmethod
    def _load(cls, project: Project, variables: dict[str, str]) -> Graph:
        asked = [HOST_WORDS[text] for text in sys.argv[1:] if text in HOST_WORDS]
        if asked:
            return cls._load_for_host(project, variables, asked)
        project.require_usable_paths()
        options = {key: variables.pop(key) for key in RUN_OPTIONS & set(variables)}
        name = variables.pop("name", "") or variables.get("hostname", "").partition(".")[0]
        if variables and not name:
            parse_overrides(variables)  # a misspelt name= is told as such
            raise UsageError(
                f"{', '.join(sorted(variables))}: for which guest?",
                hint="add name=, for example: doit build name=test-drbd size=8G",
            )
        _print_notes(variables)
        if _is_creating():
            print(f"wrote {create_spec(name, variables, project.guests)}")
            variables = {}
        specs = load_all(project.guests, name or None, variables)
        _prepare_output(project)
        recipe = Recipe(project, STAGES, options=options)
        chosen = (name,) if name else tuple(sorted(specs))
        _prepare_kept(recipe, [specs[one] for one in chosen])
        return cls(project, recipe, specs, chosen)

    @classmethod
    def _load_for_host(
        cls, project: Project, variables: dict[str, str], asked: list[Word]
    ) -> Graph:
        """For the words about guests of this host, which need no spec; mistakes in specs wait."""
        _refuse_mixture(asked)
        known = {"name", "events"}.union(*(word.options for word in asked))
        for unknown in sorted(set(variables) - known):
            hint = suggest_nearest(unknown, sorted(known))
            takes = f"doit {asked[0].name} takes: {', '.join(sorted(known))}"
            raise UsageError(
                f"{unknown}= is not a variable of doit {asked[0].name}",
                hint="; ".join(filter(None, (hint, takes))),
            )
        try:
            specs = load_all(project.guests)
        except UsageError:
            specs = {}
        _prepare_output(project)
        return cls(project, Recipe(project, STAGES, options=variables), specs, ())

    @property
    def config(self) -> dict[str, Any]:
        """DOIT_CONFIG: threads, because only they share bars; see docs/architecture.md."""
        return {
            # what is current is asked of the artifacts: doit has nothing to keep from run to run
            "backend": "sqlite3",
            "dep_file": ":memory:",
            "reporter": StageReporter(self.events),
            "num_process": min(MOST_THREADS, os.cpu_count() or 1),
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
        if not self.recipe.stages[stage].is_shared:
            return guest
        spec = self.specs[guest]
        return f"{spec.suite}-{self.recipe.group_of(stage, spec)}"

    def _build(self, stage: str, spec: Spec, current: IsCurrent) -> TaskFailed | None:
        def build() -> None:
            state = self.recipe.build(stage, spec)
            current.came_from_elsewhere = not self.recipe.has_built(state)

        return _guarded(build)

    def words(self, table: Iterable[Word]) -> Tasks:
        """The words of a table, each under its own name: one task a guest, or a single one."""
        for word in table:
            if word.is_single:
                yield {
                    "basename": word.name,
                    "doc": word.doc,
                    "actions": [(_act, [word, self.recipe, self.specs])],
                    "io": {"capture": False},
                    "meta": {"word": word.name},
                }
            else:
                yield {"basename": word.name, "name": None, "doc": word.doc}
                yield from self._word_tasks(word)

    def _word_tasks(self, word: Word) -> Tasks:
        """One task a guest, narrowed to the chosen by name=."""
        for guest in self.chosen if word.name != "create" or _is_creating() else ():
            yield {
                "basename": word.name,
                "name": guest,
                "doc": f"{word.doc}: {self.specs[guest].description or guest}",
                "actions": [(_act, [word, self.recipe, self.specs[guest]])],
                "task_dep": [f"{word.after}:{guest}"] if word.after else [],
                "io": {"capture": False},
                "meta": {"word": word.name, "guests": [guest]},
            }


def _prepare_output(project: Project) -> None:
    if _only_reads():
        return
    project.prepare_output()
    tighten(project.output)
    # modes in an artifact must not depend on who builds it; output/ itself has the user's
    os.umask(0o022)
    if not set(_words()) & _CLEARING:
        remove_leftovers(project)


def _only_reads() -> bool:
    """Whether this command line changes nothing, so that anybody may give it who may look."""
    words = _words()
    return not words or words[0] in _DOIT_READS or set(words) <= READING_WORDS


def _words() -> list[str]:
    """What is asked for: words and tasks, without a guest's name."""
    texts = [text for text in sys.argv[1:] if "=" not in text and not text.startswith("-")]
    return [text.partition(":")[0] for text in texts]


def _refuse_mixture(asked: list[Word]) -> None:
    """A word about installed guests and one about specs mean different things by name=."""
    words = {text.partition(":")[0] for text in sys.argv[1:] if "=" not in text}
    others = words & (SPEC_WORDS | {stage.name for stage in STAGES})
    if others:
        raise UsageError(
            f"doit {asked[0].name} is about guests of this host, doit {min(others)} about specs",
            hint="one after the other: two commands",
        )


def _is_creating() -> bool:
    """The word create writes a spec before the graph is made, so that the graph has its guest."""
    return "create" in sys.argv[1:]


def _print_notes(variables: Mapping[str, str]) -> None:
    """What is done differently here for options of xen-create-image."""
    options = {key: text for key, text in variables.items() if key not in Spec.model_fields}
    for note in translate_options(options).notes:
        print(f"note: {note}")


def _prepare_kept(recipe: Recipe, specs: Iterable[Spec]) -> None:
    """locked=yes and offline=yes: the state to build from is put in place before anything runs."""
    if recipe.options.get("offline") == "yes":
        os.environ[OFFLINE] = "1"
    if recipe.options.get("locked") == "yes":
        from pipeline.lockfile import prepare_locked

        recipe.hold()
        for spec in specs:
            prepare_locked(recipe, spec)


def _act(word: Word, recipe: Recipe, asked: object) -> TaskFailed | None:
    if word.needs_output and not word.only_reads:
        return _guarded(recipe.hold) or _guarded(word.action, recipe, asked)
    return _guarded(word.action, recipe, asked)


def _guarded(action: Callable[..., None], *arguments: Any) -> TaskFailed | None:
    try:
        with _explained():
            action(*arguments)
    except PipelineError as error:
        return StageFailed(error)
    return None


@contextmanager
def _explained() -> Iterator[None]:
    """The system's own errors that a person can mend, as such: a full disk, a missing right."""
    try:
        yield
    except OSError as error:
        explained = explain_os_error(error)
        if explained is None:
            raise
        raise explained from error
