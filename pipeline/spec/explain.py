"""What is wrong with values, as problems that a person can mend."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from pipeline.errors import Finding, WrongValueError, show_value, suggest_nearest
from pipeline.spec.annotations import table_of
from pipeline.spec.layers import Merged
from pipeline.spec.model import SECRET_KEYS, Spec
from pipeline.spec.rules import find_clashes
from pipeline.spec.xen_create_image.options import COMMAND_LINE, find_option

_WRONG_KINDS = {
    "bool_type": (
        "is neither true nor false",
        "write true or false, without quotes",
        "write yes or no",
    ),
    "int_type": ("is not a whole number", "write it without quotes: 2", "write it as 2"),
    "string_type": ("is not a text", 'put it in quotes: "..."', ""),
    "tuple_type": ("is not a list", 'write it as ["...", "..."]', ""),
    "model_type": (
        "is not a table",
        "write [[partitions]], [[interfaces]], [[replicated]], [[shared]] or [seed], keys below",
        "",
    ),
}


def read_spec(merged: Merged, problems: list[Finding], *, fallback: str) -> Spec | None:
    """The spec of these values, or where some are wrong, of the others: its keys are then good.

    Wrong values and clashes are added to `problems`; None when not even the others make a spec.
    """
    broken: set[str] = set()
    values = merged.values
    spec = _try_spec(values, merged, problems, broken, fallback)
    if spec is None:
        # keys are compared only when all are good: look at the others without the broken ones
        rest = {key: value for key, value in values.items() if key not in broken}
        spec = _try_spec({"name": "guest", **rest}, merged, [], set(), fallback)
    if spec is not None:
        problems += _explain_clashes(spec, merged, broken, fallback)
    return spec


def _try_spec(
    values: dict[str, object],
    merged: Merged,
    problems: list[Finding],
    broken: set[str],
    fallback: str,
) -> Spec | None:
    try:
        return Spec.model_validate(values)
    except ValidationError as error:
        for wrong in error.errors():
            key = _show_place(wrong["loc"])
            source = merged.sources.get(_first_key(key), fallback)
            message, hint = explain_mistake(dict(wrong), _suggest_key, source)
            problems.append(Finding("error", key, message, hint, source=source))
            broken.add(_first_key(key))
        return None


def _explain_clashes(
    spec: Spec, merged: Merged, broken: set[str], fallback: str
) -> Iterator[Finding]:
    for clash in find_clashes(spec):
        own = _first_key(clash.subject)
        if broken.isdisjoint({own, *clash.others}):
            named = (merged.sources.get(key, "") for key in (own, *clash.others))
            source = next(filter(None, named), fallback)
            yield replace(clash, source=source)


def explain_mistake(
    error: dict[str, Any], suggest: Callable[[tuple[int | str, ...]], str], source: str = ""
) -> tuple[str, str]:
    """The message and the hint for one error of pydantic; `suggest` knows the keys there are."""
    mistake = error.get("ctx", {}).get("error")
    if isinstance(mistake, WrongValueError):
        return mistake.message, mistake.hint
    kind, shown = error["type"], _show_value(error)
    if kind == "extra_forbidden":
        return "no such key", suggest(error["loc"])
    if kind == "literal_error":
        return _explain_choice(error, shown)
    if kind in _WRONG_KINDS:
        message, in_file, in_command = _WRONG_KINDS[kind]
        return f"{shown} {message}", in_command if source == COMMAND_LINE else in_file
    return f"{shown}: {error['msg'].removeprefix('Input ')}", ""


def _explain_choice(error: dict[str, Any], shown: str) -> tuple[str, str]:
    expected = error["ctx"]["expected"].replace(" or ", ", ").split(", ")
    words = [word.strip("'") for word in expected if word.strip("'")]
    return f"{shown} is not one of {', '.join(words)}", suggest_nearest(str(error["input"]), words)


def _suggest_key(place: tuple[int | str, ...]) -> str:
    name = str(place[-1])
    option = find_option(name)
    if option is not None and len(place) == 1:
        return f"xen-create-image's --{name.replace('_', '-')} is here: {option.answer}"
    table = table_of(Spec.model_fields[str(place[0])].annotation) if len(place) > 1 else None
    known = (table or Spec).model_fields
    return suggest_nearest(name, known) or "docs/reference/spec.md lists the keys"


def _show_value(error: dict[str, Any]) -> str:
    if error["loc"][0] in SECRET_KEYS:
        return "the value"
    return show_value(error["input"])


def _show_place(place: tuple[int | str, ...]) -> str:
    shown = ""
    for part in place:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else part
    return shown


def _first_key(key: str) -> str:
    return key.partition("[")[0].partition(".")[0]
