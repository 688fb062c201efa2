"""The lines of xen-tools' programs as lines of ours: options, xen-tools.conf, what is different.

`doit xen-create-image --hostname web1 --lvm VG0` is then `doit xen-create-image name=web1
hostname=web1 lvm=VG0`. The files are read as xen-create-image 4.9.2 reads them: xen-tools.conf
below the command line, the file of --config above it; the command in one is never run.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.console.progress import print_line
from pipeline.dom0.layout import Layout
from pipeline.errors import SpecError, UsageError
from pipeline.files import read_bytes
from pipeline.kernel.image import read_kernel
from pipeline.spec.xen_create_image.conf_file import read_conf, translate_conf
from pipeline.spec.xen_create_image.grammar import PROGRAMS, Typed, read_line
from pipeline.spec.xen_create_image.options import render_answers, translate_options

VERSION = "4.9.2"
_PLACES = ("lvm", "lvm_thin", "image_dev", "swap_dev")
_TARGETS = frozenset(("dir", "evms", "image-dev", "lvm", "zpool"))
_FIXED = ("address", "netmask", "gateway")
_KERNEL_BYTES = 256 << 20
_HELPED = 1  # what they end with after --help


@dataclass
class _Request:
    """What is asked for, key by key; `settings` are options that say how, not what."""

    keys: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    def take(self, options: Mapping[str, str]) -> dict[str, str]:
        """The options without the settings among them."""
        own = {name.replace("-", "_"): text for name, text in options.items()}
        names = ("force", "boot", "genpass", "genpass_len", "config", "netmask", "broadcast")
        self.settings |= {name: own.pop(name) for name in names if name in own}
        return own


def answer_program(program: str, arguments: Sequence[str]) -> list[str] | int:
    """The line in our words, or the exit code of what was answered here; raises UsageError."""
    typed = read_line(program, arguments)
    for name in ("help", "manual", "version"):
        if typed.options.get(name) == "1":
            print(_say(program, name))
            return 0 if name == "version" else _HELPED
    if program == "xen-create-image":
        return _create(typed)
    return {
        "xen-list-images": _list,
        "xen-delete-image": _delete,
        "xen-update-image": _update,
    }[program](typed)


def _say(program: str, what: str) -> str:
    if what == "version":
        return f"{program} of the DomU pipeline, for the command lines of xen-tools {VERSION}"
    lines = [f"{program}: xen-tools' command line, carried out by doit (docs/how-to/xen-tools.md)"]
    if program == "xen-create-image":
        return "\n".join([*lines, "", *render_answers()])
    names = (option for table in PROGRAMS[program] for option in table.values())
    return "\n".join([*lines, *(f"  --{each.name}{'=...' * bool(each.kind)}" for each in names)])


def _create(typed: Typed) -> list[str] | int:
    if typed.words:
        raise UsageError(f"{typed.words[0]}: xen-create-image takes options", hint="--hostname=...")
    asked = _Request()
    dumps = typed.options.get("dumpconfig") == "1"
    line = _Request()
    options = line.take({key: text for key, text in typed.options.items() if key != "dumpconfig"})
    told = translate_options(options)
    conf = Layout.here().xen_tools / "xen-tools.conf"
    below = _read_file(conf, asked, told.overrides.get("suite", "")) if conf.is_file() else {}
    netmask = asked.settings.pop("netmask", "")
    asked.settings |= line.settings
    if told.problems:
        raise SpecError(told.problems)
    asked.keys = _merge(below, told.overrides, typed)
    if config := asked.settings.get("config"):
        asked.keys |= _read_file(_find_config(config), asked)
    _settle(asked, netmask)
    _choose_type(asked.keys)
    for note in told.notes:
        print_line(f"note: {note}")
    if dumps:
        for key, text in sorted({**asked.keys, **asked.settings}.items()):
            print(f"{key} = {text}")
        return 0
    if "name" not in asked.keys:
        raise UsageError("which guest?", hint="--hostname=web1")
    return ["xen-create-image", *_as_variables(asked)]


def _find_config(text: str) -> Path:
    path = Layout.here().xen_tools / text
    if not path.is_file():
        raise UsageError(f"--config: no file {path}", hint=f"a path, or a name in {path.parent}")
    return path


def _read_file(path: Path, asked: _Request, suite: str = "") -> dict[str, str]:
    """The file's keys, said in a line; its settings go into `asked`."""
    options = asked.take(read_conf(path))
    taken = translate_conf(options, release=platform.release(), suite=suite)
    left = ", ".join(name for name, _ in taken.left)
    why = f"; not {left} (doit import-xen-tools {path} dry=yes says why)" if left else ""
    print_line(f"note: from {path}: {', '.join(taken.values) or 'nothing'}{why}")
    return {key: _show(value) for key, value in taken.values.items()}


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _merge(below: Mapping[str, str], above: Mapping[str, str], typed: Typed) -> dict[str, str]:
    """The command line over the file: a place, or a way to an address, drops the file's other."""
    dropped: set[str] = set()
    if _TARGETS & typed.options.keys():
        dropped.update(_PLACES)
    if "address" in above:
        dropped.add("dhcp")
    if above.get("dhcp") == "yes":
        dropped.update(_FIXED)
    return {**{key: text for key, text in below.items() if key not in dropped}, **above}


def _settle(asked: _Request, netmask: str) -> None:
    """What xen-create-image takes without a word, and our specs would call a contradiction."""
    keys, settings = asked.keys, asked.settings
    netmask = settings.pop("netmask", netmask)
    settings.pop("broadcast", "")
    if "address" in keys and netmask and "/" not in keys["address"]:
        keys["netmask"] = netmask
    if "address" not in keys:
        keys.pop("gateway", "")
    if "lvm" in keys or "image_dev" in keys:
        keys.pop("image", "")


def _choose_type(keys: dict[str, str]) -> None:
    """PVH for a kernel file that can: a spec alone could not know."""
    kernel = keys.get("kernel", "")
    if "type" in keys or not kernel.startswith("/"):
        return
    try:
        facts = read_kernel(read_bytes(Path(kernel), limit=_KERNEL_BYTES, follow=True))
    except (OSError, ValueError):
        return  # the spec's own check says what is wrong with it
    if facts.bits == 64 and "PHYS32_ENTRY" in (facts.elf_notes or {}):
        keys["type"] = "pvh"
        print_line(f"note: kernel: {kernel} can be entered as PVH: type=pvh (--type pv: as ever)")


def _as_variables(asked: _Request) -> list[str]:
    keys, settings = asked.keys, asked.settings
    has_password = "root_password_file" in keys
    makes = settings.get("genpass", "1") != "0" and not has_password
    variables = {**keys, "genpass": _show(makes)}
    if length := settings.get("genpass_len"):
        variables["genpass_len"] = length
    for name, variable in (("force", "replace"), ("boot", "start")):
        if settings.get(name, "0") == "1":
            variables[variable] = "yes"
    return [f"{key}={text}" for key, text in variables.items()]


def _list(typed: Typed) -> list[str]:
    line = ["xen-list-images"]
    if folder := typed.options.get("test"):
        line.append(f"folder={folder}")
    if (extension := typed.options.get("extension")) is not None:
        line.append(f"extension={extension}")
    return line


def _delete(typed: Typed) -> list[str]:
    names = [*typed.words, *filter(None, typed.options.get("hostname", "").split(","))]
    _note_places("xen-delete-image", typed)
    dry = ["dry=yes"] if typed.options.get("dry-run") == "1" else []
    return ["xen-delete-image", *_names(names), *dry]


def _update(typed: Typed) -> list[str]:
    _note_places("xen-update-image", typed)
    return ["xen-update-image", *_names(typed.words)]


def _names(names: Sequence[str]) -> list[str]:
    if not names:
        raise UsageError("which guests?", hint="name them: web1 web2")
    return [f"name={','.join(dict.fromkeys(names))}"]


def _note_places(program: str, typed: Typed) -> None:
    given = [f"--{name}" for name in ("dir", "lvm", "evms", "zpool") if name in typed.options]
    if given:
        print_line(f"note: {program} {given[0]}: the disks are those of the guest's own record")
