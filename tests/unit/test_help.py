"""`doit help` and the manual page know every command, variable and key."""

from __future__ import annotations

import pytest

from pipeline.commands import COMMANDS
from pipeline.commands.command import Command
from pipeline.commands.help import print_help, render_overview, render_topic
from pipeline.commands.manual import NAME, render_manual
from pipeline.commands.options import variables_of
from pipeline.errors import UsageError
from pipeline.spec import Spec, known_variables
from pipeline.stages import STAGES
from tests.conftest import ROOT


def test_the_overview_names_every_command_and_stage() -> None:
    said = render_overview().splitlines()
    shown = {command.name: command.doc for command in COMMANDS.values()}
    shown |= {stage.name: stage.summary for stage in STAGES}
    for name, what in shown.items():
        assert f"  {name:<14} {what}" in said


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_shows_every_variable_with_type_default_and_meaning(command: Command) -> None:
    said = " ".join(render_topic(command.name).split())
    assert said.startswith(f"doit {command.name}: {command.doc}")
    assert command.example in said
    assert ("key of a spec" in said) is command.takes_spec
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
        assert " ".join((Spec.model_fields[key].description or "").split()) in said
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
    assert print_help(["bxild"]) == 2
    assert "error: nothing is called bxild" in capsys.readouterr().err


def test_the_manual_page_is_current() -> None:
    written = (ROOT / "docs" / NAME).read_text()
    assert written == render_manual(), "python -m pipeline.commands.manual --write"
