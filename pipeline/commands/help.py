"""What needs no graph: help, the list of commands, the version, a completion.

All of it is made of the registry and the models.
"""

import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from importlib import metadata

from pydantic.fields import FieldInfo

from pipeline import ROOT
from pipeline.caller import as_typed
from pipeline.commands import COMMANDS, GROUPS
from pipeline.commands.arguments import KNOWN, READ_BY_DOIT, RUN_BY_DOIT, read_arguments
from pipeline.commands.command import Command
from pipeline.commands.command_line import takers_of
from pipeline.commands.options import variables_of
from pipeline.commands.xen_tools_line import answer_program
from pipeline.console.terminal import print_error
from pipeline.errors import PipelineError, UsageError, suggest_nearest
from pipeline.interruption import INTERRUPTED
from pipeline.process import run
from pipeline.spec import Spec, known_variables
from pipeline.spec.model import SECTIONS
from pipeline.spec.schema import describe_kind
from pipeline.spec.xen_create_image.grammar import PROGRAMS
from pipeline.spec.xen_create_image.options import TITLES, find_option
from pipeline.stages import STAGES

_FIRST = (
    ("./doit create name=web1 suite=trixie", "write guests/web1.toml and build it"),
    ("./doit", "the guests, and what to type next"),
    ("./doit help build", "what build does and takes"),
)
_MORE = (
    ("./doit list", "every command in a line"),
    ("./doit help COMMAND", "what it does and takes"),
    ("./doit help KEY", "a variable, or a key of a spec"),
    ("man -l docs/domu.7", "all of it"),
)
_FORMS = """\
A variable is one of the command's own, or says what the guest is to be: a key of its spec, or an \
option of xen-create-image. size=8G, --size=8G and --size 8G are the same. Yes is written yes, \
true, on, 1 or nothing (dry=, --dry), no is no, false, off or 0. Lists are separated by commas."""
_STAGES = "the stages of a build, which can be asked for alone"
_FAILED = 127
_WIDEST, _NARROW, _COLUMN = 100, 60, 40


def exit_code_of(words: Sequence[str], code: int) -> int:
    """What a run ends with: xen-tools' programs say 127 where ours would say more."""
    is_theirs = "".join(words[:1]) in PROGRAMS and code not in (0, INTERRUPTED)
    return _FAILED if is_theirs else code


def answer(words: Sequence[str]) -> int | None:
    """The exit code of what was answered here; None for all that needs the graph.

    What it needs is then in sys.argv, in its plain form.
    """
    try:
        return _answer(words)
    except UsageError as error:
        print_error(error)
        return exit_code_of(words, error.exit_code)


def _answer(words: Sequence[str]) -> int | None:
    first = "".join(words[:1])
    if first in PROGRAMS:
        answered = answer_program(first, words[1:])
        if isinstance(answered, int):
            return answered
        sys.argv[1:] = answered
        return None
    topics = [word for word in words if word[:1] != "-"]
    is_help = first == "help" or bool({"-h", "--help"} & set(words))
    topics = topics[1:] if first == "help" else [word for word in topics if word in KNOWN]
    if is_help and topics[:1] == ["doit"]:
        sys.argv[1:] = ["help", *topics[1:]]
        return None
    if is_help:
        return _print(topics)
    if "--version" in words or first == "version":
        print(render_version())
    elif first == "completion":
        from pipeline.commands.completion import complete  # at every Tab, and nowhere else

        return complete(words[1:])
    elif list(words) == ["list"]:
        print(render_list())
    elif list(words) == ["info"]:
        raise UsageError("info: of which task?", hint="doit list --all shows them")
    elif first == "info" and (command := "".join(words[1:2]).partition(":")[0]) in COMMANDS:
        return _print([command])
    else:
        sys.argv[1:] = read_arguments(words)
        return None
    return 0


def _print(topics: Sequence[str]) -> int:
    texts = [render_topic(topic) for topic in topics] or [render_overview()]
    print(as_typed("\n\n".join(texts)))
    return 0


def render_overview() -> str:
    """A screen for who comes new: what it is, what to type first, what there is."""
    title = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["description"]
    first = "\n".join([_wrapped(f"{title}.", 0), "", *(_entry(*each) for each in _FIRST)])
    groups = (
        f"{_wrapped(group, 0)}\n{_wrapped(', '.join(each.name for each in commands), 2)}"
        for group, commands in GROUPS.items()
    )
    more = "\n".join(_entry(*each) for each in _MORE)
    gap = "\n\n" if _width() >= _NARROW else "\n"
    return "\n\n".join([first, gap.join(groups), more])


def render_list() -> str:
    """Every command and stage with what it does."""
    groups = {title: [(each.name, each.doc) for each in group] for title, group in GROUPS.items()}
    groups[_STAGES] = [(stage.name, stage.summary) for stage in STAGES]
    blocks = [_wrapped("doit COMMAND name=GUEST variable=value...", 0)]
    for title, entries in groups.items():
        lines = [_entry(name, doc, column=20) for name, doc in entries]
        blocks.append("\n".join([_wrapped(title, 0), *lines]))
    tasks = "doit list --all shows every task, doit why name=GUEST why a stage would run."
    return "\n\n".join([*blocks, _wrapped(_FORMS, 0), _wrapped(tasks, 0)])


def render_version() -> str:
    """Ours with the commit, for whoever reports a fault, and that of what we stand on."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    others = ", ".join(f"{name} {metadata.version(name)}" for name in ("doit", "diskimage-builder"))
    try:
        commit = f" ({run(['git', '-C', ROOT, 'describe', '--always', '--dirty']).strip()})"
    except PipelineError:
        commit = ""  # no checkout, no git, or the checkout of another user
    python = ".".join(map(str, sys.version_info[:3]))
    return f"domu-pipeline {version}{commit}\n{others}\nPython {python}"


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
    if topic in READ_BY_DOIT | RUN_BY_DOIT:
        texts.append(_filled(f"{topic}: a command of doit's own", "its help: doit help doit"))
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
        yield _entry(f"{name}=", f"{describe(field)}. {meaning(field)}", column=18)
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


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _WIDEST)


def _entry(name: str, text: str, *, column: int = _COLUMN) -> str:
    """A line of two columns; on a narrow terminal the second one is below the first."""
    name = as_typed(name)
    if _width() < _NARROW or len(name) + 4 > column:
        return f"  {name}\n{_wrapped(text, 6)}"
    return _wrapped(text, column).replace(" " * column, f"  {name:<{column - 2}}", 1)


def _wrapped(text: str, indent: int) -> str:
    return textwrap.fill(
        as_typed(text),
        _width(),
        initial_indent=" " * indent,
        subsequent_indent=" " * max(indent, 2),
        break_on_hyphens=False,
        break_long_words=False,
    )
