"""Completion in bash, zsh and fish themselves: what stands on the line after a Tab."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.integration

SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
# what is typed, and what the line is after a Tab: {} is the program
LINES = {
    "{} publ": "{} publish ",
    "{} build name=mon": "{} build name=montest ",
    "{} build name=montest,no": "{} build name=montest,noble ",
    "{} check mon": "{} check montest ",
    "{} create name=a suite=book": "{} create name=a suite=bookworm ",
    "{} create --dist book": "{} create --dist bookworm ",
    "{} build boot=pyg": "{} build boot=pygrub ",
    "{} build lock": "{} build locked=",
    "{} build root_password_file=here/pass": "{} build root_password_file=here/password ",
    "{} completion fi": "{} completion fish ",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/password").write_text("")
    (tmp_path / "x ä").mkdir()
    for link in ("domu", "x ä/doit"):
        (tmp_path / link).symlink_to(ROOT / "doit")
    (tmp_path / "guests").mkdir()
    for name in ("montest", "noble", "web1"):
        (tmp_path / f"guests/{name}.toml").write_text("")
    return tmp_path


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, site: Path) -> Iterator[pexpect.spawn]:
    """An interactive shell that has read the script, as its comment says."""
    environment = {
        **os.environ,
        "TERM": "dumb",
        "HOME": str(site),
        "DOMU_GUESTS": str(site / "guests"),
        "PATH": f"{site}:{os.environ['PATH']}",
    }
    script = subprocess.run(
        [ROOT / "doit", "completion", request.param],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    how = next(line for line in script.splitlines() if line.startswith("# For this session:"))
    command, *arguments = SHELLS[request.param]
    child = pexpect.spawn(
        command,
        arguments,
        cwd=str(site),
        env=environment,
        encoding="utf-8",
        timeout=60,
        dimensions=(50, 200),
    )
    child.sendline(how.partition(":")[2].strip() + "; echo is'-'ready")
    child.expect("is-ready")
    yield child
    child.close(force=True)


@pytest.mark.parametrize("program", ["./domu", "domu", f"{ROOT}/doit", "./x\\ ä/doit"])
def test_a_tab_completes(shell: pexpect.spawn, program: str) -> None:
    lines = LINES if program == "domu" else dict(list(LINES.items())[:1])
    for typed, wanted in lines.items():
        # the line, completed, becomes a word of echo
        shell.send(typed.format(program) + "\t")
        shell.send("\x01echo '<")
        shell.send("\x05>'\r")
        shell.expect(r"[\r\n]<([^\r\n]*)>[\r\n]")
        seen = shell.match[1]
        # zsh takes its blank back when the cursor leaves
        seen += " " if not seen.endswith(("=", " ")) and "zsh" in str(shell.command) else ""
        assert seen == wanted.format(program), typed


def test_the_script_is_what_the_manual_of_each_shell_wants(site: Path) -> None:
    for name, argv in SHELLS.items():
        done = subprocess.run([ROOT / "doit", "completion", name], capture_output=True, check=True)
        subprocess.run([argv[0], "-n"], input=done.stdout, check=True)
