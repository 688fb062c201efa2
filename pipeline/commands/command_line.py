"""The command line, read and judged as a whole before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pipeline.build_options import BuildOptions
from pipeline.commands import COMMANDS
from pipeline.commands.arguments import KNOWN, READ_BY_DOIT, RUN_BY_DOIT, read_arguments
from pipeline.commands.command import Command
from pipeline.commands.options import Options, Sharing, variables_of
from pipeline.errors import Finding, SpecError, UsageError, WrongValueError, suggest_nearest
from pipeline.spec import Spec, known_variables
from pipeline.spec.annotations import strip_annotation
from pipeline.spec.explain import explain_mistake
from pipeline.spec.layers import convert_text
from pipeline.spec.xen_create_image.options import COMMAND_LINE, find_option
from pipeline.stages import STAGES

_HAVE_TASKS = KNOWN - READ_BY_DOIT - RUN_BY_DOIT
AnyOptions = TypeVar("AnyOptions", bound=BaseModel)


@dataclass(frozen=True)
class CommandLine:
    """What is asked for: `words` are commands, stages and doit's own, without a guest's name.
    `tasks` are those that are asked for as STAGE:NAME or COMMAND:NAME.

    `commands` are those of ours; a stage, or a word of doit's, takes what `build` takes. `given`
    are the variables of commands, `variables` those that say what a guest is to be.
    """

    words: tuple[str, ...]
    tasks: tuple[str, ...]
    commands: tuple[Command, ...]
    given: Mapping[str, str]
    variables: Mapping[str, str]

    @property
    def is_of_host(self) -> bool:
        """Whether it is about guests of this host, which need no spec."""
        return any(command.is_of_host for command in self.commands)

    @property
    def only_reads(self) -> bool:
        """Whether it changes nothing, so that anybody may give it who may look."""
        if self.words and self.words[0] in READ_BY_DOIT:
            return True
        return all(command.only_reads for command in self.commands)

    @property
    def clears(self) -> bool:
        """Whether it says itself what it removes of the dead."""
        return any(command.clears for command in self.commands)

    @property
    def makes_site(self) -> bool:
        """Whether a site is made, which need not be there."""
        return COMMANDS["init"] in self.commands

    @property
    def is_building(self) -> bool:
        """Whether stages are built for its guests."""
        return any(command.after for command in self.commands)

    @property
    def workers(self) -> str:
        """The fleet that workers= names; "" where this machine builds alone."""
        asked = (getattr(self.options_of(command), "workers", None) for command in self.commands)
        return next(filter(None, asked), "")

    @property
    def is_for_programs(self) -> bool:
        """Whether a program wants the answer, by json=yes."""
        asked = (self.options_of(command) for command in self.commands)
        return any(getattr(options, "json_form", False) for options in asked)

    @property
    def junit(self) -> Path | None:
        """The file that junit= names."""
        asked = (getattr(self.options_of(command), "junit", None) for command in self.commands)
        return next(filter(None, asked), None)

    @property
    def is_creating(self) -> bool:
        """Whether a spec is written before the graph is made, so that the graph has its guest."""
        return any(command.creates for command in self.commands)

    @property
    def makes_disks(self) -> bool:
        """Whether a guest's own disks are made: what those need is asked for at the start."""
        words = {command.name for command in COMMANDS.values() if command.after}
        words.update(stage.name for stage in STAGES if not stage.is_shared)
        return not words.isdisjoint(self.words)

    @property
    def guests(self) -> tuple[str, ...]:
        """The guests that name= or hostname= names; none where all are meant."""
        named = self.given.get("name") or self.variables.get("hostname", "").partition(".")[0]
        return tuple(dict.fromkeys(named.split(","))) if named else ()

    @property
    def appliance(self) -> str:
        """The appliance whose members are meant, if any."""
        return self.given.get("appliance", "")

    @property
    def building(self) -> BuildOptions:
        """How stages are built, whichever command asks."""
        return _read(BuildOptions, self.given, []) or BuildOptions()

    @property
    def may_share(self) -> bool:
        """Whether something is built, which other machines may have built already."""
        asked = (self.options_of(command) for command in self.commands)
        return not self.only_reads and any(isinstance(options, Sharing) for options in asked)

    def options_of(self, command: Command) -> Options:
        """What a command is given; raises SpecError with all that is wrong."""
        problems: list[Finding] = []
        options = _read(command.options, self.given, problems)
        if options is None:
            raise _refusal(problems)
        return options


def read_command_line(arguments: Sequence[str]) -> CommandLine:
    """What stands on it; raises UsageError with every mistake but those in a spec's values.

    A variable must be one of at least one command; each command gets its own.
    """
    plain = [text for text in read_arguments(arguments) if text[:1] != "-"]
    words = tuple(text.partition(":")[0] for text in plain if "=" not in text)
    tasks = tuple(text for text in plain if ":" in text and text.partition(":")[0] in _HAVE_TASKS)
    texts = dict(text.split("=", 1) for text in plain if "=" in text)
    commands = _commands_of(words)
    own = {name for command in commands for name in command.variables}
    takes_spec = any(command.takes_spec for command in commands)
    problems: list[Finding] = []
    given: dict[str, str] = {}
    variables: dict[str, str] = {}
    for name, text in texts.items():
        key = name.replace("-", "_")
        if key in own:
            given[key] = text
        elif takes_spec and (key in Spec.model_fields or find_option(name)):
            variables[name] = text
        else:
            problems.append(_unknown(name, commands))
    wrong: list[Finding] = []
    for command in commands:
        _read(command.options, given, wrong, command)
    # what is missing may be what was misspelt
    problems += [problem for problem in wrong if not problems or problem.subject in given]
    if problems:
        raise _refusal(list(dict.fromkeys(problems)))
    return CommandLine(words, tasks, commands, given, variables)


def _commands_of(words: Sequence[str]) -> tuple[Command, ...]:
    """The commands that the words are; a stage, or a word of doit's, stands for `build`.

    Raises UsageError for what cannot be on one line.
    """
    commands = [COMMANDS[word] for word in dict.fromkeys(words) if word in COMMANDS]
    others = [word for word in words if word not in COMMANDS and word in KNOWN]
    if others:
        commands.append(replace(COMMANDS["build"], name=others[0]))
    of_host = [command.name for command in commands if command.is_of_host]
    of_specs = [command.name for command in commands if not command.is_of_host]
    if of_host and of_specs:
        raise UsageError(
            f"doit {of_host[0]} is about guests of this host, doit {of_specs[0]} about specs",
            hint="one after the other: two commands",
        )
    return tuple(commands) or (COMMANDS["guests"],)


def _read(
    model: type[AnyOptions],
    given: Mapping[str, str],
    problems: list[Finding],
    command: Command | None = None,
) -> AnyOptions | None:
    """The options, None where some are wrong, which is added to `problems`."""
    fields = variables_of(model)
    known = {name: text for name, text in given.items() if name in fields}
    texts = {name: convert_text(fields[name].annotation, text) for name, text in known.items()}
    try:
        options = model.model_validate(texts)
    except ValidationError as error:
        # of a type that is one or another, what the last one says
        mistakes = {str(found["loc"][0]): found for found in error.errors()}
        problems += [
            _explain(name, fields[name], dict(mistakes[name]), command) for name in mistakes
        ]
        return None
    if isinstance(options, Options):
        try:
            options.require_sense()
        except WrongValueError as mistake:
            problems.append(_mistake("", mistake.message, mistake.hint))
            return None
    return options


def _explain(
    name: str, field: FieldInfo, mistake: dict[str, Any], command: Command | None
) -> Finding:
    example = f"for example: {name}={field.examples[0]}" if field.examples else ""
    if mistake["type"] != "missing":
        message, hint = explain_mistake(mistake, lambda _place: "", COMMAND_LINE)
        is_number = strip_annotation(field.annotation) is int
        return _mistake(name, message, example if is_number else hint or example)
    hint = f"add {name}=, {example}"
    if command and command.operand == name and field.examples:
        hint = f"for example: doit {command.name} {field.examples[0]}"
    return _mistake(name, field.title or "is missing", hint)


def _mistake(name: str, message: str, hint: str) -> Finding:
    return Finding("error", name, message, hint, source=COMMAND_LINE)


def _refusal(problems: list[Finding]) -> UsageError:
    if len(problems) > 1:
        return SpecError(problems)
    (problem,) = problems
    return UsageError(str(replace(problem, hint="")), hint=problem.hint)


def _unknown(name: str, commands: Sequence[Command]) -> Finding:
    """A variable that none of the commands has: what they have, and which command has it."""
    key = name.replace("-", "_")
    own = dict.fromkeys(option for command in commands for option in command.variables)
    takes_spec = any(command.takes_spec for command in commands)
    asked = " or ".join(f"doit {command.name}" for command in commands)
    hints = list(filter(None, (command.elsewhere.get(key) for command in commands)))
    if not hints:
        hints.append(suggest_nearest(key, [*own, *(known_variables() if takes_spec else ())]))
    takes = ", ".join(f"{option}=" for option in own)
    hints.append(f"{asked} takes {takes}" + (" and the keys of a spec" if takes_spec else ""))
    if others := takers_of(key):
        hints.append(f"{name}= is for doit {', '.join(others)}")
    message = f"not a variable of {asked}"
    return _mistake(name, message, "; ".join(filter(None, hints)))


def takers_of(key: str) -> list[str]:
    """The commands that have an option of this name."""
    return [command.name for command in COMMANDS.values() if key in command.variables]
