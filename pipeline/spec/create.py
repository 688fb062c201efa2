"""Writing a new guest's file from what was asked for on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import Problem, SpecError, UsageError
from pipeline.spec.layers import Layer, merge_layers, read_command_layer
from pipeline.spec.load import read_defaults, require_name, validate_layers
from pipeline.spec.model import SECTIONS, Spec

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\t": "\\t"}


def create_spec(name: str, overrides: Mapping[str, str], guests_dir: Path) -> Path:
    """Write guests/NAME.toml with the keys that were given; the file that was written.

    Raises SpecError when the spec would be wrong, UsageError when the guest exists already.
    """
    require_name(name)
    path = guests_dir / f"{name}.toml"
    if path.exists():
        raise _already_there(name, path)
    problems: list[Problem] = []
    layer = read_command_layer(overrides, problems)
    defaults = read_defaults(guests_dir, problems)
    try:
        validate_layers(name, [*defaults, layer])
    except SpecError as error:
        problems += error.problems
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    guests_dir.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "x", encoding="utf-8") as stream:
            stream.write(render_spec(name, layer))
    except FileExistsError as error:
        raise _already_there(name, path) from error
    return path


def render_spec(name: str, layer: Layer) -> str:
    """The text of a spec file: each key with what it means, in the order of the reference."""
    values = merge_layers([layer], []).values
    lines = [f"# Guest {name}: doit build name={name}", "# docs/spec.md explains every key."]
    tables = values.pop("partitions", [])
    for key in (key for section in SECTIONS for key in section.model_fields):
        if key in values and key != "name":
            first = (Spec.model_fields[key].description or "").partition(". ")[0].rstrip(".")
            lines += ["", f"# {first}", f"{key} = {_render_value(values[key])}"]
    for table in tables if isinstance(tables, list) else []:
        lines += ["", "[[partitions]]"]
        lines += [f"{key} = {_render_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _already_there(name: str, path: Path) -> UsageError:
    return UsageError(
        f"{path.parent.name}/{path.name} exists already",
        hint=f"edit it, or build it: doit build name={name}",
    )


def _render_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(_render_value(item) for item in value)}]"
    text = "".join(_ESCAPES.get(letter, letter) for letter in str(value))
    return f'"{text}"'
