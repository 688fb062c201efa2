"""The house's walls: who may import whom, and where processes start."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "pipeline"
BANNED = {"utils", "helpers", "common", "misc", "manager", "handler", "data", "info"}
SOURCES = sorted(PIPELINE.rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def breaks_a_wall(module: str, imported: str) -> str:
    if imported.split(".")[0] == "doit" and module not in (
        "pipeline.__main__",
        "pipeline.graph",
        "pipeline.reporter",
    ):
        return "only graph and reporter know doit, and who starts it"
    if imported == "subprocess" and module != "pipeline.command":
        return "only command starts processes"
    if module.startswith("pipeline.stages.") and imported.startswith("pipeline.stages."):
        return "" if imported.startswith("pipeline.stages.names") else "stages do not import stages"
    if module.startswith("pipeline.xen") and imported.startswith("pipeline."):
        return "" if imported.startswith("pipeline.xen") else "xen/ knows nothing but itself"
    if imported in ("pipeline.graph", "pipeline.reporter", "dodo") and module not in (
        "pipeline.graph",
        "pipeline.reporter",
    ):
        return "nothing looks up to the graph"
    low = ("pipeline.host", "pipeline.archive", "pipeline.spec", "pipeline.initrd")
    if module.startswith(low) and imported.startswith(("pipeline.stages", "pipeline.recipe")):
        return "the floor below does not import stages"
    return ""


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_go_one_way(path: Path) -> None:
    module = module_of(path)
    broken = {found: why for found in imports_of(path) if (why := breaks_a_wall(module, found))}
    assert not broken


def test_xen_does_no_input_or_output() -> None:
    for path in (PIPELINE / "xen").rglob("*.py"):
        names = set(imports_of(path))
        assert not names & {"os", "socket", "requests", "shutil", "tempfile"}, path
        assert "open(" not in path.read_text(), path


def test_no_module_is_called_by_a_banned_name() -> None:
    for path in [*SOURCES, *(ROOT / "tests").rglob("*.py")]:
        assert path.stem not in BANNED, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert node.name.lower() not in BANNED, f"{path}: {node.name}"
                assert not node.name.startswith(("do_", "process_")), f"{path}: {node.name}"


@pytest.mark.parametrize("path", [ROOT / "dodo.py", *SOURCES], ids=str)
def test_files_and_functions_fit_in_a_head(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= (120 if path.name == "dodo.py" else 500)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 45, f"{path}: {node.name}"


def test_dodo_decides_nothing() -> None:
    tree = ast.parse((ROOT / "dodo.py").read_text())
    assert not [
        node for node in ast.walk(tree) if isinstance(node, ast.For | ast.If | ast.While | ast.With)
    ]
