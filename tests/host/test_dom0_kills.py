"""A guest's life, killed at every single step: the old guest is whole, or the new one is."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from pipeline.artifact.folder import read_source
from pipeline.artifact.kernel_folder import read_kernel_folder
from pipeline.dom0 import install, modules_in_guest, rebuild, refresh, remove, resize
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.inventory import read_installed, require_installed
from pipeline.dom0.kernels import purge_kernels
from pipeline.dom0.layout import Layout
from pipeline.files import digest_file
from pipeline.namespace import is_root
from pipeline.storage.transaction import list_unfinished, recover_all
from pipeline.xen import xl
from pipeline.xen.boot import Direct
from tests.conftest import require
from tests.host.dom0_bench import LifeBench
from tests.host.kill_points import SURVIVED, run_and_kill
from tests.host.small_artifact import (
    ABIS,
    SmallKernel,
    hostname_in,
    is_clean,
    make_artifact,
    make_kernel,
    modules_in,
)
from tests.whole_disk import is_sound

pytestmark = pytest.mark.integration
NAME = "web1"
MOST_STEPS = 500


class Host(Protocol):
    """What is killed over and over needs a host's folder."""

    @property
    def root(self) -> Path: ...


@dataclass(frozen=True)
class Bench:
    """Artifacts and kernels to install, and the host's folder below which everything happens."""

    work: Path
    root: Path

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    def install(self, artifact: str, *, replaces: bool = False) -> None:
        source = read_source(self.work / artifact / NAME, name=NAME)
        before = read_installed(self.layout, NAME)
        plan = install.plan_install(source, self.layout, before=before, autostart=True)
        install.install(plan, self.layout, word="install", log=self.work / "log")

    def refresh(self, abi: str) -> None:
        kernel = read_kernel_folder(self.work / abi)
        assert refresh.refresh(self.layout, NAME, kernel, None).state in ("refreshed", "current")

    def rebuild(self, artifact: str) -> None:
        source = read_source(self.work / artifact / NAME, name=NAME)
        record = require_installed(self.layout, NAME)
        plan = rebuild.plan_rebuild(source, self.layout, record, proof="proven")
        rebuild.rebuild(plan, self.layout, log=self.work / "log")

    def resize(self, size: str) -> None:
        record = require_installed(self.layout, NAME)
        plan, _ = resize.plan_resize(self.layout, record, size, None)
        resize.resize(self.layout, plan)

    def remove(self) -> None:
        remove.remove_guests([require_installed(self.layout, NAME)], self.layout)


@dataclass(frozen=True)
class State:
    """What there is of a guest: every file with its bytes, disks by what is in them."""

    files: frozenset[tuple[str, str]]


def look(root: Path) -> State:
    """Everything below the host's folder; records without their times, disks by their content."""
    found = set()
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found.add((name, os.readlink(path)))
        elif path.name == "disk.img":
            size = f"{path.stat().st_size >> 20} MiB"
            content = f"{size} {hostname_in(path)} {sorted(modules_in(path).items())}"
            assert is_clean(path), f"{path} is not clean"
            assert is_sound(path), f"the partition table of {path}"
            found.add((name, content))
        elif path.parent.name == "installed":
            found.add((name, "a record"))
        elif path.is_file():
            found.add((name, digest_file(path)))
    return State(frozenset(found))


def require_bootable(root: Path) -> None:
    """What xl create would find right after the kill: nothing, or a guest with all its parts."""
    config = root / "etc/xen" / f"{NAME}.cfg"
    if not config.exists():
        return
    domain = xl.parse(config.read_text())
    assert isinstance(domain.boot, Direct)
    kernel = Path(domain.boot.kernel)
    abi = kernel.read_bytes().split()[1].decode()
    assert Path(domain.boot.ramdisk or "").read_bytes().split()[1].decode() == abi
    disk = Path(domain.disks[0].target)
    assert abi in modules_in(disk), f"no modules for {abi} in {disk}"
    assert Path(domain.disks[1].target).exists()


def copy_root(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)


def kill_everywhere(
    bench: Host, tmp_path: Path, action: Callable[[], object], *, checks_boot: bool = True
) -> int:
    """Kill `action` at its first, second... change until it survives; returns how many kills."""
    before = tmp_path / "before"
    copy_root(bench.root, before)
    old = look(before)
    action()
    new = look(bench.root)
    assert old != new
    kills = 0
    ended = {"old": 0, "new": 0}
    for at in range(1, MOST_STEPS):
        copy_root(before, bench.root)
        _keep_times(before, bench.root)
        status = run_and_kill(action, at)
        if status == SURVIVED:
            break
        assert status == -9, f"step {at}: ended with {status}"
        kills += 1
        if checks_boot:
            require_bootable(bench.root)
        layout = Layout(bench.root)
        recover_all(site_of(layout))
        purge_kernels(layout)
        assert not list_unfinished(site_of(layout))
        seen = look(bench.root)
        assert seen in (old, new), (
            f"killed at step {at}:\nneither old: {sorted(seen.files ^ old.files)}\n"
            f"nor new: {sorted(seen.files ^ new.files)}"
        )
        ended["old" if seen == old else "new"] += 1
    print(f"{kills} kills: {ended['old']} times the old guest, {ended['new']} times the new one")
    assert look(bench.root) == new
    assert ended["old"] > 0
    assert ended["new"] > 0
    return kills


def _keep_times(source: Path, target: Path) -> None:
    """A disk's mark is its time of change."""
    for path in source.rglob("*.img"):
        status = path.stat()
        other = target / path.relative_to(source)
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    work = tmp_path / "work"
    for abi in ABIS:
        (work / abi).mkdir(parents=True)
        kernel = make_kernel(work / abi, abi)
        (work / f"from-{abi}" / NAME).mkdir(parents=True)
        make_artifact(work / f"from-{abi}" / NAME, NAME, kernel=kernel, generation=abi)
    (work / "whole" / NAME).mkdir(parents=True)
    kernel = SmallKernel(work / ABIS[0], ABIS[0])
    keys = {"type": "pvh", "boot": "grub", "disk": "whole"}
    make_artifact(work / "whole" / NAME, NAME, kernel=kernel, generation="whole", **keys)
    (work / "same-abi").mkdir()
    make_kernel(work / "same-abi", ABIS[0], flavour="security")
    return Bench(work, tmp_path / "root")


def test_install(bench: Bench, tmp_path: Path) -> None:
    assert kill_everywhere(bench, tmp_path, lambda: bench.install(f"from-{ABIS[0]}")) > 20


def test_install_over_an_installed_guest(bench: Bench, tmp_path: Path) -> None:
    bench.install(f"from-{ABIS[0]}")
    assert kill_everywhere(bench, tmp_path, lambda: bench.install(f"from-{ABIS[1]}")) > 20


def test_remove(bench: Bench, tmp_path: Path) -> None:
    bench.install(f"from-{ABIS[0]}")
    assert kill_everywhere(bench, tmp_path, bench.remove) > 5


@pytest.mark.parametrize("disk", ["filesystem", "whole"])
def test_resize(bench: Bench, tmp_path: Path, disk: str) -> None:
    bench.install(f"from-{ABIS[0]}" if disk == "filesystem" else disk)
    is_whole = disk == "whole"
    kill_everywhere(bench, tmp_path, lambda: bench.resize("48M"), checks_boot=not is_whole)
    kill_everywhere(bench, tmp_path, lambda: bench.resize("24M"), checks_boot=not is_whole)


def test_install_and_rebuild_of_a_whole_disk(bench: Bench, tmp_path: Path) -> None:
    kill_everywhere(bench, tmp_path, lambda: bench.install("whole"), checks_boot=False)
    kill_everywhere(bench, tmp_path, lambda: bench.rebuild("whole"), checks_boot=False)


def test_rebuild(bench: Bench, tmp_path: Path) -> None:
    bench.install(f"from-{ABIS[0]}")
    bench.rebuild(f"from-{ABIS[1]}")
    assert kill_everywhere(bench, tmp_path, lambda: bench.rebuild(f"from-{ABIS[2]}")) > 20


def test_undoing_a_rebuild(bench: Bench, tmp_path: Path) -> None:
    bench.install(f"from-{ABIS[0]}")
    bench.rebuild(f"from-{ABIS[1]}")
    kill_everywhere(bench, tmp_path, lambda: rebuild.undo_rebuild(bench.layout, NAME, None))


@pytest.mark.parametrize("kernel", [ABIS[1], "same-abi"], ids=["another ABI", "the same ABI"])
def test_refresh(bench: Bench, tmp_path: Path, kernel: str) -> None:
    require(is_root(), "mounts a file system")
    bench.install(f"from-{ABIS[0]}")
    assert kill_everywhere(bench, tmp_path, lambda: bench.refresh(kernel)) > 20


def test_undoing_a_refresh(bench: Bench, tmp_path: Path) -> None:
    require(is_root(), "mounts a file system")
    bench.install(f"from-{ABIS[0]}")
    bench.refresh(ABIS[1])
    kill_everywhere(bench, tmp_path, lambda: refresh.undo_refresh(bench.layout, NAME, None))


@pytest.mark.parametrize("replaces", ["no", "yes"])
def test_the_next_install_works_whenever_the_last_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaces: str
) -> None:
    """The word itself comes next, nothing else: it undoes or finishes, and installs."""
    life = LifeBench(tmp_path / "work")
    monkeypatch.setenv("DOMU_ROOT", str(life.root))
    if replaces == "yes":
        life.demand("install", unproven="yes")
        life.make_artifact(ABIS[1], "two")
    copy_root(life.root, tmp_path / "before")
    hostname = hostname_in(life.artifact / "disk.img")
    kills = 0
    for at in range(1, MOST_STEPS, 2):
        copy_root(tmp_path / "before", life.root)
        status = run_and_kill(lambda: life.demand("install", unproven="yes", replace="yes"), at)
        if status == SURVIVED:
            break
        assert status == -9, f"step {at}: ended with {status}"
        kills += 1
        if kills % 4 == 0:  # somebody looks first
            life.demand("list-guests")
            assert not list_unfinished(site_of(Layout(life.root)))
        life.demand("install", unproven="yes", replace="yes")
        require_bootable(life.root)
        (disk,) = (life.root / "var/lib/xen/images").rglob("disk.img")
        assert hostname_in(disk) == hostname
        assert not list_unfinished(site_of(Layout(life.root)))
    assert kills > 15


def _modules_of(root: Path) -> dict[str, str]:
    """What is in /lib/modules, hidden entries too."""
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_modules_go_back_whenever_putting_them_was_killed(tmp_path: Path) -> None:
    """The program in the cage, killed before each of its changes; `back` is what recovery does."""
    archive = make_kernel(tmp_path / "kernel", ABIS[0], flavour="new").folder / "modules.tar"
    tree = tmp_path / "tree"

    def run(*words: str) -> None:
        folder = os.open(tree, os.O_RDONLY)
        here = os.getcwd()
        try:
            assert modules_in_guest.main([str(folder), *words]) == 0
        finally:
            os.chdir(here)
            os.close(folder)

    def restore() -> None:
        shutil.rmtree(tree, ignore_errors=True)
        (tree / f"lib/modules/{ABIS[0]}").mkdir(parents=True)
        (tree / f"lib/modules/{ABIS[0]}/modules.dep").write_text("old")

    restore()
    old = _modules_of(tree)
    for at in range(1, MOST_STEPS):
        restore()
        status = run_and_kill(lambda: run("put", ABIS[0], str(archive)), at)
        if status == SURVIVED:
            break
        assert (tree / f"lib/modules/{ABIS[0]}/modules.dep").exists(), f"no modules at step {at}"
        run("back", ABIS[0])
        assert _modules_of(tree) == old, f"step {at}"
    assert at > 5
    assert len(_modules_of(tree)) == 3
    run("back", ABIS[0])
    assert _modules_of(tree) == old
