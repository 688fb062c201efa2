"""Loading specs: every mistake in the files and on the command line, reported at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import Problem, SpecError, UsageError
from pipeline.spec.explain import read_spec
from pipeline.spec.files import find_missing_files
from pipeline.spec.layers import (
    DEFAULTS,
    Layer,
    merge_layers,
    read_command_layer,
    read_file_layer,
)
from pipeline.spec.mistakes import WrongValueError, show_value, suggest_nearest
from pipeline.spec.model import Spec
from pipeline.spec.values import check_guest_name
from pipeline.spec.xen_create_image.options import COMMAND_LINE

_NOTHING: Mapping[str, str] = {}


def list_guests(guests_dir: Path) -> list[str]:
    """The names of the guests that have a file; raises UsageError where there is no folder."""
    if not os.path.isdir(guests_dir):
        raise UsageError(f"{guests_dir}: no such folder", hint="make it, or set DOMU_GUESTS")
    return sorted(path.stem for path in guests_dir.glob("*.toml") if path.stem != DEFAULTS)


def load_guest(
    name: str,
    *,
    guests_dir: Path,
    overrides: Mapping[str, str] = _NOTHING,
    checks_files: bool = True,
) -> Spec:
    """One guest's spec; raises SpecError with every mistake, UsageError for an unknown guest.

    `checks_files` also asks that the files which the spec names exist, and judges its SSH keys.
    """
    _require_guest(name, list_guests(guests_dir))
    problems: list[Problem] = []
    layers = _read_layers(name, guests_dir, overrides, problems)
    spec = _validate(name, layers, problems, checks_files=checks_files)
    if spec is None or problems:
        raise SpecError(_without_repetition(problems))
    return spec


def load_all(
    guests_dir: Path, overrides_for: str | None = None, overrides: Mapping[str, str] = _NOTHING
) -> dict[str, Spec]:
    """Every guest's spec, by name; the overrides and the checks of files are for one of them.

    Raises SpecError with the mistakes of all files, UsageError when that guest does not exist.
    """
    names = list_guests(guests_dir)
    if overrides_for is not None:
        _require_guest(overrides_for, names)
    problems: list[Problem] = []
    specs: dict[str, Spec] = {}
    for name in names:
        is_asked = name == overrides_for
        layers = _read_layers(name, guests_dir, overrides if is_asked else {}, problems)
        spec = _validate(name, layers, problems, checks_files=is_asked)
        if spec is not None:
            specs[name] = spec
    problems += _find_shared_macs(specs, guests_dir)
    if problems:
        raise SpecError(_without_repetition(problems))
    return specs


def validate_layers(name: str, layers: list[Layer], *, checks_files: bool = True) -> Spec:
    """The spec that these layers make; raises SpecError with every mistake."""
    problems: list[Problem] = []
    spec = _validate(name, layers, problems, checks_files=checks_files)
    if spec is None or problems:
        raise SpecError(_without_repetition(problems))
    return spec


def read_defaults(guests_dir: Path, problems: list[Problem]) -> list[Layer]:
    """The layer of defaults.toml, where there is one."""
    path = guests_dir / f"{DEFAULTS}.toml"
    return [read_file_layer(path, problems)] if path.exists() else []


def require_name(name: str) -> None:
    """Raises SpecError when that cannot be a guest's name."""
    try:
        check_guest_name(name)
    except WrongValueError as mistake:
        problem = Problem(COMMAND_LINE, "name", mistake.message, mistake.hint)
        raise SpecError([problem]) from mistake


def _require_guest(name: str, known: list[str]) -> None:
    require_name(name)
    if name not in known:
        hints = [suggest_nearest(name, known), f"guests: {', '.join(known) or 'none'}"]
        hints.append(f"or make it: doit create name={name}")
        raise UsageError(f"there is no guest '{name}'", hint="; ".join(filter(None, hints)))


def _read_layers(
    name: str, guests_dir: Path, overrides: Mapping[str, str], problems: list[Problem]
) -> list[Layer]:
    layers = read_defaults(guests_dir, problems)
    layers.append(read_file_layer(guests_dir / f"{name}.toml", problems))
    if overrides:
        layers.append(read_command_layer(overrides, problems))
    return layers


def _validate(
    name: str, layers: list[Layer], problems: list[Problem], *, checks_files: bool
) -> Spec | None:
    """The spec, as far as it could be read; what is wrong is added to `problems`."""
    merged = merge_layers(layers, problems)
    own = next((layer for layer in reversed(layers) if layer.source != COMMAND_LINE), layers[-1])
    if merged.values.setdefault("name", name) != name:
        message = f"{show_value(merged.values['name'])} is not '{name}', which it is asked for as"
        problems.append(Problem(merged.sources["name"], "name", message, "leave name out"))
        merged.values["name"] = name
    spec = read_spec(merged, problems, fallback=own.source)
    if spec is not None and checks_files:
        problems += find_missing_files(spec, merged, fallback=own.source)
    return spec


def _find_shared_macs(specs: Mapping[str, Spec], guests_dir: Path) -> list[Problem]:
    owners: dict[str, str] = {}
    problems = []
    for name, spec in specs.items():
        for card in spec.cards:
            owner = owners.setdefault(card.mac, name)
            if owner != name:
                message = f"{card.mac} is already that of {owner}"
                source = f"{guests_dir.name}/{name}.toml"
                problems.append(Problem(source, "mac", message, "give one of them its own mac"))
    return problems


def _without_repetition(problems: list[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))
