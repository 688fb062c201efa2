"""Variables of the command line, key=value, as values of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from pipeline.errors import Problem, SpecError
from pipeline.spec.kinds import is_list, strip_annotation
from pipeline.spec.mistakes import suggest_nearest
from pipeline.spec.model import SECRET_KEYS, Spec
from pipeline.spec.xen_create_image.option_values import NO, YES
from pipeline.spec.xen_create_image.options import COMMAND_LINE, find_option, translate_options
from pipeline.spec.xen_create_image.table import OPTIONS

_DIGITS = 19  # more is no number of a spec, and Python reads no more than 4300


@cache
def known_variables() -> frozenset[str]:
    """Every name that may stand before `=`: the keys of a spec and xen-create-image's options."""
    return frozenset(Spec.model_fields) | frozenset(OPTIONS)


def parse_overrides(given: Mapping[str, str]) -> dict[str, object]:
    """The values that the variables mean, by key; raises SpecError with all that are wrong.

    A text that is no value of its key (`vcpus=two`) stays a text, for the model to report.
    """
    values, problems = read_overrides(given)
    if problems:
        raise SpecError(problems)
    return values


def read_overrides(given: Mapping[str, str]) -> tuple[dict[str, object], list[Problem]]:
    """The same, with the problems beside the values that are good."""
    own: dict[str, str] = {}
    options: dict[str, str] = {}
    problems: list[Problem] = []
    for name, text in given.items():
        key = name.replace("-", "_")
        if any("\ud800" <= letter <= "\udfff" for letter in name + text):
            problems.append(Problem(COMMAND_LINE, ascii(name)[1:-1], "this is not UTF-8"))
        elif key in Spec.model_fields:
            problems += _refuse_special(name, key)
            own[key] = text
        elif find_option(name):
            options[name] = text
        else:
            problems.append(_unknown(name))
    translation = translate_options(options)
    problems += translation.problems
    for key, text in translation.overrides.items():
        if own.setdefault(key, text) != text:
            message = f"'{own[key]}' and '{text}' are both asked for"
            problems.append(Problem(COMMAND_LINE, key, message, "keep one of them"))
    wrong = {problem.key.replace("-", "_") for problem in problems}
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


def _unknown(name: str) -> Problem:
    hint = suggest_nearest(name, known_variables()) or "docs/spec.md lists the keys"
    return Problem(COMMAND_LINE, name, "no such variable", hint)


def _refuse_special(name: str, key: str) -> list[Problem]:
    if key in SECRET_KEYS:
        message = "a secret on the command line is seen by every user"
        return [Problem(COMMAND_LINE, name, message, "write it into the guest's file")]
    if key == "interfaces":
        message = "tables cannot be written on the command line"
        return [Problem(COMMAND_LINE, name, message, "write [[interfaces]] into the guest's file")]
    return []
