"""LVM's filter in lvm.conf: this host's LVM does not look into the volumes of guests.

Facts: lvm.conf(5), lib/filters/filter-regex.c: of the names of a device, one that meets an `a`
before an `r` has it accepted; else one that meets an `r` has it rejected; what meets nothing is
accepted. So `r` for two names of a volume rejects it, unless an `a` takes its others (/dev/dm-3):
`"a|.*|"` at the end undoes all before it. lvmlocal.conf, read after lvm.conf, is for the section
`local`: only a filter that is there already is changed there. global_filter, which udev's calls
obey too, came with lvm2 2.02.98: before jessie it is `filter`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.dom0.setup.assignments import put_line

CONF = "/etc/lvm/lvm.conf"
LOCAL = "/etc/lvm/lvmlocal.conf"
KEYS = ("global_filter", "filter")
_OLD = ("etch", "lenny", "squeeze", "wheezy")
_STRING = r'"(?:\\.|[^"\\])*"'
_PARTS = re.compile(rf"#[^\n]*|{_STRING}")
_VALUE = rf'(?:\[(?:[^\]"]|{_STRING})*\]|{_STRING})'
# a volume's names that say nothing of its group, and a disk's
_NAMELESS = ("/dev/dm-3", "/dev/block/253:3", "/dev/disk/by-id/dm-uuid-LVM-0123456789abcdef")
_DISKS = ("/dev/sda", "/dev/nvme0n1p3", "/dev/md0", "/dev/xvda2")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Filter:
    """A filter as lvm.conf has it: its patterns, and where its value stands in the text."""

    patterns: tuple[str, ...]
    start: int
    end: int


def key_in(suite: str) -> str:
    """The name of the setting in that release's LVM."""
    return KEYS[suite in _OLD]


def find_filter(text: str, key: str) -> Filter | None:
    """The last devices { KEY = [...] } or devices/KEY = [...]; None where it is not set."""
    clean = _PARTS.sub(lambda part: _blank(part) if part[0][0] == "#" else part[0], text)
    frame = _PARTS.sub(_blank, text)
    last = None
    for setting in re.finditer(rf"(?<![\w/])(devices/)?{key}\s*=\s*({_VALUE})", clean):
        if setting[1] or _section_at(frame, setting.start()) == "devices":
            strings = re.findall(_STRING, setting[2])
            patterns = tuple(re.sub(r"\\(.)", r"\1", string[1:-1]) for string in strings)
            last = Filter(patterns, setting.start(2), setting.end(2))
    return last


def _blank(part: re.Match[str]) -> str:
    return " " * len(part[0])


def _section_at(frame: str, end: int) -> str:
    names: list[str] = []
    for brace in re.finditer(r"([\w/]*)\s*\{|\}", frame[:end]):
        names = names[:-1] if brace[0] == "}" else [*names, brace[1]]
    return "/".join(names)


def set_filter(text: str, key: str, groups: Iterable[str]) -> str:
    """The text whose filter rejects the volumes of these groups; what it had stays behind that."""
    old = find_filter(text, key)
    patterns = merge_patterns(old.patterns if old else (), groups)
    if old and old.patterns == patterns:
        return text
    quoted = (pattern.replace("\\", "\\\\").replace('"', '\\"') for pattern in patterns)
    value = f"[ {', '.join(f'{chr(34)}{pattern}{chr(34)}' for pattern in quoted)} ]"
    if old:
        return f"{text[: old.start]}{value}{text[old.end :]}"
    line = f"\t{key} = {value}"
    section = re.search(r"^[ \t]*devices[ \t]*\{[^\n]*\n", text, re.MULTILINE)
    if section:
        return f"{text[: section.end()]}{line}\n{text[section.end() :]}"
    return put_line(text, f"devices {{\n{line}\n}}", ())


def merge_patterns(old: Sequence[str], groups: Iterable[str]) -> tuple[str, ...]:
    """Ours first; an old filter that accepts everything says no more than having none."""
    ours = [pattern for group in groups for pattern in _reject(group)]
    kept = [pattern for pattern in old if pattern not in ours]
    is_default = all(p[:1] == "a" and all(_matches(p, disk) for disk in _DISKS) for p in kept)
    return (*ours, *(() if is_default else kept))


def _reject(group: str) -> Iterator[str]:
    # a dot is any character, + a repetition; the mapper doubles a group's dashes
    name = re.sub(r"[.+]", r"[\g<0>]", group)
    yield f"r|^/dev/{name}/|"
    yield f"r|^/dev/mapper/{name.replace('-', '--')}-[^-]|"


def find_acceptance(patterns: Iterable[str]) -> str:
    """The pattern that takes guests' volumes in after all, by a name without the group's."""
    for name in _NAMELESS:
        first = next((pattern for pattern in patterns if _matches(pattern, name)), "")
        if first.startswith("a"):
            return first
    return ""


def _matches(pattern: str, name: str) -> bool:
    """Whether LVM's expression is found in a name; one that only LVM understands is not."""
    body = pattern[2:].rstrip(_CLOSING.get(pattern[1:2], pattern[1:2]))
    try:
        return re.search(body, name) is not None
    except re.error:
        return False
