"""What a run says when it ends: one JSON object for a program, a summary for a person."""

import json
import os
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Finding
from tests.torture.program import Ground

pytestmark = pytest.mark.integration
FINDING = {*Finding("ok", "x").as_json()}
STAGES = ["mirror", "base", "kernel", "rootfs", "image", "volume", "config"]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground.make(tmp_path_factory.mktemp("ground"), "one", "two")


def ask(ground: Ground, *argv: str) -> tuple[int, Any, str]:
    """The exit code, all of standard output as JSON, and what was said to a person."""
    stdout = ground.root / "stdout"

    def plug() -> None:
        os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)

    code, said = ground.start(*argv, "json=yes", plug=plug).wait()
    told = json.loads(stdout.read_text())
    assert told["exit_code"] == code
    assert told["form"] == 1
    for finding in [*told["failures"], *told.get("findings", [])]:
        assert set(finding) == FINDING
    return code, told, said


def texts(failures: Sequence[dict[str, str]]) -> str:
    return " ".join(failure["message"] for failure in failures)


def test_a_build_tells_a_program_what_it_made(ground: Ground) -> None:
    code, told, said = ask(ground, "build", "name=one")
    assert (code, told["guest"], told["state"], told["failures"]) == (0, "one", "built", [])
    assert sorted(stage["stage"] for stage in told["stages"]) == sorted(STAGES)
    assert all(stage["outcome"] == "built" and stage["reason"] for stage in told["stages"])
    folder = Path(told["folder"])
    assert folder == ground.output / "guests/one"
    assert told["digests"]["disk.img"].startswith("sha256:")
    assert told["bytes"] > 1 << 20
    assert 0 < told["seconds"] <= told["elapsed"]
    assert told["start"] == f"xl create {folder}/one.cfg"
    assert "built" in said  # a person who looks on sees the stages all the same
    assert ask(ground, "build", "name=one")[1]["state"] == "reused"


def test_several_guests_are_a_list_and_each_has_its_own_failure(ground: Ground) -> None:
    assert ask(ground, "build")[0] == 0
    wrong = ground.root / "guests/two.toml"
    before = wrong.read_text()
    disk = ground.output / "guests/two/disk.img"
    try:
        wrong.write_text(f'{before}root_password_file = "nosuch"\n')
        code, told, _ = ask(ground, "why")
        assert [guest["guest"] for guest in told["guests"]][:1] == ["one"]
        code, told, said = ask(ground, "build")
    finally:
        wrong.write_text(before)
    assert code != 0
    assert "nosuch" in texts(told["failures"]) + texts(
        [failure for guest in told["guests"] for failure in guest["failures"]]
    )
    assert {guest["guest"]: guest["state"] for guest in told["guests"]}["one"] == "reused"
    assert "Traceback" not in said
    assert disk.is_file()


def test_why_plan_and_gc_answer_in_one_object(ground: Ground) -> None:
    assert ask(ground, "build", "name=one")[0] == 0
    code, told, said = ask(ground, "why", "name=one", "size=300M")
    reasons = {stage["stage"]: stage["reason"] for stage in told["stages"]}
    assert list(reasons) == STAGES
    assert reasons["volume"] == "size: 256M -> 300M"
    assert said == ""
    code, told, _ = ask(ground, "plan", "name=one", "lvm=no-such-group")
    assert (code, told["refusals"][0]["exit_code"]) == (3, 3)
    assert "no-such-group" in texts(told["failures"])
    code, told, _ = ask(ground, "gc", "keep=0", "dry=yes")
    assert (code, told["dry"], told["busy"], told["keep"]) == (0, True, False, "0")
    assert all(Path(entry["path"]).exists() for entry in told["removed"])
    assert "guest two" in {entry["needed_by"] for entry in told["left"]}
    assert told["left_bytes"] >= told["needed_bytes"] > 0


def test_a_check_that_fails_is_told_with_all_that_it_found(ground: Ground) -> None:
    """The small guest has no init, no sshd, no network."""
    assert ask(ground, "build", "name=one")[0] == 0
    code, told, said = ask(ground, "check", "name=one")
    assert code == 5
    levels = {finding["level"] for finding in told["findings"]}
    assert {"ok", "error"} <= levels
    assert "failed" in texts(told["failures"])
    assert "error: one: " in said


@pytest.mark.parametrize("guests", [["one"], ["one", "two"]])
def test_a_ci_system_reads_each_check_of_each_guest(ground: Ground, guests: list[str]) -> None:
    ground.ends(0, "build")
    path = ground.root / "check.xml"
    said = ground.ends(5, "check", f"name={','.join(guests)}", f"junit={path}")
    schema = Path(__file__).with_name("junit.rng")
    subprocess.run(["xmllint", "--noout", "--relaxng", schema, path], check=True)
    suites = list(ET.parse(path).getroot())
    assert [suite.get("name") for suite in suites] == guests
    for suite, guest in zip(suites, guests, strict=True):
        assert len(suite) > 20
        cases = {case.get("name", ""): case for case in suite}
        assert len(cases) == len(suite)
        assert f"{guest}: " in (cases["doit check"].findtext("failure") or "")
    code, said = ground.run("check", "name=nosuch", f"junit={path}")
    assert code == 2
    subprocess.run(["xmllint", "--noout", "--relaxng", schema, path], check=True)
    assert "nosuch" in path.read_text()
    ground.ends(2, "check", "name=one", f"junit={ground.root}/no/such.xml")
    assert ground.run("why", "name=one", f"junit={path}")[0] == 2


@pytest.mark.parametrize(
    ("argv", "code", "subject"),
    [
        (("build", "name=one", "suite=nosuch"), 2, "suite"),
        (("check", "name=one", "offline=yes", "locked=yes"), 2, ""),
        (("gc", "keep=5G"), 0, None),
    ],
)
def test_what_never_began_is_told_too(
    ground: Ground, argv: tuple[str, ...], code: int, subject: str | None
) -> None:
    status, told, _ = ask(ground, *argv)
    assert status == code
    assert [failure["subject"] for failure in told["failures"]] == (
        [] if subject is None else [subject]
    )


def test_a_person_gets_a_summary_that_fits_a_screen(ground: Ground) -> None:
    ground.ends(0, "build")
    said = ground.ends(0, "build", "name=one", "size=260M")
    summary = said[said.index("one is ready") :].splitlines()
    assert summary[0].startswith(f"one is ready in {ground.output}/guests/one, ")
    assert len(summary) <= 10
    shown = dict(line.strip().split(": ", 1) for line in summary[1:])
    assert shown["made"].split() == ["volume,", "config"]
    assert len(shown["reused"].split(", ")) == 5
    assert shown["start it"].strip() == f"xl create {ground.output}/guests/one/one.cfg"
    assert "nobody can log in" in shown["log in"]
    code, said = ground.run("build")
    summary = said[said.index("2 of 2 guests are ready") :].splitlines()
    assert [line.split()[0] for line in summary[1:4]] == ["guest", "one", "two"]
    assert summary[2].endswith(f"{ground.output}/guests/one")
    assert "nobody can log in to one, two" in said
