"""Every command x every variable x every spelling: typed as is meant, or refused, nothing run."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.build_options import BuildOptions
from pipeline.commands import COMMANDS
from pipeline.commands.command import Command
from pipeline.commands.command_line import read_command_line
from pipeline.commands.options import NamedPath, Options, variables_of
from pipeline.errors import SpecError, UsageError
from pipeline.graph import Graph
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec, known_variables
from pipeline.spec.annotations import is_list, strip_annotation

YES = ("yes", "true", "on", "1", "", "YES", "True")
NO = ("no", "false", "off", "0", "No", "FALSE")
NEITHER = ("maybe", "2", "ja", "yes ", "00", "none", "-", "\x1b[2J", "\udc80", "yes,no", "'yes'")
NO_NUMBER = ("", "x", "-1", "1.5", "1e3", "\u0663", "9" * 30, "0x10", "1 ")
NO_PATH = ("", "-x", "a\nb", "~nobody-of-this-name/x", "\udc80")
NO_NAME = ("", "../web1", "-web1", "a/b", "web1;reboot", "snapshot1", "WEB1", "\udc80")
# the wrong texts of each option that is a text or a list of texts
WRONG_TEXTS = {
    "store": (
        "",
        "s3",
        "s3://",
        "ftp://host/x",
        "file://host/x",
        "file:///",
        "http://h:x/",
        "\udc80",
    ),
    "name": NO_NAME,
    "appliance": NO_NAME,
    "extension": ("a/b", "*", ".CFG", "\udc80"),
    "keep": ("", "4X", "-1G", "1", "1.0000001G", "lots", "\u0664G"),
    "size": ("", "4X", "-1G", "0", "8", "lots", "0M"),
    "prove_xen": ("", "9.9", "4", "xen"),
    "lvm": ("", "a b", "..", "-VG", "VG/../x"),
    "to": ("", "-oProxyCommand=x", "a b", "a\nb"),
    "address": ("", "-oProxyCommand=x", "a b", "a\nb"),
    "user": ("", "-oProxyCommand=x", "a b", "a@b", "\udc80"),
    "command": ("a\nb", "\x1b[2J", "\udc80"),
    "channel": ("", "Stable", "../x", "a b", "-x", "\udc80"),
    "from": (
        *("", "published", "/a/b", "ftp://x/y", "https://", "https://a b/", "file://x/y"),
        "\udc80",
    ),
    "kernel": ("a b", "../x", "-x", "\udc80"),
    "without": ("etc", "/", "/etc/../x", "/a\nb"),
    "upstream": ("", "a b", "http://me:Kanari3@m/", "../x"),
    "limit": ("", "6x", "-1h", "6 h", "h"),
    "at": ("", "3:30", "24:00", "03:60", "now"),
    "version": ("", "current", "../x", "20261124T193000Z-1f2e3d4c/", "\udc80"),
    "suite": ("", "bookwurm", "../x", "\udc80"),
    "suites": ("bookwurm", "bookworm,nosuch", "../x"),
    "mirrors": ("a b", "host,../x"),
    "party": ("", "a b", "../x", "-x"),
    "worker": ("", "a b", "../x", "-x"),
    "listen": ("", "build1", "http://build1", "tls://build1:99999", "tcp://10.0.0.5:8786"),
    "scheduler": ("", "build1", "http://build1", "tls://build1:x", "tcp://build1"),
    "workers": ("", "build1", "local:0", "local:", "tcp://10.0.0.5:8786"),
    "boots": ("nosuch", "pvh,nosuch", "PVH", "pvh;qemu", "\udc80"),
    "parties": ("a b", "../x", "a@", "a,@b", "-x"),
    "host": ("", "a b", "-x", "https://xcp1", "xcp1:0", "me@xcp1", "\udc80"),
    "push user": ("", "a b", "a:b", "\udc80"),
    "sr": ("a\nb", "\x1b[2J", "x" * 256, "\udc80"),
    "fingerprint": ("x", "0" * 63, "0" * 65, "\udc80"),
}
GUEST_NAMES = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


def cases() -> Iterator[tuple[Command, str]]:
    for command in COMMANDS.values():
        for name in command.variables:
            yield command, name


CASES = list(cases())
IDS = [f"{command.name} {name}=" for command, name in CASES]


def line_of(command: Command, name: str, text: str) -> list[str]:
    """The command with this variable, and all that must be given beside it."""
    fields = variables_of(command.options)
    needed = {
        key: (field.examples or [""])[0]
        for key, field in fields.items()
        if _is_needed(command, key) and name != "appliance"
    }
    return [command.name, *(f"{key}={value}" for key, value in {**needed, name: text}.items())]


def _is_needed(command: Command, name: str) -> bool:
    is_one = command.is_of_host and name == "name" and "appliance" in command.variables
    return variables_of(command.options)[name].is_required() or is_one


def right_of(command: Command, name: str) -> Mapping[str, object]:
    """Texts and what each means."""
    field = variables_of(command.options)[name]
    kind = strip_annotation(field.annotation)
    if kind is bool:
        return {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)}
    if kind is int:
        return {"1": 1, "42": 42, "007": 7}
    if get_origin(kind) is Literal and name != "from":
        return {word: word for word in get_args(kind)}
    if kind is Path or (name == "from" and command.name != "list-images"):
        return {"/a/b": Path("/a/b"), "a": Path.cwd() / "a", "~/x": Path.home() / "x"}
    assert field.examples, f"{command.name} {name}= needs an example"
    if kind == tuple[NamedPath, ...]:
        return {"/a/b": (Path("/a/b"),), "/a,b": (Path("/a"), Path.cwd() / "b")}
    if is_list(field.annotation):
        return {text: tuple(text.split(",")) for text in map(str, field.examples)} | {"": ()}
    return {str(text): text for text in field.examples}


def wrong_of(command: Command, name: str) -> tuple[str, ...]:
    kind = strip_annotation(variables_of(command.options)[name].annotation)
    if kind is bool:
        return NEITHER
    if kind is int:
        return (
            *NO_NUMBER,
            *(["0"] if name in ("keep", "port") else []),
            *(["65536"] if name == "port" else []),
        )
    is_path = kind is Path or kind == tuple[NamedPath, ...]
    if is_path or (name == "from" and command.name != "list-images"):
        return NO_PATH
    if get_origin(kind) is Literal:
        return ("", "nosuch", *(word.upper() for word in get_args(kind)), "\udc80")
    return WRONG_TEXTS.get(f"{command.name} {name}") or WRONG_TEXTS[name]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_target_is_there_and_takes_the_options_of_its_command(command: Command) -> None:
    module, _, name = command.target.partition(":")
    target = getattr(import_module(module, "pipeline.commands"), name)
    recipe, subject, options = inspect.signature(target).parameters
    hints = get_type_hints(target)
    assert issubclass(hints[recipe], Recipe)
    assert issubclass(command.options, hints[options])
    assert (hints[subject] is Spec) is command.takes_spec


def spellings(line: list[str], *, is_truth: bool) -> Iterator[list[str]]:
    """The same line in each way that people write it."""
    yield line
    yield [text if "=" not in text else f"--{text}" for text in line]
    yield [text if "=" not in text else f"--{text.replace('_', '-')}" for text in line]
    parts = [f"--{text}".split("=", 1) if "=" in text else [text] for text in line]
    if all(len(pair) == 1 or pair[1] for pair in parts):
        yield [part for pair in parts for part in pair]
    if is_truth:
        yield ["=".join(pair).removesuffix("=") for pair in parts]


TAKEN: list[Options] = []


def take(_recipe: Recipe, _subject: object, options: Options) -> None:
    """A target: what it is given."""
    TAKEN.append(options)


@pytest.mark.parametrize(("command", "name"), CASES, ids=IDS)
def test_a_right_value_reaches_the_target_typed(
    command: Command, name: str, tmp_path: Path
) -> None:
    """However it is spelled: key=value, --key=value, --key value."""
    recipe = Recipe(Project(tmp_path, tmp_path, tmp_path), ())
    attribute = next(
        own for own, field in command.options.model_fields.items() if (field.alias or own) == name
    )
    for text, value in right_of(command, name).items():
        words = line_of(command, name, text)
        if command.name == "shutdown" and name == "all":
            words = [command.name, "name=web1", f"all={text}"]
        for spelled in spellings(words, is_truth=isinstance(value, bool)):
            line = read_command_line(spelled)
            assert line.commands == (command,)
            there = replace(command, target=f"{__name__}:take", whole="")
            there.run(recipe, None, line.options_of(command))
            found = getattr(TAKEN.pop(), attribute)
            assert (found, type(found)) == (value, type(value)), spelled
        if name in BuildOptions.model_fields and command.takes_spec:
            assert getattr(line.building, name) == value


@pytest.mark.parametrize(("command", "name"), CASES, ids=IDS)
def test_a_wrong_value_ends_with_code_2_and_nothing_is_run_or_made(
    command: Command,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "guests").mkdir()
    (tmp_path / "guests/web1.toml").write_text("")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv("DOMU_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("DOMU_GUESTS", str(tmp_path / "guests"))
    for text in wrong_of(command, name):
        monkeypatch.setattr(sys, "argv", ["doit", *line_of(command, name, text)])
        with pytest.raises(SystemExit) as left:
            Graph.load()
        said = capsys.readouterr()
        assert left.value.code == 2, (text, said)
        assert said.err.startswith(f"error: command line: {name}: "), (text, said)
        assert "Kanari3" not in said.err
        assert said.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_variable_of_another_command_is_refused_with_who_has_it(command: Command) -> None:
    everything = {name: other.name for other in COMMANDS.values() for name in other.variables}
    for name, other in everything.items():
        if name in command.variables or (command.takes_spec and name in known_variables()):
            continue
        with pytest.raises(UsageError) as caught:
            read_command_line(line_of(command, name, "1"))
        assert f"{name}: not a variable of doit {command.name}" in str(caught.value)
        assert f"{name}= is for doit" in caught.value.hint and other in caught.value.hint
        assert f"doit {command.name} takes" in caught.value.hint


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_what_must_be_given_is_asked_for_with_an_example(command: Command) -> None:
    needed = [name for name in command.variables if _is_needed(command, name)]
    if not needed:
        assert read_command_line([command.name]).options_of(
            command
        ) == command.options.model_validate({})
        return
    with pytest.raises(UsageError) as caught:
        read_command_line([command.name])
    said = f"{caught.value} {caught.value.hint} {caught.value.details}"
    bare = f"for example: doit {command.name} "
    assert all(f"{name}=" in said or (name == command.operand and bare in said) for name in needed)
    assert "?" in said


def refusal(*words: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_command_line(words)
    assert caught.value.exit_code == 2
    return caught.value


def test_a_missing_word_is_shown_in_the_command_that_lacks_it() -> None:
    assert refusal("fleet").hint == "for example: doit fleet status"


def test_a_dry_build_is_called_plan() -> None:
    error = refusal("build", "name=web1", "dry=yes")
    assert str(error) == "command line: dry: not a variable of doit build"
    assert error.hint.startswith("doit plan says what a build would do; doit build takes ")


def test_a_misspelt_variable_is_told_with_the_nearest() -> None:
    assert "did you mean 'size'?" in refusal("build", "name=web1", "siez=8G").hint
    assert "did you mean 'unproven'?" in refusal("install", "name=web1", "unprooven=yes").hint


def test_all_that_is_wrong_is_told_at_once() -> None:
    error = refusal("gc", "dry=maybe", "keep=4X", "kep=1")
    assert isinstance(error, SpecError)
    assert {problem.subject for problem in error.problems} == {"dry", "keep", "kep"}


@pytest.mark.parametrize(
    "words",
    [
        ("refresh", "undo=yes", "purge=yes"),
        ("rebuild", "name=web1", "undo=1", "purge="),
        ("mirror-proxy", "stop=yes", "status=yes"),
    ],
)
def test_alternatives_are_not_both_asked_for(words: tuple[str, ...]) -> None:
    assert "are both asked for" in str(refusal(*words))


def test_each_of_several_commands_gets_its_own_variables() -> None:
    line = read_command_line(["build", "gc", "name=web1", "keep=5G", "size=8G", "locked=on"])
    build, gc = (line.options_of(command) for command in line.commands)
    assert build.model_dump(exclude_defaults=True) == {"name": "web1", "locked": True}
    assert gc.model_dump(exclude_defaults=True) == {"keep": "5G"}
    assert (line.guests, line.variables, line.building.locked) == (("web1",), {"size": "8G"}, True)
    assert "not a variable of doit build or doit gc" in str(refusal("build", "gc", "live=yes"))


def test_commands_about_this_host_and_about_specs_are_not_mixed() -> None:
    for word in ("build", "gc", "volume:web1", "guests"):
        assert "one after the other" in refusal("start", word, "name=web1").hint


@pytest.mark.parametrize("word", ["volume", "volume:web1", "config", "list", "info", "run"])
def test_a_stage_and_a_word_of_doits_take_what_build_takes(word: str) -> None:
    words = ["name=web1", "size=8G", "replace=true", "offline=1", "events=e", "dist=bookworm"]
    line = read_command_line([word, *words])
    assert line.building == BuildOptions(replace=True, offline=True)
    assert line.variables == {"size": "8G", "dist": "bookworm"}
    assert "dry" in str(refusal(word, "dry=yes"))


def test_a_dash_is_an_underline() -> None:
    line = read_command_line(["prove", "name=web1", "prove-long=yes", "no-xen-ok="])
    assert line.given["prove_long"] == "yes"
    assert line.variables == {"no-xen-ok": ""}


def test_who_may_only_look_may_ask_what_only_reads() -> None:
    for words, reads in {
        (): True,
        ("why", "name=web1"): True,
        ("list", "--all"): True,
        ("info", "volume:web1"): True,
        ("why", "build", "name=web1"): False,
        ("volume:web1",): False,
        ("-n", "2"): True,
        ("-n", "2", "build"): False,
        ("run", "why"): False,
    }.items():
        assert read_command_line(words).only_reads is reads, words


@given(
    st.lists(st.one_of(st.text(), st.sampled_from([*COMMANDS, *map("{}=1".format, WRONG_TEXTS)])))
)
def test_any_line_is_read_or_refused(words: list[str]) -> None:
    try:
        line = read_command_line(words)
    except UsageError as error:
        assert str(error)
    else:
        assert line.commands


@given(GUEST_NAMES)
def test_the_guest_is_that_of_name_or_of_hostname(name: str) -> None:
    assert read_command_line(["build", f"name={name}"]).guests == (name,)
    assert read_command_line(["create", f"hostname={name}.example.org"]).guests == (name,)
