"""What a mirror or a package says does not steer the terminal that it is shown on."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.console.progress import print_line, print_table
from pipeline.console.terminal import (
    Part,
    Span,
    has_colour,
    plain,
    print_error,
    printable,
    render,
    wrap,
)
from pipeline.errors import PipelineError, VerificationError

STEERING = [
    ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
    ("\x1b[2J", "\\x1b[2J"),
    ("\x9b31m", "\\x9b31m"),
    ("a\rb", "a\\rb"),
    ("a\x08b", "a\\x08b"),
    ("\x7f\x00", "\\x7f\\x00"),
    ("\u202egnp.exe", "\\u202egnp.exe"),
    ("\udc1b", "\\udc1b"),
]


@pytest.mark.parametrize(("text", "shown"), STEERING)
def test_what_steers_a_terminal_is_shown(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printable(text) == shown
    print_line(f"mirror says {text}")
    error = VerificationError(f"says {text}", details=f"a\nb {text}", hint=f"not {text}")
    error.guest, error.log = text, text
    print_error(error)
    said = capsys.readouterr()
    assert shown in said.out and said.err.count(shown) >= 4
    assert text not in said.out + said.err


def test_words_in_any_language_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    text = "é 漢字\ta – 1 MiB\nnext: ä"
    assert printable(text) == text
    print_error(PipelineError("one", details="two\nthree"))
    assert capsys.readouterr().err.splitlines()[1:] == ["  | two", "  | three"]


class Screen(io.StringIO):
    """A terminal, as far as a stream can say that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "on_terminal", "in_pipe"),
    [
        ({"TERM": "xterm"}, True, False),
        ({}, False, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, False),
        ({"TERM": "xterm", "CLICOLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"CLICOLOR_FORCE": "1", "TERM": "dumb"}, True, True),
        ({"CLICOLOR_FORCE": "0"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_colours_go_where_they_are_wanted(
    environment: dict[str, str], on_terminal: bool, in_pipe: bool
) -> None:
    assert has_colour(Screen(), environment) is on_terminal
    assert has_colour(io.StringIO(), environment) is in_pipe


def test_a_colour_says_nothing_that_the_words_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    line: list[Part] = ["  base ", Span("built", "ok"), " 2 s ", Span("(not built yet)", "dim")]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR"):
        monkeypatch.delenv(name, raising=False)
    shown = render(line, Screen())
    assert "\x1b[32mbuilt\x1b[0m" in shown
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown) == render(line, io.StringIO()) == plain(line)
    monkeypatch.setenv("NO_COLOR", "1")
    assert render(line, Screen()) == plain(line)


def test_what_strangers_wrote_has_no_colour_of_its_own() -> None:
    assert render([Span("\x1b[31mred\x1b[0m", "ok")], io.StringIO()) == "\\x1b[31mred\\x1b[0m"


WORDS = st.lists(st.text("ab/ü.", min_size=1, max_size=70), min_size=1, max_size=12)


@given(words=WORDS, width=st.integers(20, 200), indent=st.integers(0, 30))
def test_a_path_is_never_broken(words: list[str], width: int, indent: int) -> None:
    """Every word stands whole in a line; a line is too long for a single word only."""
    spans = [Span(f"  {word}", "dim" if number % 2 else "") for number, word in enumerate(words)]
    lines = [plain(line) for line in wrap(spans, width, indent=indent)]
    assert [word for line in lines for word in line.split()] == words
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines)


TABLE = [
    ("web1", "built", "/srv/output/guests/web1"),
    ("database", "", "/srv/output/guests/database/of/a/long/name"),
]


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("head", [(), ("guest", "state", "folder")])
def test_a_table_fits_or_becomes_a_list(
    columns: int, head: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(TABLE, head=head, indent=2)
    lines = screen.getvalue().splitlines()
    assert all(len(line) <= columns or len(line.split()) == 1 for line in lines)
    for row in TABLE:
        assert all(cell in screen.getvalue() for cell in row)
    is_list = columns <= 60
    assert ("  web1      built" in screen.getvalue()) is not is_list
    assert ("folder /srv/output/guests/web1" in " ".join(screen.getvalue().split())) is (
        is_list and bool(head)
    )


def test_in_a_pipe_a_table_is_as_wide_as_it_needs_to_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table(TABLE, head=("guest", "state", "folder"))
    assert capsys.readouterr().out.splitlines() == [
        "guest     state  folder",
        "web1      built  /srv/output/guests/web1",
        "database         /srv/output/guests/database/of/a/long/name",
    ]
