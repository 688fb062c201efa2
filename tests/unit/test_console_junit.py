"""Findings as JUnit XML: what a CI system shows of a guest."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.console import junit
from pipeline.console.answer import Answer
from pipeline.errors import Finding, GuestFailed, UsageError

FINDINGS = [
    Finding("ok", "hosts", seen="127.0.0.1 web1 localhost", code="A4"),
    Finding("error", "timezone", hint="build it again", expected="Etc/UTC", code="A12"),
    Finding("warning", "no-console-hvc0", "the boot may stay invisible", "give it one"),
    Finding("skipped", "ssh -t", "no key was given"),
    Finding("ok", "hosts", "again", code="A4"),
]


def report(answer: Answer, path: Path, command: str = "check") -> ET.Element:
    answer.want_junit(path, command)
    answer.write_junit(1.5)
    return ET.fromstring(path.read_bytes())


def test_a_suite_a_guest_and_a_case_a_check(tmp_path: Path) -> None:
    answer = Answer()
    answer.expect(["web1", "web2.example.org"], is_one=False, is_build=False)
    answer.add_findings("web1", FINDINGS)
    answer.add_failure(["web1"], GuestFailed("1 check failed", details="its console", hint="look"))
    root = report(answer, tmp_path / "check.xml")
    assert root.attrib == {
        "name": "doit check",
        "time": "1.500",
        "tests": "7",
        "failures": "2",
        "errors": "0",
    }
    first, second = root
    assert [case.get("name") for case in first] == [
        *("A4 hosts", "A12 timezone", "no-console-hvc0", "ssh -t", "A4 hosts (2)", "doit check")
    ]
    hosts, timezone, console, ssh, _, verdict = first
    assert hosts.findtext("system-out") == "127.0.0.1 web1 localhost"
    said = timezone.find("failure")
    assert said is not None
    assert said.get("message") == "expected Etc/UTC, seen nothing"
    assert (said.text or "").splitlines()[1:] == ["expected: Etc/UTC", "hint: build it again"]
    assert console.findtext("system-out") == "warning: the boot may stay invisible\ngive it one"
    assert ssh.find("skipped") is not None
    assert "seen: its console" in verdict.findtext("failure", "")
    assert {case.get("classname") for case in first} == {"web1.check"}
    assert [case.get("classname") for case in second] == ["web2.example.org.check"]
    assert (second.get("failures"), first.get("skipped")) == ("0", "1")


def test_what_never_began_is_a_case_too(tmp_path: Path) -> None:
    answer = Answer()
    answer.add_failure((), UsageError("web1: no such guest"))
    root = report(answer, tmp_path / "check.xml")
    assert [case.get("classname") for case in root.iter("testcase")] == ["pipeline.check"]
    assert root.get("failures") == "1"


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_what_a_guest_says_of_itself_cannot_break_the_file(said: str) -> None:
    finding = Finding("error", said, said, said, said, said, said, said).as_json()
    content = junit.render("check", {"web1": {"findings": [finding], "failures": [finding]}}, 1)
    (suite,) = ET.fromstring(content)
    assert len(suite) == 2


def test_a_text_without_end_is_cut(tmp_path: Path) -> None:
    answer = Answer()
    answer.add_findings("web1", [Finding("error", "x", "y" * 10_000_000)])
    report(answer, tmp_path / "check.xml")
    assert (tmp_path / "check.xml").stat().st_size < 50_000


def test_the_report_of_an_earlier_run_goes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "check.xml"
    path.write_text("yesterday's")
    Answer().want_junit(path, "check")
    assert not path.exists()


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "link.xml").symlink_to("/dev/null")
    for path in (tmp_path, tmp_path / "no/such.xml", Path("/dev/null"), tmp_path / "link.xml"):
        with pytest.raises(UsageError, match="junit="):
            Answer().want_junit(path, "check")
    assert (tmp_path / "link.xml").is_symlink()
