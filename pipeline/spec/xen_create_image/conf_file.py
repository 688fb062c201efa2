"""xen-tools.conf as defaults for all guests: each option as on the command line.

The form is that of xen-tools 4.9.2: `key = value`, `#` begins a comment, a backslash at the end of
a line takes the next one in, a command in backquotes stands for what it prints. No command is run:
those of the shipped file are known.
"""

import ipaddress
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import Finding, SpecError, UsageError, WrongValueError
from pipeline.files import read_named_text
from pipeline.site import find_schema
from pipeline.spec.explain import read_spec
from pipeline.spec.layers import OWN_KEYS, Layer, merge_layers, parse_overrides
from pipeline.spec.load import render_keys
from pipeline.spec.xen_create_image.options import find_option
from pipeline.suites import SUITES

_GUESSED = "xt-guess-suite-and-mirror"


@dataclass(frozen=True)
class Taken:
    """The keys of a spec, what is not carried over (option, reason), and what is to be known."""

    values: dict[str, object]
    left: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def read_conf(path: Path) -> dict[str, str]:
    """The file's options, the later one winning; raises UsageError for what is no such file."""
    options = {}
    begun = ""
    for number, line in enumerate(read_named_text(path).splitlines(), 1):
        begun += line
        if begun.endswith("\\"):  # it goes on in the next line
            begun = begun[:-1]
            continue
        text, begun = begun.partition("#")[0].strip(), ""
        if not text:
            continue
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name.replace("-", "_").isidentifier():
            raise UsageError(f"{path}, line {number}: {text[:60]!r} is not `key = value`")
        options[name.replace("-", "_")] = value
    return options


def translate_conf(options: Mapping[str, str], *, release: str, suite: str = "") -> Taken:
    """What the options are as keys; `release` is the running kernel's, for `uname -r`.

    A `suite` is another's word that wins over the file's: what does not go with it is left.
    """
    values: dict[str, object] = {}
    left: list[tuple[str, str]] = []
    notes: list[str] = []
    for name, text in options.items():
        try:
            values |= _translate(name, text, release, notes)
        except SpecError as error:
            left.append((name, str(error)))
        except WrongValueError as mistake:
            left.append((name, "; ".join(filter(None, (mistake.message, mistake.hint)))))
    values = _keep_sound(values, left, {"suite": suite} if suite in SUITES else {})
    return Taken(values, tuple(left), tuple(notes))


def _translate(name: str, text: str, release: str, notes: list[str]) -> dict[str, object]:
    """One option. Raises WrongValueError with the reason why nothing comes of it."""
    option = find_option(name)
    if option is None:
        raise WrongValueError("xen-create-image has no such option")
    value = _expand(name, text, release)
    if name == "install_method" and value == "debootstrap":
        raise WrongValueError("what is built in makes the same tree", 'bootstrap = "debootstrap"')
    if name == "netmask":
        raise WrongValueError("a guest's address says it", 'address = "192.168.1.5/24"')
    keys: Mapping[str, Any] = parse_overrides(option.translate(value))
    own = [key for key in keys if key in OWN_KEYS]
    if own:
        raise WrongValueError("it belongs to one guest alone", "write it into that guest's file")
    if not keys or option.status == "different":
        notes.append(f"{name}: {option.note_for(value)}")
    return dict(keys)


def _expand(name: str, text: str, release: str) -> str:
    """The value, with what the commands of the shipped file print."""
    text = text.replace("`uname -r`", release)
    if name in ("kernel", "initrd") and release in text:
        raise WrongValueError(
            "each guest gets its suite's own kernel and an initrd for it",
            'kernel = "host" is the running one' if name == "kernel" else "",
        )
    if text == f"`{_GUESSED} --suite`":
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    if text == f"`{_GUESSED} --mirror`":
        return "host"
    if "`" in text:
        raise WrongValueError(
            f"{text} is the output of a command, which is not run", "write it out"
        )
    return text


def _keep_sound(
    values: dict[str, object], left: list[tuple[str, str]], above: Mapping[str, object]
) -> dict[str, object]:
    """The values that a guest can have; each of the others is noted with what is wrong."""
    values = dict(values)
    while True:
        tried = {**values, **above}
        if {"gateway", "nameservers"} & set(values) and not values.get("dhcp"):
            tried.setdefault("gateway", "192.0.2.1")  # RFC 5737
            tried["address"] = [_neighbour(str(tried["gateway"]))]
        problems: list[Finding] = []
        merged = merge_layers(
            [Layer("xen-tools.conf", Path("/"), {**tried, "name": "web1"})], problems
        )
        read_spec(merged, problems, fallback="xen-tools.conf")
        if not problems:
            return values
        wrong = {problem.subject: problem.text for problem in problems}
        for key in [key for key in values if key in wrong] or list(values)[-1:]:
            left.append((key, wrong.get(key, "it does not go with the others")))
            del values[key]


def _neighbour(gateway: str) -> str:
    """An address beside the gateway's; any where that is none."""
    try:
        card = ipaddress.ip_interface(f"{gateway}/24")
    except ValueError:
        return "192.0.2.2/24"
    other = next(address for address in card.network.hosts() if address != card.ip)
    return f"{other}/24"


def render_defaults(taken: Taken, source: Path, guests: Path) -> str:
    """guests/defaults.toml."""
    layer = Layer(source.name, source.parent, taken.values)
    lines = [f"#:schema {find_schema(guests)}", f"# What all guests share; from {source}."]
    lines += render_keys(layer)
    lines += [f"# {name}: {reason}" for name, reason in taken.left]
    return "\n".join(lines) + "\n"
