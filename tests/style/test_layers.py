"""The house: who may import whom (pyproject.toml), how large a room is, what it is called."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.style import house

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "pipeline"
BANNED = {"utils", "helpers", "common", "misc", "manager", "handler", "data", "info"}
SOURCES = sorted(PIPELINE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}
# a stem stands twice only where the folder says the difference
STEMS = {
    "boot_files": "check reads those of a guest, dom0 sets those of a host",
    "configuration": "check reads a domain configuration, dom0 places it",
    "delivery": "of packages into a cage, of images to a host",
    "devices": "of a spec, of a domain",
    "dom0": "the command, a proof's host",
    "domain": "spec makes one, xen is what it is",
    "export": "the command, what a repository serves",
    "facts": "of an image, of a host, of a kernel",
    "image": "check reads one, the stage makes one; kernel/ has the kernel's",
    "install": "the command, what it does",
    "kernels": "check reads those of an image, dom0 keeps those of guests",
    "keys": "of a spec, of xl's configuration, those that sign",
    "leftovers": "dom0's doctor tells of them, storage removes its own",
    "mirror": "the stage, the proof's own",
    "mirrors": "the commands, the definitions",
    "network": "check reads the guest's files, guest writes them",
    "options": "of our commands, of xen-create-image",
    "power": "the commands, what they do",
    "prove": "the command, what it does",
    "site": "the commands, where it is",
    "ssh": "the command, a proof's way into its guest",
    "store": "the commands, the store",
    "values": "of a spec, of a domain",
}
# imports inside functions: what a start would pay for, without using it
LATE = {
    "__main__.py": (2, "doit, which help does without"),
    "graph.py": (3, "the libraries of a fleet, an extra"),
    "artifact/record.py": (1, "python-debian"),
    "commands/install.py": (1, "the libraries of the image repository, an extra"),
    "commands/help.py": (1, "what a Tab asks, and nobody else"),
    "commands/store.py": (1, "the libraries of a fleet, an extra"),
    "compression.py": (5, "zstandard, lz4: few packages and kernels need them"),
    "console/progress.py": (1, "tqdm"),
    "guest/identity.py": (1, "cryptography"),
    "mirror/fetch.py": (3, "requests"),
    "mirror/index.py": (1, "python-debian"),
    "mirror/source_package.py": (1, "python-debian"),
    "remote/place.py": (2, "paramiko, s3fs"),
    "spec/ssh_keys.py": (1, "cryptography"),
    "stages/base.py": (1, "an HTTP server"),
    "stages/config.py": (1, "Jinja2, an XML library"),
    "stages/firmware.py": (1, "an HTTP server"),
    "stages/kernel.py": (1, "an ELF library"),
    "stages/rootfs.py": (1, "an HTTP server"),
    "stages/user_data.py": (1, "PyYAML"),
}
# `one` and `found` are no names for what has one; the number only goes down
NAMELESS = 240


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


def test_the_picture_of_the_rooms_is_true() -> None:
    assert house.PAGE.read_text() == house.draw(), "python -m tests.style.house --write"


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
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 45, f"{path}: {node.name}"


def test_modules_are_called_by_nouns() -> None:
    helpers = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    stems = {path.stem for path in [*SOURCES, *helpers] if not path.name.startswith("test_")}
    assert not [stem for stem in stems if stem.endswith("ing")]


def test_a_stem_stands_twice_only_with_a_reason() -> None:
    stems = Counter(path.stem for path in SOURCES if path.stem != "__init__")
    assert {stem for stem, count in stems.items() if count > 1} == set(STEMS)


def late_imports(tree: ast.AST) -> int:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = [node for function in functions for node in ast.walk(function)]
    return len({node for node in inside if isinstance(node, ast.Import | ast.ImportFrom)})


def test_imports_stand_at_the_top() -> None:
    late = {str(path.relative_to(PIPELINE)): late_imports(tree) for path, tree in TREES.items()}
    assert {path: count for path, count in late.items() if count} == {
        path: count for path, (count, _) in LATE.items()
    }
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        assert not late_imports(ast.parse(path.read_text())), path


def names_given(tree: ast.AST) -> Iterator[str]:
    """Every name that is given to a value: by assignment, by a loop, by a parameter."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


def test_what_has_a_name_is_called_by_it() -> None:
    nameless = {
        path: len([name for name in names_given(tree) if name in ("one", "found")])
        for path, tree in TREES.items()
    }
    assert sum(nameless.values()) <= NAMELESS
    named = [PIPELINE / "recipe.py", *(PIPELINE / "stages").rglob("*.py")]
    assert not [path for path in named if nameless[path]]


def test_dodo_decides_nothing() -> None:
    tree = ast.parse((ROOT / "dodo.py").read_text())
    assert not [
        node for node in ast.walk(tree) if isinstance(node, ast.For | ast.If | ast.While | ast.With)
    ]
