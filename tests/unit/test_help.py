"""`doit help` and the manual page know every command, variable and key."""

import sys

import pytest

from pipeline.caller import as_typed
from pipeline.commands import COMMANDS, help
from pipeline.commands.command import Command
from pipeline.commands.help import render_list, render_overview, render_topic
from pipeline.commands.manual import documents
from pipeline.commands.options import variables_of
from pipeline.errors import UsageError
from pipeline.spec import Spec, known_variables
from pipeline.stages import STAGES
from tests.conftest import ROOT


def test_the_overview_is_a_screen_that_begins_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for columns, most in ((80, 40), (40, 50)):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = render_overview().splitlines()
        assert len(lines) <= most
        assert max(map(len, lines)) <= columns
        assert "known to boot" in " ".join(lines[:2])
        assert [line.split()[:2] for line in lines if line.startswith("  ./doit")][:3] == [
            ["./doit", "create"],
            ["./doit"] if columns == 40 else ["./doit", "the"],
            ["./doit", "help"],
        ]
        words = {word.strip(",") for line in lines for word in line.split()}
        assert words >= set(COMMANDS)


def test_the_list_has_a_line_for_every_command_and_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = render_list().splitlines()
    shown = {command.name: command.doc for command in COMMANDS.values()}
    shown |= {stage.name: stage.summary for stage in STAGES}
    for name, what in shown.items():
        assert any(line.startswith(f"  {name:<18}{what[:60]}") for line in said), name
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, render_list().splitlines())) <= 40


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("help", "known to boot"),
        ("-h", "known to boot"),
        ("build --help", "doit build: "),
        ("-h create web1", "doit create: "),
        ("help size", "size: a key of a spec"),
        ("--version", "domu-pipeline "),
        ("version", "diskimage-builder "),
        ("list", "stages of a build"),
        ("info build:test-drbd", "doit build: "),
        ("help list", "a command of doit's own"),
    ],
)
def test_a_question_is_answered_without_the_graph(
    line: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(help, "run", lambda _argv: "0123abc\n")  # unit tests start no program
    status = help.answer(line.split())
    shown = capsys.readouterr()
    assert said in shown.out + shown.err
    assert status == 0


@pytest.mark.parametrize("line", ["", "build", "list --all", "info volume:web1", "why x", "run x"])
def test_all_else_is_for_the_graph(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["doit"])
    assert help.answer(line.split()) is None
    assert sys.argv == ["doit", *line.replace("why x", "why name=x").split()]


def test_doits_own_help_is_there_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["doit", "help", "doit", "run"])
    assert help.answer(["help", "doit", "run"]) is None
    assert sys.argv == ["doit", "help", "run"]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_shows_every_variable_with_type_default_and_meaning(command: Command) -> None:
    said = " ".join(render_topic(command.name).split())
    assert said.startswith(f"doit {command.name}: {command.doc}")
    assert command.example in said
    assert ("and every key of a spec" in said) is command.takes_spec
    for name, field in variables_of(command.options).items():
        assert f" {name}= " in said
        assert field.description and " ".join(field.description.split()) in said


@pytest.mark.parametrize(
    "key", sorted({*known_variables(), *(n for c in COMMANDS.values() for n in c.variables)})
)
def test_every_key_variable_and_option_of_xen_create_image_is_a_topic(key: str) -> None:
    said = " ".join(render_topic(key).split())
    if key in Spec.model_fields:
        assert f"{key}: a key of a spec" in said
        assert as_typed(" ".join((Spec.model_fields[key].description or "").split())) in said
    for command in COMMANDS.values():
        if key in command.variables:
            assert command.name in said


def test_a_topic_is_written_as_it_is_typed() -> None:
    for text in ("prove_key", "prove-key", "prove_key=", "--prove-key"):
        assert "doit prove, prove-cfg" in render_topic(text)


def test_what_there_is_not_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="nothing is called bxild") as caught:
        render_topic("bxild")
    assert "'build'" in caught.value.hint
    assert help.answer(["help", "bxild"]) == 2
    assert "error: nothing is called bxild" in capsys.readouterr().err


@pytest.mark.parametrize("name", documents())
def test_the_manual_pages_are_current(name: str) -> None:
    written = (ROOT / "docs" / name).read_text()
    assert written == documents()[name], "python -m pipeline.commands.manual --write"


def test_the_page_of_commands_has_each_with_its_variables() -> None:
    page = documents()["reference/commands.md"]
    for name, command in COMMANDS.items():
        part = page.partition(f"### {name}\n")[2].partition("\n### ")[0]
        own = [key for key in command.variables if key != "events"]
        assert part and all(f"- `{key}=`" in part for key in own), name
