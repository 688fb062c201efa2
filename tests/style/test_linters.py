"""Linters as tests: ruff, mypy strict, vulture, codespell, shellcheck; what is never committed."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import filterfalse
from pathlib import Path

import pytest

from tests.conftest import require

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


# what is right although shellcheck does not see it. The elements and the scripts of the test host
# are inputs by their bytes: a comment for shellcheck in one of them would build everything again.
RIGHT = {
    "SC1087": ("$point[[:space:]] is no array in double quotes", ["xen-udev"]),
    "SC1091": ("the file is the guest's", ["xen-grub-menus"]),
    "SC2012": ("names of kernels and devices have no blanks", ["xen-grub-menus", "kernel/init"]),
    "SC2013": ("words are wanted, not lines", ["kernel/init", "host/trim"]),
    "SC2016": ("the text is for another shell", ["20-domu-packages", "ovmf/build"]),
    "SC2024": ("sudo is a shim here: both sides of it are root", ["elements/"]),
    "SC2086": ("words are wanted", ["50-grub-menus", "31-guest-sources-check"]),
    "SC2153": ("two variables, both documented", ["50-kernel-modules"]),
}


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


@pytest.mark.parametrize(
    "paths",
    [(), ("pipeline", "pipeline/proof/host/authorize", "dodo.py")],
    ids=["all", "but for tests"],
)
def test_no_code_is_dead(paths: tuple[str, ...]) -> None:
    """vulture; what is only called by name stands in pyproject.toml with who calls it."""
    result = run(str(BIN / "vulture"), *paths)
    assert result.returncode == 0, result.stdout + result.stderr


def test_words_are_spelt_right() -> None:
    result = run(str(BIN / "codespell"))
    assert result.returncode == 0, result.stdout + result.stderr


def shell_scripts() -> Iterator[Path]:
    for name in run("git", "ls-files", "-z").stdout.split("\0"):
        path = ROOT / name
        if name and path.is_file() and not path.is_symlink():
            with path.open("rb") as stream:
                head = stream.readline(64)
            if re.match(rb"#!.*\b(ba|da)?sh\b", head) or path.suffix in (".bash", ".sh"):
                yield path


def test_shellcheck_is_content() -> None:
    require(shutil.which("shellcheck") is not None, "shellcheck is not installed")
    scripts = [str(path.relative_to(ROOT)) for path in shell_scripts()]
    assert len(scripts) > 80
    result = run("shellcheck", "--shell=bash", "--format=gcc", *filter(is_sourced, scripts))
    result.stdout += run("shellcheck", "--format=gcc", *filterfalse(is_sourced, scripts)).stdout
    used = set()
    for line in result.stdout.splitlines():
        path, code = line.partition(":")[0], line.rpartition("[")[2].removesuffix("]")
        places = [part for part in RIGHT.get(code, ("", []))[1] if part in path]
        assert places, line
        used |= {(code, part) for part in places}
    assert used == {(code, part) for code, (_, places) in RIGHT.items() for part in places}


def is_sourced(path: str) -> bool:
    """A file for DIB to read, with no line that names its shell."""
    return path.endswith(".bash")


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


def test_the_manual_page_is_rendered_without_a_warning() -> None:
    result = run("groff", "-man", "-ww", "-Tutf8", "docs/domu.7")
    assert (result.returncode, result.stderr) == (0, "")
    assert "DOMU(7)" in result.stdout
