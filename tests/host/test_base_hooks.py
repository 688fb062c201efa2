"""What mmdebstrap is handed before it unpacks anything, run by a shell in an empty tree."""

import shlex
from pathlib import Path

import pytest

from pipeline import process
from pipeline.stages import base
from tests.specs import make_spec

pytestmark = pytest.mark.integration


def run_hooks(tree: Path, **keys: object) -> list[str]:
    """Every setup hook of a spec, as mmdebstrap calls them; its other options."""
    (tree / "var/lib/dpkg/info").mkdir(parents=True)
    (tree / "var/lib/dpkg/status").touch()
    options = base.hooks_of(make_spec(bootstrap="mmdebstrap", **keys))
    for option in options:
        kind, _, script = option.partition("=")
        if kind == "--setup-hook":
            process.run(["sh", "-c", script, "hook", tree])
    return [option for option in options if not option.startswith("--setup-hook")]


def test_bookworm_gets_a_merged_usr_from_us_and_a_stand_in_for_its_package(tmp_path: Path) -> None:
    """mmdebstrap 1.5, in Debian 13, no longer makes the links."""
    tree = tmp_path / "tree with a blank"
    others = run_hooks(tree)
    links = {path.name: str(path.readlink()) for path in tree.iterdir() if path.is_symlink()}
    names = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
    assert links == {name: f"usr/{name}" for name in names}
    assert all((tree / name).is_dir() for name in names)
    assert "--include=usr-is-merged" in others  # the real one takes the place of the stand-in
    admin = f"--admindir={tree}/var/lib/dpkg"
    asked = ["dpkg-query", admin, "-W", "-f=${Status} ${Version} ${db:Status-Abbrev}"]
    assert process.run([*asked, "usr-is-merged"]).split() == "install ok installed 1 ii".split()


@pytest.mark.parametrize("suite", ["bullseye", "trixie", "jammy"])
def test_other_releases_get_neither(tmp_path: Path, suite: str) -> None:
    others = run_hooks(tmp_path, suite=suite)
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]
    assert (tmp_path / "var/lib/dpkg/status").read_text() == ""
    assert "usr-is-merged" not in shlex.join(others)


@pytest.mark.parametrize("suite", ["focal", "bookworm"])
def test_scripts_find_the_folders_of_pages_though_no_page_comes(tmp_path: Path, suite: str) -> None:
    """focal's dash: ln: /usr/share/man/man1/sh.1.gz.tmp: No such file or directory."""
    run_hooks(tmp_path, suite=suite)
    sections = sorted(path.name for path in (tmp_path / "usr/share/man").iterdir())
    assert sections == [f"man{number}" for number in range(1, 9)]


def test_a_guest_with_documentation_gets_them_from_its_packages(tmp_path: Path) -> None:
    run_hooks(tmp_path, suite="focal", documentation=True)
    assert not (tmp_path / "usr").exists()
