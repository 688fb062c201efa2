"""Linters as tests: ruff, mypy strict, and what must never be committed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "argv", [("check", "."), ("format", "--check", ".")], ids=["ruff check", "ruff format"]
)
def test_ruff_is_content(argv: tuple[str, ...]) -> None:
    result = run(str(BIN / "ruff"), *argv)
    assert result.returncode == 0, result.stdout + result.stderr


def test_mypy_is_content() -> None:
    result = run(str(BIN / "mypy"))
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_package_host_of_this_machine_is_named_in_the_repository() -> None:
    hosts: set[str] = set()
    apt = Path("/etc/apt")
    for path in [apt / "sources.list", *(apt / "sources.list.d").glob("*")]:
        if path.is_file():
            hosts |= set(re.findall(r"https?://([^/\s:]+)", path.read_text()))
    hosts -= {"localhost", "127.0.0.1"}
    for host in hosts:
        result = run("git", "grep", "-lIF", "--", host)
        assert result.stdout == "", f"{host} stands in {result.stdout}"


def test_every_element_hook_name_is_run_by_diskimage_builder() -> None:
    """dib-run-parts skips, without a word, names with a dot and files that are not executable."""
    for hook in ROOT.glob("elements/*/*.d/*"):
        if hook.parent.name == "environment.d":
            continue
        assert re.fullmatch(r"[0-9]{2}-[0-9A-Za-z_-]+", hook.name), hook
        assert hook.stat().st_mode & 0o111, f"{hook} is not executable"
