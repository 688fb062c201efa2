"""What may stand on the command line next; the shells themselves: tests/host/test_completion.py."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import caller
from pipeline.commands import COMMANDS
from pipeline.commands.arguments import read_arguments
from pipeline.commands.completion import complete, find_candidates, render_script, split_line
from pipeline.errors import UsageError
from pipeline.suites import SUITES


@pytest.fixture(autouse=True)
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("guests", "output/guests/old", "here/a b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "guests/web1.toml").write_text("suite = broken")
    (tmp_path / "appliances").mkdir()
    (tmp_path / "appliances/shop.toml").write_text("")
    monkeypatch.setenv("DOMU_GUESTS", str(tmp_path / "guests"))
    monkeypatch.setenv("DOMU_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("DOMU_ROOT", str(tmp_path / "host"))
    monkeypatch.setenv(caller.FOLDER, str(tmp_path / "here"))


def texts(line: str) -> set[str]:
    return {each.text for each in find_candidates(split_line(f"./doit {line}", "./doit"))}


def test_every_command_is_offered_with_its_meaning() -> None:
    offered = {each.text: each.meaning for each in find_candidates([""])}
    assert {name: offered[name] for name in COMMANDS} == {
        command.name: command.doc for command in COMMANDS.values()
    }


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("build w", {"web1"}),
        ("build name=web1,w", {"name=web1,web1"}),
        ("build ", {"web1", "name=", "replace="}),
        ("build sui", {"suite="}),
        ("build --zz", set()),
        ("create --nosw", {"--noswap"}),
        ("create --dis", {"--dist=", "--disk-device="}),
        ("create suite=", {f"suite={name}" for name in SUITES}),
        ("build dhcp=", {"dhcp=yes", "dhcp=no"}),
        ("prove prove_with=", {"prove_with=qemu", "prove_with=xl"}),
        ("start ", {"old", "web1"}),
        ("prove --prove-key ", {"a b/"}),
        ("prove prove_key=a", {"prove_key=a b/"}),
        ("install from=p", {"from=published"}),
        ("help vcp", {"vcpus"}),
        ("gc dr", {"dry="}),
        ("volume:web1 lo", {"locked="}),
        ("build appliance=", {"appliance=shop"}),
    ],
)
def test_what_may_stand_there_is_offered(line: str, some: set[str]) -> None:
    assert texts(line) >= some
    assert some or not texts(line)


def test_what_is_given_or_of_another_command_is_not_offered() -> None:
    assert not texts("build name=web1 na") & {"name="}
    assert not {text for text in texts("build name=web1 ") if "=" not in text}
    assert "suite=" not in texts("gc s")
    assert "old" not in texts("build ")


def test_bash_gets_the_part_that_it_takes_for_the_word(capsys: pytest.CaptureFixture[str]) -> None:
    for line, part, wanted in (
        ("./doit build name=w", "w", "web1"),
        ("./doit build name=", "", "web1"),
        ("X=1 ./doit build we", "we", "web1"),
        ("./doit prove prove_key=a\\ b", "a\\ b", "a\\ b/"),
    ):
        assert complete(["answer", "--line", "./doit", line, part]) == 0
        assert capsys.readouterr().out.split("\t")[0] == wanted, line


@given(st.lists(st.text(), max_size=4))
def test_any_line_has_an_answer(words: list[str]) -> None:
    split_line(" ".join(words), "./doit")
    for each in find_candidates(words or [""]):
        assert each.text.isprintable() and "\n" not in each.meaning


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_offered_is_understood(name: str) -> None:
    for each in find_candidates([name, ""]):
        assert read_arguments([name, each.text])


def test_the_script_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(caller.NAME, "/srv/Xen Gäste/xen guests")
    for shell in ("bash", "zsh", "fish"):
        script = render_script(shell)
        assert f"'/srv/Xen Gäste/xen guests' completion {shell}" in script
        assert "'xen guests' doit domu" in script
    with pytest.raises(UsageError, match="for which shell"):
        complete(["tcsh"])
