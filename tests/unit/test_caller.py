"""What is printed as a command can be typed where it is read; paths are meant from there."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from pipeline import caller
from pipeline.commands.arguments import KNOWN
from pipeline.console.findings import render_table
from pipeline.console.progress import print_line
from pipeline.console.terminal import print_error
from pipeline.errors import Finding, PipelineError
from pipeline.project import Project
from pipeline.spec.layers import read_command_layer
from tests.conftest import ROOT

HINT = "doit shutdown name=a, then `doit start name=a`, or sudo ./doit; see /x/doit build, doit's"


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("./doit", "./doit"),
        ("../../doit", "../../doit"),
        ("/opt/domu/doit", "/opt/domu/doit"),
        ("/srv/Xen Gäste/doit", "'/srv/Xen Gäste/doit'"),
    ],
)
def test_a_command_in_a_text_is_what_was_typed(
    typed: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(caller.NAME, typed)
    said = caller.as_typed(HINT)
    assert said == (
        f"{shown} shutdown name=a, then `{shown} start name=a`, or sudo {shown}; "
        "see /x/doit build, doit's"
    )
    assert caller.as_typed(said) == said
    assert shlex.split(caller.typed_name()) == [typed]


def test_a_link_on_the_path_is_its_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "domu").symlink_to(ROOT / "doit")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(caller.NAME, str(tmp_path / "domu"))
    assert caller.as_typed("doit build") == "domu build"
    monkeypatch.setenv("PATH", "/nowhere")
    assert caller.as_typed("doit build") == f"{tmp_path}/domu build"


def test_lines_errors_and_findings_show_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(caller.NAME, "/opt/domu/doit")
    print_line("doit build name=a")
    print_error(PipelineError("run doit lock", details="doit plan", hint="doit doctor"))
    print("\n".join(render_table([Finding("error", "size", "bad", "doit resize name=a")])))
    said = capsys.readouterr()
    for command in ("build name=a", "resize name=a"):
        assert f"/opt/domu/doit {command}" in said.out
    for command in ("lock", "plan", "doctor"):
        assert f"/opt/domu/doit {command}" in said.err


def test_what_follows_doit_in_a_message_is_a_command() -> None:
    """Else the word doit of a sentence would become a path."""
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        documentation = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant) and id(node) not in documentation:
                for word in re.findall(r"(?<![\w./-])doit ([a-z][a-z0-9-]*)", str(node.value)):
                    assert word in KNOWN, f"{path}:{node.lineno}: doit {word}"


def test_paths_are_meant_from_the_callers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(caller.FOLDER, str(tmp_path))
    monkeypatch.setenv("DOMU_OUTPUT", "made")
    assert read_command_layer({"authorized_keys": "k.pub"}, []).folder == tmp_path
    assert Project.here().output == tmp_path / "made"
    assert caller.shorten_path(tmp_path / "a/b") == Path("a/b")
    assert caller.shorten_path(Path("/srv/x")) == Path("/srv/x")
