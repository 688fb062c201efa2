"""What changed between two builds, in words: the reasons that `doit info` and `doit why` print."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.errors import PipelineError
from pipeline.files import flatten, open_plain
from pipeline.mirror.index import read_package
from pipeline.mirror.snapshot import Snapshot
from pipeline.mirror.stanzas import read_stanzas, select_stanzas
from pipeline.store.store import BuildInfo


def describe_package_changes(manifest: str, snapshot: Snapshot) -> list[str]:
    """`name old -> new` for each package whose newest version is not the installed one.

    `manifest` has a line `name version architecture` for each package; a package that no index has
    any more is `name old -> gone`.
    """
    installed = {name: version for name, version, _ in map(str.split, manifest.splitlines())}
    offered = _find_versions(snapshot, set(installed))
    changes = []
    for name, version in sorted(installed.items()):
        newest = _newest(offered[name]) if offered[name] else "gone"
        if newest != version:
            changes.append(f"{name} {version} -> {newest}")
    return changes


def _find_versions(snapshot: Snapshot, names: set[str]) -> defaultdict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for root, name in snapshot.index_files:
        for stanza in select_stanzas(Path(snapshot.folder, name).read_bytes(), names):
            package = read_package(root, stanza)
            found[package.name].add(package.version)
    return found


def _newest(versions: set[str]) -> str:
    from debian.debian_support import Version

    return max(versions, key=Version)


def render_manifest(status: str) -> str:
    """`name version architecture`, a line a package, sorted. `status` is /var/lib/dpkg/status."""
    try:
        lines = [
            f"{entry['package']} {entry['version']} {entry['architecture']}\n"
            for entry in read_stanzas(status)
            if entry.get("status", "").endswith(" installed")
        ]
    except KeyError as error:
        raise PipelineError(f"the guest's dpkg status: a package without {error}") from None
    except ValueError as error:
        raise PipelineError(f"the guest's dpkg status: {error} is no field") from None
    if not lines:
        raise PipelineError("the guest's dpkg status lists no package")
    return "".join(sorted(lines))


RECORD = "stages.json"
MOST_SHOWN = 6
_NOTHING: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


def read_record(artifact: Path) -> dict[str, BuildInfo]:
    """The buildinfo of every stage that an artifact was made from; empty when unreadable."""
    try:
        with open(open_plain(artifact / RECORD), "rb") as stream:
            stages = json.load(stream)
        return {name: BuildInfo(**found) for name, found in stages.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def describe_changes(
    last: BuildInfo,
    revision: int,
    inputs: Mapping[str, Any],
    upstream: Mapping[str, str],
    taken: Mapping[str, Mapping[str, Any]] = _NOTHING,
) -> list[str]:
    """Each difference between what an artifact was made from and what it would be made from now.

    `taken` is what is taken now of stages before it, where that is not all of them.
    """
    changes = [] if last.revision == revision else ["this stage's recipe changed"]
    for name in sorted({*last.upstream, *upstream}):
        if last.upstream.get(name) == upstream.get(name):
            continue
        parts = _describe_taken(last.taken.get(name, {}), taken.get(name, {}))
        changes += _cut_short(parts) or [f"{name} changed"]
    return changes + _cut_short(describe_values(last.inputs, inputs))


def _cut_short(changes: list[str]) -> list[str]:
    if len(changes) <= MOST_SHOWN:
        return changes
    return [*changes[:MOST_SHOWN], f"and {len(changes) - MOST_SHOWN} more"]


def _describe_taken(last: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each package in another version; nothing where the packages are the same, or not known."""
    if reason := now.get("because"):
        return [f"the mirror changed, and all of it counts: {reason}"]
    before, after = last.get("packages"), now.get("packages")
    if before is None or after is None:
        return []
    return [
        _describe_package(name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _describe_package(name: str, before: str | None, now: str | None) -> str:
    """Of each its version is known, and more that tells one .deb from another."""
    old, new = ((text or "").partition(" ")[0] for text in (before, now))
    if not old or not new:
        return f"+{name} {new}" if new else f"-{name} {old}"
    return f"{name} {old} -> {new}" if old != new else f"{name} {new}, built anew"


def describe_values(last: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each key whose value is another: "memory: 256M -> 512M"."""
    before, after = flatten(last), flatten(now)
    return [
        _describe(key, before.get(key), after.get(key))
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]


def _describe(key: str, before: Any, now: Any) -> str:
    if isinstance(before, list) and isinstance(now, list):
        return _describe_lists(key, before, now)
    if any(_is_digest(value) or _is_long(value) for value in (before, now)):
        verb = "added" if before is None else "removed" if now is None else "changed"
        return f"{key} {verb}"
    return f"{key}: {_show(before)} -> {_show(now)}"


def _describe_lists(key: str, before: list[Any], now: list[Any]) -> str:
    added = [f"+{item}" for item in now if item not in before]
    removed = [f"-{item}" for item in before if item not in now]
    return f"{key}: {' '.join(added + removed) or 'another order'}"


def _is_digest(value: Any) -> bool:
    last = value.split(" ")[-1] if isinstance(value, str) else ""
    return len(last) == 64 and all(letter in "0123456789abcdef" for letter in last)


def _is_long(value: Any) -> bool:
    return isinstance(value, str) and ("\n" in value or len(value) > 80)


def _show(value: Any) -> str:
    return "nothing" if value in (None, "", []) else str(value)
