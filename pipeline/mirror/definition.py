"""mirrors/NAME.toml: what a mirror is called, where it is and what is asked of it."""

import math
import os
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    ValidationError,
)

from pipeline.errors import Finding, SpecError, WrongValueError, suggest_nearest
from pipeline.mirror.release import MAX_LAG_S, Terms
from pipeline.spec import values
from pipeline.spec.explain import explain_mistake
from pipeline.spec.layers import read_file_layer

Model = TypeVar("Model", bound=BaseModel)
_FILES = ("keyring", "credentials")


def check_url(text: str) -> str:
    """A mirror's address: a URL, host:port or file:/folder."""
    if ":" not in text and "/" not in text and "@" not in text:
        raise WrongValueError(
            f"{text!r} is not a URL", "http://HOST:PORT/debian, HOST:PORT, or file:/FOLDER"
        )
    return values.check_mirror(text)


def check_proxy(text: str) -> str:
    """An HTTP proxy's URL, or direct."""
    if text != "direct":
        if not text.startswith(("http://", "https://")):
            raise WrongValueError(f"{text!r} is not a proxy", "http://HOST:PORT, or direct")
        values.check_mirror(text)
    return text


def check_valid_until(value: object) -> str:
    """check, ignore, or how long after its Valid-Until a state is still taken."""
    if value in ("check", "ignore"):
        return str(value)
    try:
        return values.check_duration(value)
    except WrongValueError:
        raise WrongValueError(
            f"{value!r} is not a policy", 'write "check", "ignore", or a time such as "30d"'
        ) from None


Url = Annotated[StrictStr, AfterValidator(check_url)]
Urls = Annotated[tuple[Url, ...], values.AsList]


class Definition(BaseModel):
    """The keys of mirrors/NAME.toml; docs/reference/mirrors.md explains them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[tuple[Url, ...], values.AsList, Field(min_length=1)]
    security_url: Urls = ()
    updates_url: Urls = ()
    backports_url: Urls = ()
    suites: Annotated[tuple[values.SuiteName, ...], values.AsList] = ()
    components: Annotated[tuple[values.PackageName, ...], values.AsList] = ()
    updates: StrictBool = True
    security: StrictBool = True
    backports: StrictBool = False
    keyring: values.FilePath = ""
    credentials: values.FilePath = ""
    proxy: Annotated[StrictStr, AfterValidator(check_proxy)] = ""
    state: Literal["live", "archived"] = "live"
    valid_until: Annotated[str, BeforeValidator(check_valid_until)] = "check"
    max_lag: values.Duration = f"{MAX_LAG_S // 86400}d"
    description: values.Text = ""

    @property
    def terms(self) -> Terms:
        if self.state == "archived":
            return Terms(is_archived=True, grace_s=math.inf, max_lag_s=math.inf)
        return Terms(False, grace_of(self.valid_until), values.parse_duration(self.max_lag))


def grace_of(valid_until: str) -> float:
    """Seconds after its Valid-Until that a state is still taken."""
    if valid_until in ("check", "ignore"):
        return math.inf if valid_until == "ignore" else 0.0
    return values.parse_duration(valid_until)


def read_definition(path: Path) -> Definition:
    """The definition in a file, its paths absolute; raises SpecError with every mistake."""
    return read_table(path, Definition)


def read_table(path: Path, model: type[Model]) -> Model:
    """A TOML file as a model; SpecError names file and key of every mistake in it."""
    problems: list[Finding] = []
    layer = read_file_layer(path, problems)
    found = dict(layer.values)
    for key in _FILES:
        value = found.get(key)
        if isinstance(value, str) and value and not value.startswith("-"):
            found[key] = str((path.parent / Path(value).expanduser()).absolute())
            problems += _check_file(layer.source, key, Path(str(found[key])))
    made: Model | None = None
    if not problems or found:
        try:
            made = model.model_validate(found)
        except ValidationError as error:
            known = list(model.model_fields)
            for one in error.errors():
                place = ".".join(map(str, one["loc"][:1]))
                problems.append(
                    Finding("error", place, *_explain(dict(one), known), source=layer.source)
                )
    if made is not None:
        problems += _find_clashes(layer.source, made)
    if problems or made is None:
        raise SpecError(list(dict.fromkeys(problems)))
    return made


def _explain(found: dict[str, object], known: list[str]) -> tuple[str, str]:
    def suggest(place: tuple[int | str, ...]) -> str:
        return suggest_nearest(str(place[-1]), known) or f"keys are {', '.join(known)}"

    if not found["loc"]:
        return str(found["msg"]).removeprefix("Value error, "), ""
    if found["type"] == "missing":
        return "is missing", 'write url = "http://HOST:PORT/debian", or a list of such'
    return explain_mistake(dict(found), suggest)


def _check_file(source: str, key: str, path: Path) -> list[Finding]:
    if not path.is_file():
        return [Finding("error", key, f"{path}: no such file", source=source)]
    if key == "credentials" and path.stat().st_mode & 0o077:
        return [
            Finding("error", key, f"{path}: others can read it", f"chmod 600 {path}", source=source)
        ]
    if key == "credentials" and not os.access(path, os.R_OK):
        return [Finding("error", key, f"{path}: you may not read it", source=source)]
    return []


def _find_clashes(source: str, made: BaseModel) -> list[Finding]:
    """Lists of URLs that belong together have the same length, or one URL for all."""
    if not isinstance(made, Definition):
        return []
    problems = []
    for key in ("security_url", "updates_url", "backports_url"):
        count = len(getattr(made, key))
        if count not in (0, 1, len(made.url)):
            hint = "one for all, or one for each of url, in the same order"
            message = f"{count} addresses beside {len(made.url)} of url"
            problems.append(Finding("error", key, message, hint, source=source))
    if made.state == "archived" and made.valid_until != "check":
        problems.append(
            Finding(
                "error",
                "valid_until",
                "an archived mirror's is never looked at",
                "leave it out",
                source=source,
            )
        )
    return problems
