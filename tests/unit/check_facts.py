"""Facts of a small imaginary guest, for the checks that need no image."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.check.facts import Facts
from pipeline.check.file_systems import FileSystem
from pipeline.check.tree import Node, Tree
from pipeline.errors import Finding
from tests.specs import make_spec

CLEAN = FileSystem(features=frozenset(), uuid="", size=0, faults="")
FOLDER = Path("/srv/web1")


def make_tree(files: Mapping[str, str | Node]) -> Tree:
    """Paths to texts; `-> target` is a link; a path that ends with / is a folder."""
    return Tree({path.rstrip("/") or "/": _make_node(path, what) for path, what in files.items()})


def _make_node(path: str, what: str | Node) -> Node:
    if isinstance(what, Node):
        return what
    if path.endswith("/"):
        return Node("folder", 0o755)
    if what.startswith("-> "):
        return Node("link", 0o777, target=what.removeprefix("-> "))
    return Node("file", content=what.encode())


def make_facts(files: Mapping[str, str | Node] | None = None, **keys: Any) -> Facts:
    """Facts of web1, with these keys in its spec."""
    spec = make_spec(**keys)
    return Facts(spec=spec, folder=FOLDER, file_system=CLEAN, tree=make_tree(files or {}))


def by_name(findings: object) -> dict[str, Finding]:
    """The findings of a check, by their names."""
    assert hasattr(findings, "__iter__")
    return {finding.subject: finding for finding in findings}


def failed(findings: object) -> set[str]:
    """Names of those that failed."""
    return {name for name, finding in by_name(findings).items() if finding.level == "error"}
