"""Which packages of a built guest its mirror has in another version now."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from pipeline.archive.index import read_package
from pipeline.archive.snapshot import Snapshot

_START = len("Package: ")


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
        text = Path(snapshot.folder, name).read_text(encoding="utf-8", errors="replace")
        for stanza in text.split("\n\n"):
            package = stanza[_START : stanza.find("\n")]
            if package in names:
                found[package].add(read_package(root, stanza).version)
    return found


def _newest(versions: set[str]) -> str:
    from debian.debian_support import Version

    return max(versions, key=Version)
