"""`doit help`, `doit help COMMAND` and `doit help KEY`, from the registry and the spec's model."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence

from pydantic.fields import FieldInfo

from pipeline.commands import COMMANDS, GROUPS
from pipeline.commands.command import Command
from pipeline.commands.command_line import READ_BY_DOIT, RUN_BY_DOIT, takers_of
from pipeline.commands.options import variables_of
from pipeline.console.terminal import print_error
from pipeline.errors import UsageError, suggest_nearest
from pipeline.spec import Spec, known_variables
from pipeline.spec.model import SECTIONS
from pipeline.spec.schema import describe_kind
from pipeline.spec.xen_create_image.options import TITLES, find_option
from pipeline.stages import STAGES

_MORE = """\
A variable is one of the command's own, or says what the guest is to be: a key of its spec, or an
option of xen-create-image. Yes is written yes, true, on, 1 or nothing (dry=), no is no, false, off
or 0. Lists are separated by commas.

  doit help COMMAND    what it does and takes
  doit help KEY        a variable, or a key of a spec
  doit list            every task; doit info TASK: why it would run
  doit help doit       doit's own help, of tasks and of the options that begin with -"""
_WIDEST = 100
DOIT = {"doit", *READ_BY_DOIT, *RUN_BY_DOIT} - {"help"}  # what doit's own help is about


def print_help(topics: Sequence[str]) -> int:
    """Print what is known of each topic, or the commands; the exit code."""
    try:
        texts = [render_topic(topic) for topic in topics] or [render_overview()]
    except UsageError as error:
        print_error(error)
        return error.exit_code
    print("\n\n".join(texts))
    return 0


def render_overview() -> str:
    """The commands in groups, and the stages."""
    lines = ["doit COMMAND name=GUEST variable=value..."]
    for title, commands in GROUPS.items():
        lines += ["", title, *(f"  {one.name:<14} {one.doc}" for one in commands)]
    lines += ["", "the stages of a build, which can be asked for alone"]
    lines += [f"  {stage.name:<14} {stage.summary}" for stage in STAGES]
    return "\n".join([*lines, "", _MORE])


def render_topic(topic: str) -> str:
    """A command, a stage, a variable or a key, or several of one name; UsageError for no such."""
    key = topic.lstrip("-").removesuffix("=").replace("-", "_")
    texts = ["\n".join(_command(COMMANDS[topic]))] if topic in COMMANDS else []
    for stage in STAGES:
        if stage.name == topic:
            keys = ", ".join(stage.keys) or "nothing"
            what = f"{topic}: a stage of a build: {stage.summary}"
            texts.append(_filled(what, f"Of the spec it depends on: {keys}"))
    texts += _variable(key)
    if not texts:
        known = {*COMMANDS, *known_variables(), *(stage.name for stage in STAGES)}
        known.update(name for command in COMMANDS.values() for name in command.variables)
        nearest = suggest_nearest(topic, known)
        raise UsageError(
            f"nothing is called {topic}", hint=nearest or "doit help lists the commands"
        )
    return "\n\n".join(texts)


def describe(field: FieldInfo) -> str:
    """What may be written, and what holds where nothing is: `yes or no, by default no`."""
    kind = describe_kind(field.annotation, truth="yes or no")
    if field.is_required():
        return f"{kind}, needed"
    if field.default in ("", (), None):
        return kind
    default = {True: "yes", False: "no"}.get(field.default, field.default)
    return f"{kind}, by default {default}"


def meaning(field: FieldInfo) -> str:
    """The description, with an example as it is typed."""
    text = field.description or ""
    if not field.examples:
        return text
    first = field.examples[0]
    return f"{text} E.g. {','.join(first) if isinstance(first, list) else first}"


def _command(command: Command) -> Iterator[str]:
    yield f"doit {command.name}: {command.doc}"
    if command.example:
        yield f"\n  doit {command.name} {command.example}"
    yield ""
    for name, field in variables_of(command.options).items():
        yield f"  {name + '=':<15} {describe(field)}"
        yield _wrapped(meaning(field), 18)
    if command.takes_spec:
        yield _wrapped(
            "and every key of a spec and option of xen-create-image: docs/reference/spec.md", 2
        )


def _variable(key: str) -> Iterator[str]:
    if key in Spec.model_fields:
        section = next((one for one in SECTIONS if key in one.model_fields), Spec)
        title = (section.__doc__ or "").partition(".")[0]
        takers = [command.name for command in COMMANDS.values() if command.takes_spec]
        field = Spec.model_fields[key]
        yield _filled(
            f"{key}: a key of a spec ({title}): {describe(field)}",
            meaning(field),
            f"In guests/NAME.toml, or with doit {', '.join(takers)}.",
        )
    said: dict[str, list[str]] = {}
    for name in takers_of(key):
        field = variables_of(COMMANDS[name].options)[key]
        said.setdefault(f"{describe(field)}\0{meaning(field)}", []).append(name)
    for text, names in said.items():
        kind, _, what = text.partition("\0")
        yield _filled(f"{key}: a variable of doit {', '.join(names)}: {kind}", what)
    option = find_option(key)
    if option is not None and key not in Spec.model_fields:
        status = TITLES[option.status]
        yield _filled(f"{key}: an option of xen-create-image: {status}", option.answer)


def _filled(head: str, *paragraphs: str) -> str:
    return "\n".join([_wrapped(head, 0), *(_wrapped(text, 2) for text in paragraphs)])


def _wrapped(text: str, indent: int) -> str:
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    return textwrap.fill(
        text,
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * max(indent, 2),
        break_on_hyphens=False,
        break_long_words=False,
    )
