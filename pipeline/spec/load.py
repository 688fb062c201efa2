"""Loading specs: every mistake in the files and on the command line, reported at once."""

import errno
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import (
    EnvironmentFault,
    Finding,
    SpecError,
    UsageError,
    WrongValueError,
    show_value,
    suggest_nearest,
)
from pipeline.files import read_named_text, write_durably
from pipeline.site import find_home, find_schema
from pipeline.spec.cloud_init_rules import find_seed_problems
from pipeline.spec.explain import read_spec
from pipeline.spec.layers import (
    DEFAULTS,
    TABLES,
    Layer,
    Merged,
    merge_layers,
    read_command_layer,
    read_file_layer,
)
from pipeline.spec.model import SECTIONS, Spec
from pipeline.spec.role_scripts import find_role_problems
from pipeline.spec.ssh_keys import find_keys
from pipeline.spec.values import check_guest_name
from pipeline.spec.xen_create_image.options import COMMAND_LINE

_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Further:
    """A guest without a file of its own: its layers, and what was wrong before they were read."""

    layers: tuple[Layer, ...]
    problems: tuple[Finding, ...] = ()


_NOBODY: Mapping[str, Further] = {}


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
    problems: list[Finding] = []
    layers = _read_layers(name, guests_dir, overrides, problems)
    spec = _validate(name, layers, problems, checks_files=checks_files)
    if spec is None or problems:
        raise SpecError(_without_repetition(problems))
    return spec


class Specs(dict[str, Spec]):
    """The guests' specs by name, and what is wrong with those that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: dict[str, list[Finding]] = {}

    @property
    def names(self) -> set[str]:
        """Every guest that has a file."""
        return set(self) | set(self.problems)

    @property
    def broken(self) -> SpecError | None:
        """All that is wrong, as one error."""
        problems = [problem for own in self.problems.values() for problem in own]
        return SpecError(_without_repetition(problems)) if problems else None


def load_all(
    guests_dir: Path,
    overrides_for: Collection[str] = (),
    overrides: Mapping[str, str] = _NOTHING,
    further: Mapping[str, Further] = _NOBODY,
) -> Specs:
    """Every guest's spec, by name; the overrides and the checks of files are for some of them.

    `further` are guests without a file of their own. A mistake stops its own guest alone: raises
    SpecError with those of the guests that are asked for, UsageError when there is none of that
    name.
    """
    names = [*list_guests(guests_dir), *further]
    for name in overrides_for:
        _require_guest(name, names)
    specs = Specs()
    sources: dict[str, str] = {}
    for name in dict.fromkeys(names):
        is_asked = name in overrides_for
        guest = further.get(name) or Further(())
        problems = list(guest.problems)
        own = overrides if is_asked else _NOTHING
        layers = _read_layers(name, guests_dir, own, problems, guest.layers)
        sources[name] = _own_source(layers)
        spec = _validate(name, layers, problems, checks_files=is_asked)
        if spec is not None and not problems:
            specs[name] = spec
        else:
            specs.problems[name] = problems
    for guests, problem in _find_shared(specs, sources):
        for name in guests:
            specs.pop(name, None)
            specs.problems.setdefault(name, []).append(problem)
    if mistakes := [each for name in overrides_for for each in specs.problems.get(name, ())]:
        raise SpecError(_without_repetition(mistakes))
    return specs


def read_defaults(guests_dir: Path, problems: list[Finding]) -> list[Layer]:
    """The layer of defaults.toml, where there is one."""
    path = guests_dir / f"{DEFAULTS}.toml"
    return [read_file_layer(path, problems)] if path.exists() else []


def require_name(name: str) -> None:
    """Raises SpecError when that cannot be a guest's name."""
    try:
        check_guest_name(name)
    except WrongValueError as mistake:
        problem = Finding("error", "name", mistake.message, mistake.hint, source=COMMAND_LINE)
        raise SpecError([problem]) from mistake


def _require_guest(name: str, known: list[str]) -> None:
    require_name(name)
    if name not in known:
        hints = [suggest_nearest(name, known), f"guests: {', '.join(known) or 'none'}"]
        hints.append(f"or make it: doit create name={name}")
        raise UsageError(f"there is no guest '{name}'", hint="; ".join(filter(None, hints)))


def _read_layers(
    name: str,
    guests_dir: Path,
    overrides: Mapping[str, str],
    problems: list[Finding],
    given: Sequence[Layer] = (),
) -> list[Layer]:
    layers = read_defaults(guests_dir, problems)
    layers += given or [read_file_layer(guests_dir / f"{name}.toml", problems)]
    if overrides:
        layers.append(read_command_layer(overrides, problems))
    return layers


def _validate(
    name: str, layers: list[Layer], problems: list[Finding], *, checks_files: bool
) -> Spec | None:
    """The spec, as far as it could be read; what is wrong is added to `problems`."""
    merged = merge_layers(layers, problems)
    own = _own_source(layers)
    if merged.values.setdefault("name", name) != name:
        message = f"{show_value(merged.values['name'])} is not '{name}', which it is asked for as"
        problems.append(
            Finding("error", "name", message, "leave name out", source=merged.sources["name"])
        )
        merged.values["name"] = name
    spec = read_spec(merged, problems, fallback=own)
    if spec is not None and checks_files:
        problems += find_missing_files(spec, merged, fallback=own)
    return spec


def _own_source(layers: list[Layer]) -> str:
    """What is the guest's own of its layers."""
    named = [layer.source for layer in layers if layer.source != COMMAND_LINE]
    return named[-1] if named else layers[-1].source


def _find_shared(
    specs: Mapping[str, Spec], sources: Mapping[str, str]
) -> list[tuple[tuple[str, str], Finding]]:
    """The guests that have a MAC, or an address at the same bridge, in common, and what to say."""
    owners: dict[tuple[str, str, str | None], str] = {}
    problems = []
    for name, spec in specs.items():
        own: list[tuple[str, str, str | None]] = []
        if spec.uuid:
            own.append(("uuid", spec.uuid, None))
        for card in spec.cards:
            own.append(("mac", card.mac, None))
            own += [("address", str(at.ip), card.device.bridge) for at in card.addresses]
        for key in own:
            owner = owners.setdefault(key, name)
            if owner != name:
                message = f"{key[1]} is already that of {owner}"
                hint = f"give one of them its own {key[0]}"
                problem = Finding("error", key[0], message, hint, source=sources[name])
                problems.append(((owner, name), problem))
    return problems


def _without_repetition(problems: list[Finding]) -> list[Finding]:
    return list(dict.fromkeys(problems))


def find_missing_files(spec: Spec, merged: Merged, *, fallback: str) -> list[Finding]:
    """A problem for each file or folder that does not exist, and for each unsound SSH key."""

    def source(key: str) -> str:
        return merged.sources.get(key, fallback)

    problems = [
        Finding("error", key, f"{path}: no such {kind}", hint, source=source(key))
        for key, path, kind, hint in _find_missing(spec)
    ]
    _, unsound = find_keys(spec.authorized_keys, spec.suite_facts, source=source("authorized_keys"))
    unsound += find_seed_problems(spec, source=source("seed"))
    return [*problems, *unsound, *find_role_problems(spec, source=source("role"))]


def _find_missing(spec: Spec) -> Iterator[tuple[str, str, str, str]]:
    files = {
        "kernel": spec.kernel if spec.kernel_source == "files" else "",
        "initrd": spec.initrd,
        "keyring": spec.keyring,
        "user_data": spec.user_data,
        "root_password_file": "" if spec.root_password_file == "-" else spec.root_password_file,
    }
    for key, path in files.items():
        if path and not os.path.isfile(path):
            yield key, path, "file", ""
    folders = [("modules", spec.modules)] if spec.modules else []
    folders += [("elements_path", path) for path in spec.elements_path]
    folders += [("roles_path", path) for path in spec.roles_path]
    for key, path in folders:
        if not os.path.isdir(path):
            yield key, path, "folder", ""
    for key in ("mirror", "guest_mirror"):
        name = getattr(spec, key)
        if name not in ("host", "proxy") and not set(":/") & set(name):
            known = sorted(path.stem for path in (find_home() / "mirrors").glob("*.toml"))
            if name not in known:
                hint = suggest_nearest(name, known) or "host, a URL, HOST:PORT, or a file there"
                yield key, f"mirrors/{name}.toml", "file", hint


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\t": "\\t"}


@dataclass(frozen=True)
class Draft:
    """A new guest's spec, checked and not written yet; `given` are the keys that somebody gave."""

    path: Path
    spec: Spec
    given: frozenset[str]
    layer: Layer
    remarks: tuple[str, ...] = ()

    def write(self, keys: Sequence[str] = (), *, replaces: bool = False) -> Path:
        """Make the file, with these lines as its authorized_keys where there are any.

        One that is there stays, and must be the same, unless it is one that this `replaces`.
        """
        values = {**self.layer.values, **({"authorized_keys": [*keys]} if keys else {})}
        text = self.render(replace(self.layer, values=values))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if replaces:
                write_durably(self.path, text.encode())
                return self.path
            with open(self.path, "x", encoding="utf-8") as stream:
                stream.write(text)
        except FileExistsError as error:
            if read_named_text(self.path) != text:
                raise _already_there(self.spec.name, self.path) from error
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS):
                raise
            raise EnvironmentFault(
                f"{self.path.parent}: no file can be written there: {error.strerror}",
                hint="make a folder of your own: doit init FOLDER; or name one: DOMU_GUESTS=FOLDER",
            ) from error
        return self.path

    def render(self, layer: Layer) -> str:
        """The file's text; the remarks stand below the keys."""
        remarks = "".join(f"# {remark}\n" for remark in self.remarks)
        remarks = f"\n{remarks}" if remarks else ""
        text = render_spec(self.spec.name, layer)
        return f"#:schema {find_schema(self.path.parent)}\n{text}{remarks}"


def draft_spec(
    name: str, overrides: Mapping[str, str], guests_dir: Path, *, may_exist: bool = False
) -> Draft:
    """What guests/NAME.toml is to hold: the keys that were given.

    Raises SpecError when the spec would be wrong, UsageError when the guest exists already, unless
    it `may_exist`.
    """
    problems: list[Finding] = []
    layer = read_command_layer(overrides, problems)
    return draft_layer(name, layer, guests_dir, problems, may_exist=may_exist)


def draft_layer(
    name: str, layer: Layer, guests_dir: Path, problems: list[Finding], *, may_exist: bool = False
) -> Draft:
    """The same of a layer, in which `problems` were found already."""
    require_name(name)
    path = guests_dir / f"{name}.toml"
    if path.exists() and not may_exist:
        raise _already_there(name, path)
    defaults = read_defaults(guests_dir, problems)
    spec = _validate(name, [*defaults, layer], problems, checks_files=True)
    if spec is None or problems:
        raise SpecError(_without_repetition(problems))
    given = frozenset(key for given_in in (*defaults, layer) for key in given_in.values)
    return Draft(path, spec, given, layer)


def render_spec(name: str, layer: Layer) -> str:
    """The text of a spec file."""
    lines = [
        f"# Guest {name}: ./doit build name={name}",
        "# docs/reference/spec.md explains every key.",
        *render_keys(layer),
    ]
    return "\n".join(lines) + "\n"


def render_keys(layer: Layer) -> list[str]:
    """The lines of a layer: each key with what it means, in the order of the reference."""
    values = merge_layers([layer], []).values
    lines = []
    tables = [(key, values.pop(key, [])) for key in TABLES]
    for key in (key for section in SECTIONS for key in section.model_fields):
        if key in values and key != "name":
            first = (Spec.model_fields[key].description or "").partition(". ")[0].rstrip(".")
            lines += ["", f"# {first}", f"{key} = {_render_value(values[key])}"]
    for name, listed in tables:
        for table in listed if isinstance(listed, list) else []:
            lines += ["", f"[[{name}]]"]
            lines += [f"{key} = {_render_value(value)}" for key, value in table.items()]
    return lines


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
