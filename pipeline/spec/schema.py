"""The generated documents: spec.md, spec.schema.json, xen-create-image.md, compatibility.md."""

import json
import re
import sys
import textwrap
from collections.abc import Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline import ROOT
from pipeline.spec.annotations import strip_annotation, table_of
from pipeline.spec.cloud_init import SeedKeys, UserKeys
from pipeline.spec.disk_keys import PartitionKeys
from pipeline.spec.keys import CardKeys
from pipeline.spec.model import SECTIONS, Spec
from pipeline.spec.replication import ReplicatedKeys
from pipeline.spec.shared_disks import SharedKeys
from pipeline.spec.xen_create_image.options import render_options_page
from pipeline.suites import SUITES, Suite
from pipeline.xen.compatibility import RULES, WORKS

_INTRODUCTION = """\
# The guest spec

A guest is one file, `guests/NAME.toml`. `guests/defaults.toml` holds what all guests share; a
guest's file wins over it, and the command line over both: `doit build name=web1 size=8G`. There,
lists are separated by commas, and `yes`, `no` or nothing (`dhcp=`) stand for true and false.
xen-create-image's names are understood too: [xen-create-image.md](xen-create-image.md).

Every mistake is reported at once, with file, key, value and what would be right, before anything
runs; a broken file stops its own guest alone. Relative paths are relative to the file, or on the
command line to the current folder.

Editors that know TOML (taplo, Even Better TOML) check while you type with this first line:
`#:schema ../docs/spec.schema.json`

This page is generated: `python -m pipeline.spec.schema --write` writes it again.
"""
_COMPATIBILITY = """\
What does not go together, or not by itself: a build that would end in such a guest is refused
before it begins (*stops*), or says so (*warns*); what no build could make is a mistake in the spec
(*refused*). The kernel's version is read from its name. Made by `python -m pipeline.spec.schema
--write`; the rules and their sources are in pipeline/xen/compatibility.py. A build also tries
whether this machine answers vsyscalls (releases up to wheezy, amd64) and starts i386 programs, by
starting some; it names the package of a keyring that is missing, and what a release's age means
today (`doit suites`)."""
_REPLICATED = """\
A guest is one of the two nodes of each; [how-to/drbd.md](../how-to/drbd.md) has the whole of it. An
appliance (appliances/NAME.toml) writes these keys for both of its members."""
_SHARED = """\
An appliance writes these keys for its members (`[shared.NAME]` in
[appliances/NAME.toml](appliance-toml.md)); the guests are installed together."""
WIDEST_ROW = 159
_NAMES: dict[type, str] = {str: "text", int: "number", Path: "path"}
_JSON_NAMES: dict[type, str] = {str: "string", bool: "boolean", int: "integer"}


def render_reference() -> str:
    """docs/reference/spec.md: every key, section by section."""
    lines = [_INTRODUCTION.rstrip("\n")]
    for section in SECTIONS:
        title, _, rest = cleandoc(section.__doc__ or "").partition(". ")
        lines += [f"\n## {title.rstrip('.')}\n"]
        lines += [f"{rest}\n"] if rest else []
        lines += _render_keys(section.model_fields)
    lines += ["\n## Seed\n", *_render_keys(SeedKeys.model_fields)]
    lines += ["", "A table of `users`:", "", *_render_keys(UserKeys.model_fields)]
    lines += ["\n## Partitions\n", *_render_keys(PartitionKeys.model_fields)]
    cards = {"interfaces": Spec.model_fields["interfaces"]}
    lines += ["\n## Further network cards\n", *_render_keys(cards)]
    disks = {"replicated": Spec.model_fields["replicated"]}
    lines += ["\n## Replicated disks\n", f"{_REPLICATED}\n", *_render_keys(disks)]
    lines += ["", *_render_keys(ReplicatedKeys.model_fields)]
    disks = {"shared": Spec.model_fields["shared"]}
    lines += ["\n## Shared disks\n", f"{_SHARED}\n", *_render_keys(disks)]
    lines += ["", *_render_keys(SharedKeys.model_fields)]
    lines += [
        "\n## Releases\n",
        "| suite | release | init | cards | kernel |",
        "|---|---|---|---|---|",
    ]
    lines += [_render_suite(suite) for suite in SUITES.values()]
    return "\n".join(lines) + "\n"


def render_schema() -> str:
    """docs/spec.schema.json: draft-04 in what it uses, which is all that taplo knows."""
    properties = _properties(Spec)
    schema = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "title": "Guest",
        "description": (Spec.__doc__ or "").partition("\n")[0],
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def render_compatibility() -> str:
    """docs/reference/compatibility.md."""
    lines = [
        "# Guest, kernel, Xen",
        "",
        *_COMPATIBILITY.splitlines(),
        "",
        "| | guest | kernel | Xen | |",
        "|---|---|---|---|---|",
    ]
    shown = {"linux": "N", "suite": "that release", "kernel": "such a kernel", "xen": "N"}
    shown |= {
        "or_generic": "take linux-image-amd64 of bookworm, or ",
        "compression": "lz4",
        "unpacked": "4.4",
        "fs": "xfs",
        "on_crash": "coredump-...",
    }
    for number, rule in enumerate(RULES, 1):
        cells = (str(number), rule.guest, rule.kernel, rule.xen, rule.level)
        lines.append(f"| {' | '.join(cell.format(**shown) for cell in cells)} |")
    lines += ["", "What happens, and what to do:", ""]
    for number, rule in enumerate(RULES, 1):
        lines.append(f"{number}. {rule.text}.\n   Do: {rule.hint}.".format(**shown))
    lines += ["", "What is known to work:", "", "| guest | kernel | Xen |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in WORKS]
    return "\n".join(lines) + "\n"


def documents() -> dict[str, str]:
    """The generated documents, by file name in docs/."""
    return {
        "reference/spec.md": render_reference(),
        "spec.schema.json": render_schema(),
        "reference/xen-create-image.md": render_options_page(),
        "reference/compatibility.md": render_compatibility(),
    }


def _properties(model: type[BaseModel]) -> dict[str, Any]:
    keys = [key for section in SECTIONS for key in section.model_fields]
    tables = ("interfaces", "replicated", "shared")
    ordered = [key for key in (*keys, *tables) if key in model.model_fields]
    ordered = ordered if model in (Spec, CardKeys) else list(model.model_fields)
    return {key: _describe(model.model_fields[key]) for key in ordered}


def _describe(field: FieldInfo) -> dict[str, Any]:
    described: dict[str, Any] = {"description": field.description}
    described |= _describe_type(field.annotation)
    if "plain number" in (field.description or ""):
        described["type"] = ["string", "integer"]
    if field.default not in ("", (), None) and not field.is_required():
        described["default"] = field.default
    return described


def _describe_type(annotation: Any) -> dict[str, Any]:
    kind = strip_annotation(annotation)
    if get_origin(kind) is Literal:
        return {"type": "string", "enum": [word for word in get_args(kind) if word]}
    if get_origin(kind) is tuple:
        if keys := table_of(annotation):
            table = {"type": "object", "additionalProperties": False}
            listed = {"type": "array", "items": {**table, "properties": _properties(keys)}}
            return {"anyOf": [listed, {"type": "string"}]} if keys is PartitionKeys else listed
        items = _describe_type(strip_annotation(get_args(kind)[0]))
        return {"anyOf": [{"type": "array", "items": items}, items]}
    if issubclass(kind, BaseModel):
        table = {"type": "object", "additionalProperties": False}
        return {**table, "properties": _properties(kind)}
    return {"type": _JSON_NAMES[kind]}


def _render_suite(suite: Suite) -> str:
    title = f"{suite.distribution.title()} {suite.version}"
    title += " (archived)" if suite.is_archived else ""
    cards = f"{suite.nic_naming}0, {suite.network_tool(suite.init_default)}"
    kernels = ", ".join(f"{arch}: {names[0]}" for arch, names in suite.kernels.items())
    return f"| `{suite.name}` | {title} | {', '.join(suite.inits)} | {cards} | {kernels} |"


def describe_kind(annotation: Any, *, truth: str = "true, false") -> str:
    """What may be written: the words of a choice, or the kind of value."""
    kind = strip_annotation(annotation)
    if get_origin(kind) is Literal:
        return ", ".join(word for word in get_args(kind) if word)
    if get_origin(kind) is tuple:
        return "tables" if table_of(annotation) else "list"
    if issubclass(kind, BaseModel):
        return "table"
    return truth if kind is bool else _NAMES[kind]


def _render_keys(fields: Mapping[str, FieldInfo]) -> list[str]:
    """A table, and below it in full what is too long for a row."""
    rows, notes = ["| key | value | meaning |", "|---|---|---|"], []
    for key, field in fields.items():
        value, meaning = describe_kind(field.annotation), _describe_key(key, field)
        row = f"| `{key}` | {value} | {meaning} |"
        if len(row) > WIDEST_ROW:
            brief = re.split(r"(?<=[.:;])\s", meaning, maxsplit=1)[0].rstrip(".:;")
            row = f"| `{key}` | {value} | {brief} (below). |"
            notes.append(fill_item(f"- `{key}`: {meaning}"))
        rows.append(row)
    return [*rows, "", *notes] if notes else rows


def fill_item(text: str) -> str:
    """An item of a list in Markdown, its lines not too long."""
    return textwrap.fill(text, 110, subsequent_indent="  ", break_on_hyphens=False)


def _describe_key(key: str, field: FieldInfo) -> str:
    meaning = field.description or ""
    if field.default not in ("", (), None) and not field.is_required() and key != "dhcp":
        meaning += f" Default: {json.dumps(field.default)}."
    if field.examples:
        meaning += " E.g. " + ", ".join(f"`{json.dumps(one)}`" for one in field.examples) + "."
    return meaning.replace("\n", " ")


def refresh_documents(texts: Mapping[str, str], arguments: list[str]) -> int:
    """Write the documents into docs/, or only say which are out of date (exit code 1)."""
    folder = ROOT / "docs"
    stale = []
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if arguments == ["--write"]:
                path.write_text(text, encoding="utf-8")
    for name in stale:
        sys.stdout.write(f"docs/{name}: {'written' if arguments else 'out of date'}\n")
    return int(bool(stale) and not arguments)


if __name__ == "__main__":
    sys.exit(refresh_documents(documents(), sys.argv[1:]))
