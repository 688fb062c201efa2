"""The guest's mirror in the test host: what is laid out, and which sources can be answered for."""

from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.mirror.apt_sources import Source
from pipeline.mirror.snapshot import Snapshot
from pipeline.project import Cache
from pipeline.proof.agent import Reply
from pipeline.proof.mirror import Supplies, ask_update, lay_out, serve

SUITES = ("bookworm", "bookworm-security")


@pytest.fixture
def supplies(tmp_path: Path) -> Supplies:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    sources = []
    for role, suite in zip(("main", "security"), SUITES, strict=True):
        (folder / f"InRelease-{role}").write_text(f"signed {suite}")
        sources.append(Source(f"http://mirror.example.org/{role}", suite, ("main",), role))
    snapshot = Snapshot(folder, tuple(sources), {}, 0, "", ())
    return Supplies(snapshot, Cache(tmp_path / "cache"), "amd64")


def test_the_signed_files_are_laid_out_as_an_archive_has_them(
    supplies: Supplies, tmp_path: Path
) -> None:
    assert lay_out(supplies, tmp_path / "out") is not None
    for suite in SUITES:
        path = tmp_path / "out" / "dists" / suite / "InRelease"
        assert path.read_text() == f"signed {suite}"


class Host:
    """Notes what the test host is asked to do."""

    def __init__(self) -> None:
        self.scripts: list[str] = []

    def demand(self, argv: list[str]) -> str:
        self.scripts.append(argv[-1])
        return ""


def test_names_addresses_and_ports_of_the_sources_lead_to_the_test_host() -> None:
    host = Host()
    sources = "deb http://mirror.example.org/debian a main\ndeb http://192.0.2.7:9999/debian b main"

    assert serve(cast(Any, host), sources, "10.77.0.1", "br-xen") == ""

    assert "10.77.0.1 mirror.example.org" in host.scripts[0]
    assert "ip addr add 192.0.2.7/32 dev lo" in host.scripts[0]
    assert " 80 9999 " in host.scripts[0]


def test_sources_that_cannot_be_relayed_are_told() -> None:
    host = Host()
    assert "https" in serve(cast(Any, host), "deb https://a.example.org/ x main", "", "br")
    assert "nothing" in serve(cast(Any, host), "", "", "br")
    assert host.scripts == []


class Shell:
    def __init__(self, status: int, output: str) -> None:
        self.reply = Reply(status, output)
        self.command = ""

    def run(self, command: str, *, timeout_s: float) -> Reply:
        self.command = command
        return self.reply


FETCHED = "".join(f"Get:1 http://m/debian {suite} InRelease [1 kB]\n" for suite in SUITES)


def test_an_update_holds_when_every_suite_was_fetched(supplies: Supplies) -> None:
    shell = Shell(0, FETCHED)
    assert ask_update(cast(Any, shell), supplies).level == "ok"
    assert "deb::Packages::DefaultEnabled=false" in shell.command


@pytest.mark.parametrize(
    ("status", "output"),
    [
        (0, FETCHED.splitlines()[0]),
        (100, f"{FETCHED}E: The repository is not signed.\n"),
        (100, "Err:1 http://m/debian bookworm InRelease\n  Could not resolve 'm'\n"),
    ],
)
def test_an_update_that_misses_something_does_not(
    supplies: Supplies, status: int, output: str
) -> None:
    check = ask_update(cast(Any, Shell(status, output)), supplies)
    assert check.level == "error"
    assert check.seen
