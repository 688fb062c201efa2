"""A TOML file beside guests/ with tables of its own, nightly.toml for one, read into a model."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pipeline.errors import Finding, SpecError, suggest_nearest
from pipeline.spec.annotations import strip_annotation
from pipeline.spec.explain import explain_mistake
from pipeline.spec.layers import read_file_layer

AnyModel = TypeVar("AnyModel", bound=BaseModel)
Prepare = Callable[[dict[str, Any], Path], dict[str, Any]]
_NONE: Mapping[str, str] = {}


def read_table_file(
    path: Path,
    model: type[AnyModel],
    *,
    prepare: Prepare = lambda table, _folder: table,
    missing: Mapping[str, str] = _NONE,
) -> AnyModel:
    """The file's model; SpecError with every mistake in it, each with its key and a way out.

    `prepare` gets the tables and the file's folder first; `missing` says of keys that must be there
    how they are written.
    """
    problems: list[Finding] = []
    layer = read_file_layer(path, problems)
    table = prepare(dict(layer.values), path.parent)
    made = _read(table, model, problems, missing, layer.source) if table or not problems else None
    if made is None or problems:
        raise SpecError(problems)
    return made


def read_tables(table: dict[str, Any], model: type[AnyModel], *, source: str) -> AnyModel:
    """The model of tables that are no file; raises SpecError with every mistake."""
    problems: list[Finding] = []
    made = _read(table, model, problems, _NONE, source)
    if made is None:
        raise SpecError(problems)
    return made


def _read(
    table: dict[str, Any],
    model: type[AnyModel],
    problems: list[Finding],
    missing: Mapping[str, str],
    source: str,
) -> AnyModel | None:
    try:
        return model.model_validate(table)
    except ValidationError as error:
        problems += _explain_all(error, model, missing, source)
        return None


def _explain_all(
    error: ValidationError, model: type[BaseModel], missing: Mapping[str, str], source: str
) -> list[Finding]:
    """A finding for each place; where one type or another was possible, what the first says."""
    problems: dict[str, Finding] = {}
    for mistake in error.errors():
        place, known = _find_place(model, mistake["loc"])
        # what two keys say together is a mistake of their table, which names one of them
        key = getattr(mistake.get("ctx", {}).get("error"), "key", "")
        subject = ".".join([*place, *filter(None, [key])])
        if mistake["type"] == "missing":
            message, hint = "is missing", missing.get(subject, f"add {place[-1]} = ...")
        else:
            message, hint = explain_mistake(dict(mistake), partial(_suggest, place, known))
        problems.setdefault(subject, Finding("error", subject, message, hint, source=source))
    return list(problems.values())


def _suggest(place: list[str], known: list[str], _loc: object) -> str:
    return suggest_nearest(place[-1], known) or f"keys are {', '.join(known)}"


def _find_place(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """The key that pydantic means, without its own words, and the keys that could stand there."""
    place: list[str] = []
    known: list[str] = []
    kind: Any = model
    for part in loc:
        if part == "[key]":
            continue
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            known = list(kind.model_fields)
            field = kind.model_fields.get(str(part))
            kind = strip_annotation(field.annotation) if field else None
        elif get_origin(kind) is dict:
            kind = strip_annotation(get_args(kind)[1])
        elif get_origin(kind) is tuple:
            kind = strip_annotation(get_args(kind)[0])
        elif not isinstance(part, int):
            continue
        place.append(str(part))
    return place, known
