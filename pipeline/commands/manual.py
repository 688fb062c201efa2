"""The manual page docs/domu.7 and docs/reference/commands.md, made of the registry.

`python -m pipeline.commands.manual --write` writes both.
"""

import re
import sys
from collections.abc import Container, Iterator

from pydantic.fields import FieldInfo

from pipeline.commands import GROUPS
from pipeline.commands.command import Command
from pipeline.commands.help import describe, meaning
from pipeline.commands.options import Options, variables_of
from pipeline.spec.model import SECTIONS
from pipeline.spec.schema import fill_item, refresh_documents
from pipeline.stages import STAGES

NAME = "domu.7"
_PAGE = """\
# Commands

    ./doit COMMAND name=GUEST variable=value...

`./doit help COMMAND` says the same at the prompt, and `man -l docs/domu.7` all of it. Yes is
written `yes`, `true`, `on`, `1` or nothing, as in `dry=`; no is `no`, `false`, `off` or `0`.
Lists are separated by commas. What is not understood ends the command with exit code 2 before
anything is run or made.

This page is generated: `python -m pipeline.commands.manual --write`.
"""
_HEAD = """\
.\\" generated: python -m pipeline.commands.manual --write
.TH DOMU 7 "" "DomU pipeline" "DomU pipeline"
.SH NAME
domu \\- from a short text file to a Xen guest that is known to boot
.SH SYNOPSIS
.B ./doit
.RI [ COMMAND ]
.RI [ GUEST ...]
.RI [ VARIABLE = VALUE ...]
.br
.B ./doit help
.RI [ COMMAND | KEY ]
.br
.B ./doit \\-\\-version
.SH DESCRIPTION
.B ./doit
of the DomU pipeline builds guests from the files in guests/, proves them under real Xen, installs
them on a Xen host and looks after them there. Without a command it lists the guests.
.PP
A variable is one of the command's own, or says what the guest is to be: a key of its spec, or an
option of
.BR xen\\-create\\-image (8).
Commands that take those are marked (spec).
size=8G, \\-\\-size=8G and \\-\\-size 8G are the same; a guest may stand without name=, several are
separated by commas or blanks, and all means all of them: build web1 web2. Options of one letter,
and those after a command of doit's own, as in doit run \\-\\-continue build, are doit's.
Yes is written yes, true, on, 1 or nothing, as in dry=; no is no, false, off or 0. Lists are
separated by commas. What is not understood ends the command with exit status 2 before anything is
run or made."""
_TAIL = """\
.SH EXIT STATUS
.TP
.B 0
done, or nothing to do
.TP
.B 1
a build or a program failed
.TP
.B 2
usage, or a mistake in a spec
.TP
.B 3
the machine lacks something
.TP
.B 4
refused: in use
.TP
.B 5
verification failed
.TP
.B 130
interrupted
.TP
.B 141
nobody reads on
.SH ENVIRONMENT
.TP
.B DOMU_OUTPUT
where everything is made; by default output/ beside doit
.TP
.B DOMU_GUESTS
the folder of specs; by default guests/
.TP
.B DOMU_SITE
a folder with guests/, mirrors/, elements/ and output/ of one's own
.TP
.B PIP_INDEX_URL, PIP_CERT, PIP_NO_INDEX, PIP_FIND_LINKS
where the first start gets its Python packages
.TP
.B PYTHON
the Python that makes the environment
.SH FILES
.TP
.I guests/NAME.toml
what a guest is to be; guests/defaults.toml is what all share
.TP
.I output/guests/NAME/
a guest that was built
.TP
.I mirrors/
named mirrors, and the settings of the caching proxy
.SH SEE ALSO
README.md, docs/reference/spec.md, docs/reference/xen\\-create\\-image.md,
docs/reference/exit\\-codes.md,
.BR xl (1),
.BR xl.cfg (5),
.BR xen\\-create\\-image (8)"""


def render_manual() -> str:
    """The page, in the macros of man(7)."""
    lines = [_HEAD, ".SH COMMANDS"]
    for title, commands in GROUPS.items():
        lines.append(f".SS {_escaped(title)}")
        for command in commands:
            lines += _command(command)
    lines.append(".SS variables of every command")
    for name, field in variables_of(Options).items():
        lines += _variable(f"{name}=", field)
    lines.append(".SH STAGES\nWhat a build does, each on its own: ./doit STAGE name=GUEST.")
    for stage in STAGES:
        lines += [".TP", f".B {_escaped(stage.name)}", _escaped(stage.summary)]
    lines.append(".SH KEYS OF A SPEC")
    for section in SECTIONS:
        lines.append(f".SS {_escaped((section.__doc__ or '').partition('.')[0])}")
        for name, field in section.model_fields.items():
            lines += _variable(name, field)
    return "\n".join([*lines, _TAIL]) + "\n"


def render_page() -> str:
    """docs/reference/commands.md: the same for readers of the pages."""
    lines = [_PAGE]
    for title, commands in GROUPS.items():
        lines.append(f"## {title[0].upper()}{title[1:]}\n")
        for command in commands:
            example = f" {command.example}" if command.example else ""
            takes = " It takes [the keys of a spec](spec.md) too." if command.takes_spec else ""
            lines.append(f"### {command.name}\n\n    ./doit {command.name}{example}\n")
            lines.append(f"{command.doc[0].upper()}{command.doc[1:]}.{takes}\n")
            lines += _listed(command.options, without=Options.model_fields)
    lines += ["## Variables of every command\n", *_listed(Options, without={})]
    lines.append("## Stages\n\nWhat a build does, each on its own: `./doit STAGE name=GUEST`.\n")
    lines += [f"- `{stage.name}`: {stage.summary}" for stage in STAGES]
    return "\n".join(lines) + "\n"


def documents() -> dict[str, str]:
    """What is written, by its place in docs/."""
    return {NAME: render_manual(), "reference/commands.md": render_page()}


def _listed(options: type[Options], *, without: Container[str]) -> list[str]:
    fields = {key: field for key, field in variables_of(options).items() if key not in without}
    texts = (f"- `{key}=` ({describe(field)}): {meaning(field)}" for key, field in fields.items())
    return [*map(fill_item, texts), ""] if fields else []


def _command(command: Command) -> Iterator[str]:
    yield ".TP"
    mark = ' " (spec)"' if command.takes_spec else ""
    yield f".BR {_escaped(command.name)}{mark}"
    yield _escaped(command.doc)
    yield ".RS"
    for name, field in variables_of(command.options).items():
        if name not in Options.model_fields:
            yield from _variable(f"{name}=", field)
    yield ".RE"


def _variable(name: str, field: FieldInfo) -> Iterator[str]:
    yield ".TP"
    yield f'.BR {_escaped(name)} " ({_quoted(describe(field))})"'
    yield _escaped(meaning(field))


def _escaped(text: str) -> str:
    """Text as roff has it: no line is a request, a hyphen can be copied, a digest broken."""
    text = re.sub(r"\s+", " ", text).replace("\\", r"\e").replace("-", r"\-").replace("`", "")
    text = re.sub(r"\w{32}(?=\w)", r"\g<0>\:", text)
    return rf"\&{text}" if text.startswith((".", "'")) else text


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\(dq")


if __name__ == "__main__":
    sys.exit(refresh_documents(documents(), sys.argv[1:]))
