"""The house's walls: who may import whom (pyproject.toml), how large a room is."""

from __future__ import annotations

import ast
import subprocess
import sys
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


def test_imports_go_one_way() -> None:
    """The contracts of import-linter in pyproject.toml."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-logo"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


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
