"""Hooks that run beside the tree: whatever in it is a link, they change the tree and nothing else.

An element that wrote `ln -s /tmp /var/tmp` had the build host's /tmp deleted.
"""

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import require
from tests.elements.small_tree import Bench, hooks_of_phase, make_bench, small_tree, take_picture

__all__ = ["small_tree"]
pytestmark = pytest.mark.integration

PHASES = ("root", "extra-data", "post-root", "cleanup")
TOUCHED = """
etc etc/apt etc/apt/apt.conf.d etc/apt/sources.list.d etc/dpkg etc/dpkg/dpkg.cfg.d etc/ssh root
root/.ssh run tmp usr/local usr/local/bin usr/sbin usr/lib/modules var var/backups var/cache
var/cache/apt var/cache/apt/archives var/cache/debconf var/lib var/lib/apt var/lib/apt/lists
var/lib/dbus var/lib/dpkg var/lib/man-db var/lib/systemd var/log var/tmp etc/shadow etc/hostname
etc/machine-id etc/resolv.conf etc/apt/sources.list var/log/wtmp var/lib/apt/lists/partial
usr/local/bin/find
""".split()
KINDS = ("absolute", "climbing", "loop", "fifo", "missing")


@pytest.fixture
def bench(small_tree: Path, tmp_path: Path) -> Bench:
    require(os.geteuid() == 0, "needs root")
    return make_bench(small_tree, tmp_path)


def replace(bench: Bench, name: str, kind: str) -> None:
    """Put something else in a place of the tree; a link leads to the same name on the host."""
    place = bench.tree / name
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    target = bench.host / name
    if kind == "absolute":
        place.symlink_to(Path("/mnt/host") / name)  # as the hooks see it
    elif kind == "climbing":
        place.symlink_to(os.path.relpath(target, place.parent))
    elif kind == "loop":
        place.symlink_to(place.name)
    elif kind == "fifo":
        os.mkfifo(place)


def rounds() -> list[list[str]]:
    """The places by depth: of those in one round none lies in another."""
    depths = sorted({name.count("/") for name in TOUCHED})
    return [[name for name in TOUCHED if name.count("/") == depth] for depth in depths]


def attack(bench: Bench, names: list[str], kind: str) -> None:
    before = take_picture(bench.host)
    for name in names:
        replace(bench, name, kind)
    for phase in PHASES:
        for hook, said in bench.run_hooks(hooks_of_phase(phase)).items():
            assert 1 <= len(said.splitlines()) <= 12, f"{names} as {kind}, {hook}: {said}"
    assert take_picture(bench.host) == before, f"{names} as {kind}"
    shutil.rmtree(bench.folder)


@pytest.mark.parametrize("kind", KINDS)
def test_no_hook_reaches_the_host_through_any_place_of_the_tree(
    small_tree: Path, tmp_path: Path, kind: str
) -> None:
    """No hang, nothing outside changed; a hook that cannot go on says so in a few lines."""
    require(os.geteuid() == 0, "needs root")
    for number, names in enumerate(rounds()):
        attack(make_bench(small_tree, tmp_path / str(number)), names, kind)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TOUCHED)
def test_nor_through_each_place_by_itself(bench: Bench, name: str, kind: str) -> None:
    attack(bench, [name], kind)


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("var/tmp", "/tmp"),
        ("var/tmp", "../tmp"),
        ("tmp", "/var/tmp"),
        ("var/run", "/run"),
        ("root", "/home/admin"),
        ("var/log", "/srv/log"),
        ("usr/local", "/var/local"),
        ("var/lib/dbus", "../../etc/dbus"),
        ("etc/ssh", "/srv/ssh"),
        ("var/cache", "/srv/cache"),
        ("etc/apt/sources.list.d", "/srv/sources"),
    ],
)
def test_an_innocent_link_stays_and_leads_within_the_tree(
    bench: Bench, place: str, target: str
) -> None:
    aimed = (bench.tree / place).parent / target if target[0] == "." else bench.tree / target[1:]
    aimed.mkdir(parents=True, exist_ok=True)
    for entry in (bench.tree / place).iterdir() if (bench.tree / place).is_dir() else ():
        shutil.move(entry, aimed / entry.name)
    replace(bench, place, "missing")
    (bench.tree / place).symlink_to(target)
    hooks = [hook for phase in PHASES for hook in hooks_of_phase(phase)]
    assert bench.run_hooks([hook for hook in hooks if hook.name != "99-domu-export"]) == {}
    tree = bench.tree
    assert os.readlink(tree / place) == target
    assert (tree / "usr/share/there").read_text() == "stays\n"
    for folder in ("tmp", "var/tmp", "run"):
        assert not any((tree / folder).resolve().iterdir()) or (tree / folder).is_symlink()
    for gone in ("etc/ssh/ssh_host_rsa_key", "root/.ssh/authorized_keys", "usr/local/bin/find"):
        inside = (tree / gone).parent
        assert place in gone or not (inside / Path(gone).name).exists()
    sources = (tree / "etc/apt/sources.list").read_text()
    assert sources == "deb http://guest.test/debian bookworm main\n"


def test_after_the_export_the_tree_is_empty_for_dib_works_on_it_by_path(bench: Bench) -> None:
    """DIB itself truncates var/log and removes root/*.log through any link."""
    replace(bench, "var/log", "absolute")
    replace(bench, "root", "absolute")
    export = [hook for hook in hooks_of_phase("cleanup") if hook.name == "99-domu-export"]
    assert bench.run_hooks(export) == {}
    assert (bench.folder / "rootfs.tar").stat().st_size > 1_000_000
    left = sorted(path.relative_to(bench.tree).as_posix() for path in bench.tree.rglob("*"))
    assert left == ["etc", "root", "tmp", "var", "var/log"]
    assert not any(path.is_symlink() for path in bench.tree.rglob("*"))
