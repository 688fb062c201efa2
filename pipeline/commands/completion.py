"""`doit completion bash|zsh|fish`: a script for the shell, and what it asks at every Tab."""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo

from pipeline import ROOT
from pipeline.caller import NAME, caller_folder
from pipeline.commands import COMMANDS
from pipeline.commands.arguments import takes_value
from pipeline.commands.command import Command
from pipeline.commands.options import Completion, variables_of
from pipeline.console.terminal import printable
from pipeline.dom0.layout import Layout
from pipeline.errors import UsageError
from pipeline.mirror.mirrors import list_named
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec, known_variables
from pipeline.spec.annotations import is_list, strip_annotation
from pipeline.spec.load import list_guests
from pipeline.spec.xen_create_image.options import find_option
from pipeline.stages import STAGES
from pipeline.suites import SUITES

_SHELLS = get_args(Completion.model_fields["shell"].annotation)
_SUITES = ("suite", "suites", "dist")
_MIRRORS = ("mirror", "mirrors", "upstream")
_FILES = frozenset(
    "authorized_keys elements_path from initrd kernel keyring modules partitions "
    "root_password_file".split()
)
_MOST_FILES = 1000
_HEAD = """\
# Completion of the DomU pipeline for {shell}: commands, guests, variables and their values.
# For this session:  {now}
# For good:          {ever}
"""
_NOW = {
    "bash": 'eval "$({doit} completion bash)"',
    "zsh": 'eval "$({doit} completion zsh)"',
    "fish": "{doit} completion fish | source",
}
_EVER = {
    "bash": "{doit} completion bash >>~/.bashrc",
    "zsh": "{doit} completion zsh >>~/.zshrc",
    "fish": "{doit} completion fish >~/.config/fish/completions/{name}.fish",
}
_SCRIPTS = {
    "bash": """\
_domu() {
    local program=${1//\\\\/} text IFS=$'\\n'
    [[ $program != '~/'* ]] || program=$HOME/${program:2}
    COMPREPLY=()
    while IFS=$'\\t' read -r text _; do
        COMPREPLY+=("$text")
        [[ $text != *[=/] ]] || compopt -o nospace
    done < <("$program" completion answer --line "$1" "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null)
}
complete -F _domu @NAMES@
""",
    "zsh": """\
_domu() {
    local program=${(Q)words[1]} line
    local -a texts shown open_texts open_shown
    [[ $program != '~/'* ]] || program=$HOME/${program:2}
    for line in "${(@f)$("$program" completion answer "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        [[ -n $line ]] || continue
        if [[ ${line%%$'\\t'*} == *[=/] ]]; then
            open_texts+=("${line%%$'\\t'*}") open_shown+=("${line/$'\\t'/  }")
        else
            texts+=("${line%%$'\\t'*}") shown+=("${line/$'\\t'/  }")
        fi
    done
    (( $#open_texts )) && compadd -S '' -l -d open_shown -a open_texts
    (( $#texts )) && compadd -l -d shown -a texts
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _domu @NAMES@
""",
    "fish": """\
function __domu_candidates
    set -l words (commandline -opc) (commandline -ct)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    $program completion answer $words[2..-1] 2>/dev/null
end
for name in @NAMES@
    complete -c $name -f -a '(__domu_candidates)'
end
""",
}


class Candidate(NamedTuple):
    """A word that may stand there, and what it is."""

    text: str
    meaning: str = ""


def print_completion(_recipe: Recipe, _specs: object, options: Completion) -> None:
    """The script."""
    print(render_script(options.shell), end="")


def complete(words: Sequence[str]) -> int:
    """`completion SHELL`, or the question of such a script: `answer WORDS...`; the exit code.

    bash cannot tell words with blanks and `=`: `answer --line PROGRAM LINE PART`, where PART is
    what bash takes for the word, an end of ours.
    """
    if words[:2] == ["answer", "--line"]:
        program, line, part = words[2:5]
        typed = split_line(line, program)
        for text, meaning in find_candidates(typed):
            print(f"{_escape(text)[len(_escape(typed[-1])) - len(part) :]}\t{meaning}")
        return 0
    if words[:1] == ["answer"]:
        for text, meaning in find_candidates(list(words[1:]) or [""]):
            print(f"{text}\t{meaning}")
        return 0
    shell = "".join(words[:1]).removeprefix("shell=")
    if shell not in _SHELLS or len(words) > 1:
        raise UsageError("completion: for which shell?", hint="doit completion bash, zsh or fish")
    print(render_script(shell), end="")
    return 0


def render_script(shell: str) -> str:
    """What the shell has to read, and how it is told to."""
    program = os.environ.get(NAME) or str(ROOT / "doit")
    name = os.path.basename(program)
    doit = shlex.quote(os.path.normpath(caller_folder() / program))
    now, ever = (texts[shell].format(doit=doit, name=name) for texts in (_NOW, _EVER))
    names = " ".join(shlex.quote(each) for each in dict.fromkeys((name, "doit", "domu")))
    head = _HEAD.format(shell=shell, now=now, ever=ever)
    return (
        (f"#compdef {names}\n" * (shell == "zsh"))
        + head
        + _SCRIPTS[shell].replace("@NAMES@", names)
    )


def split_line(line: str, program: str) -> list[str]:
    """The words of an unfinished line after the program's name; the last one is to be completed."""
    for quote in ("", "'", '"', "\\"):
        with suppress(ValueError):
            words = shlex.split(line.rstrip("\\") + quote if quote == "\\" else line + quote)
            break
    if not line or (line[-1].isspace() and not line.endswith("\\ ")):
        words.append("")
    names = shlex.split(program) or [""]
    start = words.index(names[0]) + 1 if names[0] in words else 1
    return words[start:] or [""]


def find_candidates(words: Sequence[str]) -> list[Candidate]:
    """What the last word may become, after those before it."""
    *before, typed = words
    found = [
        Candidate(each.text, printable(each.meaning).replace("\n", " "))
        for each in _candidates(before, typed)
        if each.text.startswith(typed) and each.text.isprintable()
    ]
    return sorted(dict.fromkeys(found), key=lambda each: each.text.startswith("--"))


def _candidates(before: Sequence[str], typed: str) -> Iterator[Candidate]:
    commands = [COMMANDS[word] for word in before if word in COMMANDS]
    if any(word.partition(":")[0] in {stage.name for stage in STAGES} for word in before):
        commands.append(COMMANDS["build"])
    first = next((word for word in before if word[:1] != "-"), "")
    last = before[-1] if before else ""
    key, is_value, _ = typed.partition("=")
    if is_value:
        for each in _values(_plain(key), typed[len(key) + 1 :], commands):
            yield Candidate(f"{key}={each.text}", each.meaning)
    elif last.startswith("--") and "=" not in last and _wants_value(_plain(last), commands):
        yield from _values(_plain(last), typed, commands)
    elif first == "help":
        yield from _commands(help_too=False)
        yield from (Candidate(name) for name in sorted(known_variables()))
    elif first == "completion":
        yield from (Candidate(shell) for shell in _SHELLS)
    elif not commands:
        yield from _commands(help_too=True)
    else:
        yield from _variables(before, typed, commands)


def _commands(*, help_too: bool) -> Iterator[Candidate]:
    yield from (Candidate(command.name, command.doc) for command in COMMANDS.values())
    yield from (Candidate(stage.name, stage.summary) for stage in STAGES)
    if help_too:
        yield Candidate("help", "what a command or a key is")
        yield Candidate("list", "every command in a line")


def _plain(key: str) -> str:
    return key.removeprefix("--").replace("-", "_")


def _field_of(key: str, commands: Iterable[Command]) -> FieldInfo | None:
    own = (variables_of(command.options).get(key) for command in commands)
    return next(filter(None, own), None) or Spec.model_fields.get(key)


def _wants_value(key: str, commands: Sequence[Command]) -> bool:
    return takes_value(key, _field_of(key, commands))


def _variables(
    before: Sequence[str], typed: str, commands: Sequence[Command]
) -> Iterator[Candidate]:
    """Variables that are not given yet: with nothing typed those of the command, else keys too."""
    given = {_plain(word.partition("=")[0]) for word in before}
    own: Mapping[str, FieldInfo] = {
        name: field for each in commands for name, field in variables_of(each.options).items()
    }
    if "name" in own and not given & {"name", "hostname"} and "create" not in before:
        yield from (Candidate(guest, "guest") for guest in _guests(commands))
    fields = dict(own)
    if typed and any(command.takes_spec for command in commands):
        fields |= {key: field for key, field in Spec.model_fields.items() if key not in own}
    dashes = "--" if typed.startswith("-") else ""
    for name, field in fields.items():
        if name not in given:
            shown = name.replace("_", "-") if dashes else name
            yield Candidate(f"{dashes}{shown}=", field.description or "")
    if dashes and any(command.takes_spec for command in commands):
        for name in sorted(known_variables() - set(fields) - given):
            option = find_option(name)
            if option is not None and option.status != "refused":
                mark = "=" if takes_value(name, None) else ""
                yield Candidate(f"--{name.replace('_', '-')}{mark}", option.answer)


_NAMES = ("name", "appliance")


def _values(key: str, typed: str, commands: Sequence[Command]) -> Iterator[Candidate]:
    """What may stand behind `key=`, after the last comma of a list."""
    field = _field_of(key, commands)
    is_several = (field is not None and is_list(field.annotation)) or key == "name"
    start = typed.rpartition(",")[0] + "," if is_several and "," in typed else ""
    for each in _single_values(key, field, typed[len(start) :], commands):
        yield Candidate(start + each.text, each.meaning)


def _single_values(
    key: str, field: FieldInfo | None, typed: str, commands: Sequence[Command]
) -> Iterator[Candidate]:
    kind = strip_annotation(field.annotation) if field else None
    if key == "name":
        yield from (Candidate(guest, "guest") for guest in _guests(commands))
    elif key == "appliance":
        yield from (Candidate(name) for name in list_named(Project.here().appliances))
    elif key in _SUITES:
        yield from (Candidate(name) for name in SUITES)
    elif key in _MIRRORS:
        names = ("host", "proxy", *list_named(Project.here().mirrors))
        yield from (Candidate(name) for name in names)
    elif key == "elements":
        folders = (folder.glob("*/") for folder in Project.here().elements)
        yield from (Candidate(each.name) for each in sorted(chain.from_iterable(folders)))
    elif kind is bool or not takes_value(key, field):
        yield from (Candidate("yes"), Candidate("no"))
    if get_origin(kind) is Literal:
        yield from (Candidate(word) for word in get_args(kind) if word)
    if key in _FILES or kind is Path:
        yield from _files(typed)
    elif field is not None and kind is not bool and key not in (*_SUITES, *_MIRRORS, *_NAMES):
        for example in field.examples or ():
            texts = example if isinstance(example, list) else str(example).split(",")
            yield from (Candidate(str(text), "for example") for text in texts)


def _guests(commands: Sequence[Command]) -> list[str]:
    """Those with a spec; for commands that need none also what was built, and what is installed."""
    project = Project.here()
    names: set[str] = set()
    with suppress(UsageError, OSError):
        names.update(list_guests(project.guests))
    if any(command.is_of_host or not command.takes_spec for command in commands):
        places = (*project.artifacts.glob("[!.]*"), *Layout.here().state.glob("installed/*.json"))
        names.update(path.name.removesuffix(".json") for path in places)
    return sorted(names)


def _files(typed: str) -> Iterator[Candidate]:
    """As the shell would: from the caller's folder, with ~/ for the home."""
    folder, _, start = typed.rpartition("/")
    shown = f"{folder}/" if "/" in typed else ""
    where = caller_folder() / Path(shown).expanduser() if shown else caller_folder()
    with suppress(OSError, RuntimeError):
        for path in sorted(where.iterdir())[:_MOST_FILES]:
            if path.name.startswith(start) and (start or path.name[:1] != "."):
                yield Candidate(f"{shown}{path.name}{'/' if path.is_dir() else ''}")


def _escape(text: str) -> str:
    """As it is typed in a shell."""
    return re.sub(r"[^\w@%+=:,./~-]", lambda letter: f"\\{letter[0]}", text)
