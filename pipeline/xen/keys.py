"""Keys that a toolstack would ignore: named one by one, with what to write instead.

xl skips unknown keys without a word, and only prints a line for an unknown vif key; xend leaves
unknown variables alone. So a misspelt key is a guest without what it should have had.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from pipeline.xen import key_tables as tables
from pipeline.xen import specs, xl, xm
from pipeline.xen.cfg_syntax import Value, read_assignments
from pipeline.xen.text import SyntaxFault, check_choice, parse_version

Version = tuple[int, int]


def check_keys(configuration: str | Mapping[str, Value], *, target: str, xen: str) -> list[str]:
    """One line for each key of a configuration that `target` (xl or xm) would ignore.

    `configuration` is the text or its assignments. Raises SyntaxFault when the text cannot be read.
    """
    check_choice("target", target, ("xl", "xm"))
    version = parse_version(xen)
    problems: list[str] = []
    if isinstance(configuration, str):
        if target == "xl":
            problems += _find_repeated(configuration)
            configuration = xl.parse_assignments(configuration)
        else:
            configuration = xm.parse_assignments(configuration)
    if target == "xl":
        return problems + list(_check_xl(configuration, version))
    return problems + list(_check_xm(configuration, version))


def _find_repeated(text: str) -> list[str]:
    seen: dict[str, int] = {}
    problems = []
    for entry in read_assignments(text):
        if entry.key in seen and "+=" not in text.split("\n")[entry.line - 1]:
            problems.append(
                f"{entry.key}: line {entry.line} overrides line {seen[entry.key]}; keep one"
            )
        seen[entry.key] = entry.line
    return problems


def _check_xl(values: Mapping[str, Value], version: Version) -> Iterator[str]:
    for key in values:
        yield from _check_xl_key(key, version)
    yield from _check_xl_type(values)
    yield from _check_devices(values, "vif", tables.XL_VIF_KEYS, tables.XL_VIF_LATER, version)
    yield from _check_devices(values, "vfb", tables.XL_VFB_KEYS, {}, version)
    for item in _strings(values, "disk"):
        yield from _check_xl_disk(item)


def _check_xl_key(key: str, version: Version) -> Iterator[str]:
    since = tables.XL_LATER_KEYS.get(key) or tables.XL_SINCE.get(key)
    if since is not None and version < since:
        yield _explain(key, f"xl ignores it before Xen {since[0]}.{since[1]}", tables.HINTS)
    elif since is None and key in tables.XL_DEAD_KEYS:
        yield _explain(key, "xl reads it only to warn that it does nothing", tables.HINTS)
    elif since is None and key not in tables.XL_KEYS:
        yield _explain(key, "xl ignores it", tables.HINTS, tables.XL_KEYS)


def _check_xl_type(values: Mapping[str, Value]) -> Iterator[str]:
    kind = str(values.get("type", "hvm" if values.get("builder") == "hvm" else "pv"))
    if kind != "hvm":
        for key in sorted(tables.XL_HVM_KEYS & set(values)):
            yield f"{key}: xl reads it only for hvm, this domain is {kind}"
    if kind == "hvm" and "bootloader" in values:
        yield "bootloader: xl skips it for hvm, the guest's own boot loader is used"
    if "cmdline" in values:
        for key in ("root", "extra"):
            if key in values:
                yield f"{key}: xl ignores it beside cmdline=; put its words there"
    for key in ("vnc", "vncunused", "vncdisplay", "vnclisten"):
        if key in values and (kind == "pvh" or (kind == "pv" and "vfb" in values)):
            yield f"{key}: xl ignores it for this {kind} domain; put it into vfb = [ ... ]"


def _check_devices(
    values: Mapping[str, Value],
    name: str,
    known: frozenset[str],
    later: Mapping[str, Version],
    version: Version,
) -> Iterator[str]:
    for item in _strings(values, name):
        for key, value in specs.read_pairs(item).items():
            if key in later and version >= later[key]:
                continue
            if key in later:
                yield f"{name} {key}: ignored before Xen {later[key][0]}.{later[key][1]}"
            elif key == "type" and name == "vfb" and key not in known:
                yield f"vfb type: xl ignores type={value}; write {value}=1"
            elif key not in known:
                yield _explain(f"{name} {key}", "not a key of it", {}, known)


def _check_xl_disk(item: str) -> Iterator[str]:
    try:
        fields = specs.read_disk_fields(item)
    except SyntaxFault as fault:
        yield str(fault)
        return
    for key in fields:
        if key not in tables.XL_DISK_KEYS:
            yield _explain(f"disk {key}", "xl refuses it", {}, tables.XL_DISK_KEYS)


def _check_xm(values: Mapping[str, Value], version: Version) -> Iterator[str]:
    for key in values:
        since = tables.XM_LATER_KEYS.get(key)
        if since is not None and version < since:
            yield f"{key}: xm ignores it before Xen {since[0]}.{since[1]}"
        elif since is None and key not in tables.XM_KEYS:
            hint = {"type": "builder = 'hvm' or 'linux' is what xm reads"}
            yield _explain(key, "xm ignores it", hint, tables.XM_KEYS)
    yield from _check_devices(values, "vif", tables.XM_VIF_KEYS, {}, version)
    yield from _check_devices(
        values, "vfb", tables.XM_VFB_KEYS, {"opengl": (3, 3), "videoram": (3, 3)}, version
    )


def _strings(values: Mapping[str, Value], key: str) -> list[str]:
    value = values.get(key, [])
    return value if isinstance(value, list) else []


def _explain(
    key: str, what: str, hints: Mapping[str, str], known: frozenset[str] = frozenset()
) -> str:
    bare = key.split()[-1]
    near = difflib.get_close_matches(bare, sorted(known), n=1, cutoff=0.8)
    hint = hints.get(bare) or (f"did you mean {near[0]}?" if near else "")
    return f"{key}: {what}; {hint}" if hint else f"{key}: {what}"
