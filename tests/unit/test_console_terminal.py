"""What a mirror or a package says does not steer the terminal that it is shown on."""

from __future__ import annotations

import pytest

from pipeline.console.progress import print_line
from pipeline.console.terminal import print_error, printable
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
    plain = "é 漢字\ta – 1 MiB\nnext: ä"
    assert printable(plain) == plain
    print_error(PipelineError("one", details="two\nthree"))
    assert capsys.readouterr().err.splitlines()[1:] == ["  | two", "  | three"]
