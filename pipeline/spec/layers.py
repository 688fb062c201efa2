"""Layers of a spec: defaults.toml, the guest's file, the command line; the later one wins."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.caller import caller_folder
from pipeline.errors import Finding, SpecError, UsageError, WrongValueError, suggest_nearest
from pipeline.files import read_named_text
from pipeline.spec.annotations import is_list, strip_annotation
from pipeline.spec.model import SECRET_KEYS, Spec
from pipeline.spec.ssh_keys import is_key_path
from pipeline.spec.xen_create_image.options import COMMAND_LINE, find_option, translate_options
from pipeline.spec.xen_create_image.partitions import find_partitions_file, read_partitions_file
from pipeline.spec.xen_create_image.table import NO, OPTIONS, YES

DEFAULTS = "defaults"
_BITS, _DEPTH = 64, 6
_TOO_DEEP = "nested too deeply"
_PATH_KEYS = ("keyring", "root_password_file", "user_data")
_PATH_LIST_KEYS = ("elements_path", "authorized_keys", "roles_path")
OWN_KEYS = tuple(
    "name uuid hostname address mac vifname vncdisplay image_dev swap_dev replicated shared".split()
)
# in the order of a file that is written
TABLES = ("partitions", "interfaces", "replicated", "shared")
# a key of a later layer takes those of the earlier ones away that would contradict it
_REPLACES = {
    "address": ("dhcp", "netmask"),
    "kernel": ("initrd", "modules"),
    "partitions": ("size", "swap", "fs", "image_dev", "swap_dev"),
    "root_password_file": ("root_password_hash",),
    "root_password_hash": ("root_password_file",),
    "vncdisplay": ("vncunused",),
    "vncunused": ("vncdisplay",),
}
_DHCP_REPLACES = ("address", "netmask", "gateway", "gateway6")


@dataclass(frozen=True)
class Layer:
    """Values from one place; relative paths are relative to `folder`."""

    source: str
    folder: Path
    values: Mapping[str, object]


@dataclass(frozen=True)
class Merged:
    """All values, and for each key the place that it came from."""

    values: dict[str, object]
    sources: dict[str, str]


def read_file_layer(path: Path, problems: list[Finding]) -> Layer:
    """A TOML file; one that cannot be read is a problem and an empty layer."""
    source = f"{path.parent.name}/{path.name}"
    values: dict[str, object] = {}
    try:
        values = tomllib.loads(read_named_text(path))
    except UsageError as error:
        problems.append(
            Finding("error", "", error.brief.removeprefix(f"{path}: "), error.hint, source=source)
        )
    except ValueError as error:  # also for numbers of 5000 digits
        problems.append(
            Finding("error", "", f"not TOML: {error}", 'lines are: key = "value"', source=source)
        )
    except RecursionError:
        problems.append(Finding("error", "", _TOO_DEEP, source=source))
    for key in [key for key, value in values.items() if _find_excess(value)]:
        problems.append(Finding("error", key, _find_excess(values.pop(key)), source=source))
    if path.stem == DEFAULTS:
        for key in OWN_KEYS:
            if key in values:
                hint = "write it into the guest's own file"
                problems.append(
                    Finding("error", key, "belongs to one guest alone", hint, source=source)
                )
        values = {key: value for key, value in values.items() if key not in OWN_KEYS}
    return Layer(source, path.parent, values)


def _find_excess(value: object) -> str:
    """What no key of a spec can mean and messages could not show, or nothing."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > _DEPTH:
            return _TOO_DEEP
        if isinstance(item, int) and item.bit_length() > _BITS:
            return f"a number of more than {_BITS} bits"
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        waiting += [(element, depth + 1) for element in inner]
    return ""


def read_command_layer(overrides: Mapping[str, str], problems: list[Finding]) -> Layer:
    """The variables of the command line; paths are relative to where it was typed."""
    values, wrong = read_overrides(overrides)
    problems += wrong
    return Layer(COMMAND_LINE, caller_folder(), values)


def merge_layers(layers: Iterable[Layer], problems: list[Finding]) -> Merged:
    """The layers as one, the later ones winning; paths become absolute, a partitions file tables.

    What is wrong with that file is added to `problems`.
    """
    merged = Merged({}, {})
    for layer in layers:
        for key, value in layer.values.items():
            gone = _DHCP_REPLACES if key == "dhcp" and value is True else _REPLACES.get(key, ())
            for other in gone:
                if merged.sources.get(other) != layer.source:
                    merged.values.pop(other, None)
        for key, value in layer.values.items():
            if key == "partitions" and isinstance(value, str):
                value = _read_partitions(value, layer, problems)
            merged.values[key] = _resolve_paths(key, value, layer.folder)
            merged.sources[key] = layer.source
    return merged


def _read_partitions(name: str, layer: Layer, problems: list[Finding]) -> object:
    try:
        return read_partitions_file(find_partitions_file(name, layer.folder))
    except WrongValueError as mistake:
        problems.append(
            Finding("error", "partitions", mistake.message, mistake.hint, source=layer.source)
        )
        return []


def _resolve_paths(key: str, value: object, folder: Path) -> object:
    if key in _PATH_KEYS and isinstance(value, str) and value not in ("", "-"):
        return _absolute(value, folder)
    if key in _PATH_LIST_KEYS:
        entries = [value] if isinstance(value, str) else value
        if isinstance(entries, list):
            return [_resolve_entry(key, entry, folder) for entry in entries]
    if key == "replicated" and isinstance(value, list):
        return [_resolve_table(table, folder) for table in value]
    if key == "seed" and isinstance(value, dict):
        return _resolve_seed(value, folder)
    return value


def _resolve_seed(table: dict[str, object], folder: Path) -> dict[str, object]:
    """The same with its own and its users' keys."""
    resolved = {**table}
    for key, value in table.items():
        if key == "ssh_authorized_keys":
            resolved[key] = _resolve_paths("authorized_keys", value, folder)
        elif key == "users" and isinstance(value, list):
            resolved[key] = [
                _resolve_seed(user, folder) if isinstance(user, dict) else user for user in value
            ]
    return resolved


def _resolve_table(table: object, folder: Path) -> object:
    path = table.get("secret_file") if isinstance(table, dict) else None
    if not isinstance(table, dict) or not isinstance(path, str):
        return table
    return {**table, "secret_file": _absolute(path, folder)}


def _resolve_entry(key: str, entry: object, folder: Path) -> object:
    if not isinstance(entry, str) or (key == "authorized_keys" and not is_key_path(entry)):
        return entry
    return _absolute(entry, folder)


def _absolute(text: str, folder: Path) -> str:
    if text.startswith("-") or not text:
        return text
    path = Path(text) if not text.startswith("~/") else Path.home() / text[2:]
    return str((folder / path).absolute())


_DIGITS = 19  # more is no number of a spec, and Python reads no more than 4300


@cache
def known_variables() -> frozenset[str]:
    """Every name that may stand before `=`: the keys of a spec and xen-create-image's options."""
    return frozenset(Spec.model_fields) | frozenset(OPTIONS)


def is_key(name: str, text: str) -> bool:
    """Whether a variable is a key of specs; `boot=0`, `boot=` and `role=` are an option's.

    xen-create-image's roles are packages here, or else scripts: the option knows which.
    """
    if name == "role":
        return False
    return name in Spec.model_fields and (name != "boot" or text.lower() not in YES | NO)


def parse_overrides(given: Mapping[str, str]) -> dict[str, object]:
    """The values that the variables mean, by key; raises SpecError with all that are wrong.

    A text that is no value of its key (`vcpus=two`) stays a text, for the model to report.
    """
    values, problems = read_overrides(given)
    if problems:
        raise SpecError(problems)
    return values


def read_overrides(given: Mapping[str, str]) -> tuple[dict[str, object], list[Finding]]:
    """The same, with the problems beside the values that are good."""
    own: dict[str, str] = {}
    options: dict[str, str] = {}
    problems: list[Finding] = []
    for name, text in given.items():
        key = name.replace("-", "_")
        if any("\ud800" <= letter <= "\udfff" for letter in name + text):
            problems.append(
                Finding("error", ascii(name)[1:-1], "this is not UTF-8", source=COMMAND_LINE)
            )
        elif is_key(key, text):
            problems += _refuse_special(name, key)
            own[key] = text
        elif find_option(name):
            options[name] = text
        else:
            problems.append(_unknown(name))
    if "roles_path" in own:
        options.setdefault("roledir", own["roles_path"])
    translation = translate_options(options)
    problems += translation.problems
    for key, text in translation.overrides.items():
        if own.setdefault(key, text) != text:
            message = f"'{own[key]}' and '{text}' are both asked for"
            problems.append(Finding("error", key, message, "keep one of them", source=COMMAND_LINE))
    wrong = {problem.subject.replace("-", "_") for problem in problems}
    return {key: _convert(key, own[key]) for key in own if key not in wrong}, problems


def _convert(key: str, text: str) -> object:
    if key == "partitions":
        return text  # the name of a file
    if key == "authorized_keys" and " " in text:
        return [text]  # a key line: commas belong to its options or its comment
    return convert_text(Spec.model_fields[key].annotation, text)


def convert_text(annotation: object, text: str) -> object:
    """A variable's text as its type: yes and no, whole numbers, lists by comma, else itself.

    So is a text that means nothing of its type, for the model to report.
    """
    kind = strip_annotation(annotation)
    if kind is bool and text.lower() in YES | NO:
        return text.lower() in YES
    if kind is int and text.isascii() and text.isdigit() and len(text) < _DIGITS:
        return int(text)
    if is_list(annotation):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _unknown(name: str) -> Finding:
    hint = suggest_nearest(name, known_variables()) or "docs/reference/spec.md lists the keys"
    return Finding("error", name, "no such variable", hint, source=COMMAND_LINE)


def _refuse_special(name: str, key: str) -> list[Finding]:
    if key in SECRET_KEYS:
        message = "a secret on the command line is seen by every user"
        return [
            Finding("error", name, message, "write it into the guest's file", source=COMMAND_LINE)
        ]
    if key in (*TABLES, "seed") and key != "partitions":
        message = "tables cannot be written on the command line"
        hint = f"write {'[seed]' if key == 'seed' else f'[[{key}]]'} into the guest's file"
        return [Finding("error", name, message, hint, source=COMMAND_LINE)]
    return []
