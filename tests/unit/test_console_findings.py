"""Findings as a table and as JSON."""

import json

import pytest

from pipeline.console.answer import Answer
from pipeline.console.findings import render_table, summarize
from pipeline.errors import Finding

FINDINGS = [
    Finding("ok", "hosts", seen="127.0.0.1 web1 localhost", code="A4"),
    Finding("error", "timezone", hint="build it again", expected="Etc/UTC", code="A12"),
    Finding("warning", "no-console-hvc0", "the boot may stay invisible", code="C2"),
    Finding("skipped", "ssh -t", "no key was given"),
]


def test_a_row_shows_what_was_seen_and_a_failure_what_was_expected() -> None:
    assert render_table(FINDINGS) == [
        "ok   A4  hosts            127.0.0.1 web1 localhost",
        *("FAIL A12 timezone         nothing", "         expected         Etc/UTC"),
        "         hint             build it again",
        "warn C2  no-console-hvc0  the boot may stay invisible",
        "-        ssh -t           no key was given",
    ]
    assert summarize(FINDINGS) == "4 checks, 1 ok, 1 failed, 1 warning, 1 not asked"


def test_without_codes_there_is_no_column_for_them() -> None:
    assert render_table([Finding("error", "fs", "no ext4", "write fs=ext3")]) == [
        "FAIL fs        no ext4",
        "     hint      write fs=ext3",
    ]


def test_what_is_wider_than_the_terminal_goes_on_below_itself() -> None:
    finding = Finding("warning", "memory", "one two three four five six seven eight nine ten")
    assert render_table([finding], width=50) == [
        "warn memory    one two three four five six seven",
        "               eight nine ten",
    ]


@pytest.mark.parametrize("width", [1, 10, 40])
def test_nothing_is_lost_where_there_is_no_room(width: int) -> None:
    shown = " ".join(" ".join(render_table(FINDINGS, width=width)).replace(": ", " ").split())
    assert shown == " ".join(" ".join(render_table(FINDINGS)).split())


def test_what_a_guest_says_does_not_flood_the_screen() -> None:
    (line,) = render_table([Finding("ok", "hosts", seen="x" * 100_000 + "\ny")])
    assert len(line) < 400
    assert line.endswith("...")


def test_a_program_gets_every_key_of_every_finding(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer()
    answer.is_wanted = True
    answer.add_findings("web1", FINDINGS)
    answer.print(0, 1.5)
    told = json.loads(capsys.readouterr().out)
    assert told["guest"] == "web1"
    assert {tuple(finding) for finding in told["findings"]} == {
        tuple("level subject message hint expected seen code source others".split())
    }
    assert told["findings"][1]["message"] == "expected Etc/UTC, seen nothing"


def test_a_finding_in_words_says_where_and_what_to_do() -> None:
    finding = Finding("error", "fs", "no ext4", "write fs=ext3", source="guests/web1.toml")
    assert str(finding) == "guests/web1.toml: fs: no ext4\n    write fs=ext3"
