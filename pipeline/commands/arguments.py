"""What people type, as `COMMAND name=GUEST variable=value`: the habits of other programs.

`--size=8G`, `--size 8G` and `--dhcp` are size=8G and dhcp=; `build web1 web2` is build
name=web1,web2; `build all` is build; `init FOLDER` is init folder=FOLDER. Options of one letter are
doit's own, and so is every option after a command of doit's own, as in `doit run --continue build`
or `doit list --all`.
"""

import shlex
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from pipeline.commands import COMMANDS
from pipeline.commands.options import variables_of
from pipeline.errors import UsageError
from pipeline.spec import Spec
from pipeline.spec.annotations import strip_annotation
from pipeline.spec.xen_create_image.grammar import PROGRAMS
from pipeline.spec.xen_create_image.options import find_option
from pipeline.spec.xen_create_image.table import NO, YES
from pipeline.stages import STAGES

READ_BY_DOIT = frozenset({"list", "info", "help", "dumpdb"})
RUN_BY_DOIT = frozenset({"run", "clean", "forget", "ignore", "reset-dep", "strace"})
KNOWN = frozenset({*COMMANDS, *READ_BY_DOIT, *RUN_BY_DOIT, *(stage.name for stage in STAGES)})
_LETTERS, _WITH_VALUE = "acsknvroPfd", "nvroPfd"
_LONG_OF_DOIT = frozenset(
    "always-execute continue no-continue verbosity reporter output-file process parallel-type pdb "
    "single auto-delayed-regex failure-verbosity db-file backend file seek-file".split()
)
# options of xen-create-image that take no value, or need not say it
_FLAGS = frozenset(
    {"genpass", "hooks", "install"}
    | {
        name.replace("-", "_")
        for table in PROGRAMS["xen-create-image"]
        for name, option in table.items()
        if not option.kind
    }
)


def read_arguments(arguments: Sequence[str]) -> list[str]:
    """The line in its plain form: doit's options, commands and stages, variables.

    Raises UsageError for a word that is no command and can be no guest, and for a missing value.
    """
    first = next((text for text in arguments if text[:1] != "-"), "")
    if first in READ_BY_DOIT | RUN_BY_DOIT:
        return list(arguments)
    own: list[str] = []
    words: list[str] = []
    variables: list[str] = []
    fields = _fields_of(arguments)
    rest = list(arguments)
    while rest:
        text = rest.pop(0)
        if text.startswith("--") and len(text) > 2:
            variables.append(_read_option(text, rest, fields))
        elif text.startswith("-"):
            own += _read_letter(text, rest)
        else:
            (variables if "=" in text else words).append(text)
    return [*own, *_name_guests(words, variables)]


def _fields_of(arguments: Sequence[str]) -> Mapping[str, FieldInfo]:
    """What the commands of the line take of their own."""
    commands = [COMMANDS[word] for word in arguments if word in COMMANDS] or [COMMANDS["build"]]
    return {
        name: field for command in commands for name, field in variables_of(command.options).items()
    }


def _read_letter(text: str, rest: list[str]) -> list[str]:
    """An option of doit's own, with its value where that is the next word."""
    if text[1:2] not in tuple(_LETTERS):
        raise UsageError(f"{text}: no such option", hint="doit help COMMAND says what it takes")
    return [text, *(rest.pop(0) for _ in rest[:1] if text[1:] in tuple(_WITH_VALUE))]


def _read_option(text: str, rest: list[str], fields: Mapping[str, FieldInfo]) -> str:
    """`--key`, `--key=value` or `--key value`, whose value is taken from `rest`."""
    name, is_whole, value = text[2:].partition("=")
    if is_whole:
        return f"{name}={value}"
    key = name.replace("-", "_")
    field = fields.get(key) or Spec.model_fields.get(key)
    if field is None and find_option(key) is None and name in _LONG_OF_DOIT:
        raise UsageError(f"{text} is an option of doit's own", hint=f"doit run {text} COMMAND ...")
    following = rest[0] if rest else "--"
    kind = strip_annotation(field.annotation) if field else None
    if not takes_value(key, field):
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        words = {*YES, *NO, *choices} - {""}
        return f"{name}={rest.pop(0) if following.lower() in words else ''}"
    if following.startswith("--") or (field is None and following in KNOWN):
        example = field.examples[0] if field and field.examples else "VALUE"
        example = ",".join(example) if isinstance(example, list) else example
        raise UsageError(f"{text} needs a value", hint=f"{text}={example}, or {name}={example}")
    return f"{name}={rest.pop(0)}"


def takes_value(key: str, field: FieldInfo | None) -> bool:
    """Whether the word after `--key` is its value, whatever it is."""
    kind = strip_annotation(field.annotation) if field else None
    is_free = field is not None and get_origin(kind) is not Literal
    return kind is not bool and (key not in _FLAGS or is_free)


def _name_guests(words: Sequence[str], variables: list[str]) -> list[str]:
    """Words that are no command are guests of the commands before them, or a command's operand."""
    strange = [word for word in words if word.partition(":")[0] not in KNOWN]
    known = [word for word in words if word not in strange]
    if not strange:
        return [*words, *variables]
    operand = "".join(COMMANDS[word].operand for word in known if word in COMMANDS)
    if operand and [words[0], *strange] == list(words):
        return [*known, f"{operand}={','.join(strange)}", *variables]
    fields = _fields_of(known)
    is_named = any(text.startswith(("name=", "hostname=")) for text in variables)
    if words[0] in strange or is_named or "name" not in fields or ":" in "".join(strange):
        raise _explain_strange(strange[0], words, variables)
    if strange == ["all"] and "all" in fields:
        return [*known, "all=yes", *variables]
    if strange == ["all"] and not fields["name"].is_required() and "create" not in known:
        return [*known, *variables]
    return [*known, f"name={','.join(strange)}", *variables]


def _explain_strange(word: str, words: Sequence[str], variables: Sequence[str]) -> UsageError:
    """No such command: the line that may have been meant."""
    nearest = get_close_matches(word, KNOWN, n=1, cutoff=0.7)
    topic = f"doit help {words[0]} says what it takes" if words[0] in COMMANDS else ""
    hint = topic or "doit help lists the commands"
    if nearest:
        meant = [nearest[0] if each == word else each for each in words]
        try:
            line = _name_guests(meant, [text for text in variables if text.startswith("name=")])
        except UsageError:
            line = meant
        hint = f"did you mean: doit {' '.join(map(shlex.quote, line))}"
        hint += " ..." if len(variables) > len(line) - len(meant) else ""
    elif words[0] == word and len(words) == 1 and not variables:
        hint = f"if that is a guest: doit build name={shlex.quote(word)}; {hint}"
    return UsageError(f"{word}: no such command", hint=hint)
