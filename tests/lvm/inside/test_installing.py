"""A guest installed into a volume group: grown, rebuilt, removed, and killed at every command."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipeline.artifact.folder import read_source
from pipeline.artifact.kernel_folder import read_kernel_folder
from pipeline.dom0 import install, rebuild, refresh, remove, resize
from pipeline.dom0 import install as refusals
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.inventory import find_written, read_installed, require_installed
from pipeline.dom0.kernels import purge_kernels
from pipeline.dom0.layout import Layout
from pipeline.errors import EnvironmentFault, InUseError, UsageError
from pipeline.process import run
from pipeline.project import Project
from pipeline.storage import lvm
from pipeline.storage.disks import INSTALLED_TAG
from pipeline.storage.leftovers import find_leftovers, remove_leftovers
from pipeline.storage.root_place import find_root
from pipeline.storage.transaction import recover_all
from pipeline.xen import xl
from tests.host.kill_points import SURVIVED, run_and_kill
from tests.host.small_artifact import ABIS, hostname_in, is_clean, make_artifact, make_kernel
from tests.lvm.inside.conftest import FIRST, GROUP, STRIDE
from tests.whole_disk import is_sound

NAME = "web1"


class Host:
    """Artifacts, and a host's folder below which everything but the volumes is."""

    def __init__(self, work: Path, **keys: str) -> None:
        self.work, self.layout = work, Layout(work / "root")
        for abi in ABIS[:2]:
            kernel = make_kernel(work / abi, abi)
            artifact = work / f"from-{abi}" / NAME
            artifact.mkdir(parents=True)
            make_artifact(artifact, NAME, kernel=kernel, generation=abi, **keys)

    def plan(self, abi: str, group: str = GROUP) -> install.Plan:
        source = read_source(self.work / f"from-{abi}" / NAME, name=NAME)
        return install.plan_install(
            source, self.layout, before=read_installed(self.layout, NAME), group=group
        )

    def install(self, abi: str) -> None:
        plan = self.plan(abi)
        refusals.refuse_impossible(plan, self.layout, None)
        install.install(plan, self.layout, word="install", log=self.work / "log")

    def rebuild(self, abi: str) -> None:
        source = read_source(self.work / f"from-{abi}" / NAME, name=NAME)
        record = require_installed(self.layout, NAME)
        plan = rebuild.plan_rebuild(source, self.layout, record, proof="proven")
        rebuild.rebuild(plan, self.layout, log=self.work / "log")

    def resize(self, size: str) -> None:
        record = require_installed(self.layout, NAME)
        plan, _ = resize.plan_resize(self.layout, record, size, None)
        resize.resize(self.layout, plan)

    def remove(self) -> None:
        remove.remove_guests([require_installed(self.layout, NAME)], self.layout)

    def written(self) -> list[str]:
        """The disks that their guest would have written to: there is none that runs."""
        return [disk.target for disk in find_written(require_installed(self.layout, NAME))]

    def disk(self) -> Path:
        """What the configuration names."""
        text = self.layout.config(NAME).read_text()
        return Path(xl.parse(text).disks[0].target)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def volumes() -> list[str]:
    return sorted(found.name for found in lvm.list_volumes(run, GROUP))


def test_a_life_in_a_volume_group(host: Host) -> None:
    host.install(ABIS[0])
    assert volumes() == [f"{NAME}-disk", f"{NAME}-swap"]
    assert host.disk() == Path("/dev", GROUP, f"{NAME}-disk")
    assert hostname_in(host.disk()) == f"{NAME} {ABIS[0]}"
    assert not host.written()

    host.resize("48M")
    assert lvm.find_volume(run, GROUP, f"{NAME}-disk").size == 48 << 20  # type: ignore[union-attr]
    assert is_clean(host.disk())
    host.resize("36M")
    assert volumes() == [f"{NAME}-disk.2", f"{NAME}-swap"]
    assert lvm.find_volume(run, GROUP, f"{NAME}-disk.2").size == 36 << 20  # type: ignore[union-attr]
    assert is_clean(host.disk())
    assert hostname_in(host.disk()) == f"{NAME} {ABIS[0]}"
    assert not host.written()
    with pytest.raises(UsageError, match="files need"):
        host.resize("2M")

    host.rebuild(ABIS[1])
    assert not host.written()
    assert hostname_in(host.disk()) == f"{NAME} {ABIS[1]}"
    assert volumes() == [f"{NAME}-{part}" for part in ("disk.2", "disk.3", "swap", "swap.3")]
    rebuild.undo_rebuild(host.layout, NAME, None)
    assert hostname_in(host.disk()) == f"{NAME} {ABIS[0]}"
    assert volumes() == [f"{NAME}-disk.2", f"{NAME}-swap"]
    host.remove()
    assert volumes() == []
    assert not host.layout.config(NAME).exists()


def test_a_whole_disk_in_a_volume_group(tmp_path: Path) -> None:
    """Grown and made smaller within its partition table, killed at some commands."""
    host = Host(tmp_path, type="pvh", boot="grub", disk="whole")
    host.install(ABIS[0])
    assert host.written() == []
    point = tmp_path / "mounted"
    point.mkdir()
    root = find_root(host.disk(), is_whole=True)
    run(["mount", "-o", ",".join(root.mount_options), host.disk(), point])
    run(["umount", point])
    assert host.written() == [str(host.disk())]
    sizes = {}
    for asked in ("48M", "36M"):
        for at in range(FIRST, 200, 4 * STRIDE):
            before = host.disk()
            status = run_and_kill(partial(host.resize, asked), at, calls=("replace",))
            assert is_clean(host.disk())
            recover_all(site_of(host.layout))
            assert (is_clean(host.disk()), is_sound(host.disk())) == (True, True)
            assert hostname_in(host.disk()) == f"{NAME} {ABIS[0]}"
            if status == SURVIVED or host.disk() != before:
                break
        host.resize(asked)
        volume = lvm.find_volume(run, GROUP, host.disk().name)
        assert volume is not None
        sizes[asked] = volume.size >> 20, find_root(volume.path, is_whole=True).size >> 20
    assert sizes == {"48M": (51, 48), "36M": (39, 36)}
    host.rebuild(ABIS[1])
    assert hostname_in(host.disk()) == f"{NAME} {ABIS[1]}"
    assert is_sound(host.disk())
    kernel = read_kernel_folder(tmp_path / ABIS[0])
    assert refresh.refresh(host.layout, NAME, kernel, None).state == "inside"
    rebuild.undo_rebuild(host.layout, NAME, None)
    assert hostname_in(host.disk()) == f"{NAME} {ABIS[0]}"
    assert (is_clean(host.disk()), is_sound(host.disk())) == (True, True)
    assert find_root(host.disk(), is_whole=True).size == 36 << 20
    host.remove()
    assert volumes() == []


def test_what_cannot_be_is_refused_before_anything_is_made(host: Host) -> None:
    with pytest.raises(EnvironmentFault, match="no volume group 'VG9'"):
        refusals.refuse_impossible(host.plan(ABIS[0], "VG9"), host.layout, None)
    foreign = lvm.create_volume(run, GROUP, f"{NAME}-disk", size_bytes=4 << 20)
    try:
        with pytest.raises(InUseError, match="was not made for this guest"):
            host.install(ABIS[0])
    finally:
        lvm.remove_volume(run, foreign)
    group = lvm.read_group(run, GROUP)
    filler = lvm.create_volume(run, GROUP, "filler", size_bytes=group.free - (8 << 20))
    try:
        with pytest.raises(EnvironmentFault, match="8 MiB free"):
            host.install(ABIS[0])
    finally:
        lvm.remove_volume(run, filler)
    assert volumes() == []


def test_a_volume_that_is_mounted_is_not_removed(host: Host, tmp_path: Path) -> None:
    host.install(ABIS[0])
    point = tmp_path / "mounted"
    point.mkdir()
    run(["mount", host.disk(), point])
    try:
        with pytest.raises(InUseError, match="in use"):
            remove.refuse_removal(
                require_installed(host.layout, NAME), host.layout, None, may_lose=True
            )
    finally:
        run(["umount", point])
    host.remove()


def test_a_kill_between_commands_leaves_the_old_guest_or_the_new(host: Host) -> None:
    host.install(ABIS[0])

    def restore() -> None:
        rebuild.undo_rebuild(host.layout, NAME, None)

    old, new = kill_everywhere(host, lambda: host.rebuild(ABIS[1]), restore)
    print(f"rebuild in a volume group: {old + new} kills, {old} old, {new} new")
    assert old > 0
    host.remove()


def test_a_kill_while_a_volume_is_made_smaller_leaves_one_whole_guest(host: Host) -> None:
    host.install(ABIS[0])
    host.resize("48M")
    large = host.disk()
    for at in range(FIRST, 200, 2 * STRIDE):
        status = run_and_kill(lambda: host.resize("36M"), at, calls=("replace",))
        assert is_clean(host.disk())
        recover_all(site_of(host.layout))
        assert hostname_in(host.disk()) == f"{NAME} {ABIS[0]}"
        assert is_clean(host.disk())
        assert volumes() == [host.disk().name, f"{NAME}-swap"]
        if host.disk() != large:
            break
    print(f"resize of a volume: {at // STRIDE // 2} kills left the old one")
    assert status in (-9, SURVIVED)
    assert at > 2 * STRIDE
    host.remove()
    assert volumes() == []


def kill_everywhere(
    host: Host, action: Callable[[], None], restore: Callable[[], None]
) -> tuple[int, int]:
    """Before every STRIDEth program and rename."""
    old = new = 0
    for at in range(FIRST, 200, STRIDE):
        status = run_and_kill(action, at, calls=("replace",))
        # what xl create would find at this moment
        assert hostname_in(host.disk()) in (f"{NAME} {ABIS[0]}", f"{NAME} {ABIS[1]}")
        recover_all(site_of(host.layout))
        purge_kernels(host.layout)
        is_new = hostname_in(host.disk()) == f"{NAME} {ABIS[1]}"
        expected = [f"{NAME}-disk", f"{NAME}-swap"]
        expected += [f"{NAME}-disk.2", f"{NAME}-swap.2"] if is_new else []
        generation = require_installed(host.layout, NAME).generation
        assert [name.replace(f".{generation}", ".2") for name in volumes()] == sorted(expected)
        assert not list((host.layout.state / "journal").glob("*"))
        old, new = old + (not is_new), new + is_new
        if status == SURVIVED:
            assert is_new
            restore()
            return old, new - 1
        assert status == -9
        if is_new:
            restore()
    raise AssertionError("it never survived")


def test_nothing_of_a_former_tenant_shows(host: Host) -> None:
    marker = b"a former tenant's secret" * 40
    dirty = lvm.create_volume(run, GROUP, "dirty", size_bytes=64 << 20)
    with open(dirty.path, "r+b") as stream:
        for _ in range(64):
            stream.write(marker.ljust(1 << 20, b"x"))
        stream.flush()
        os.fsync(stream.fileno())
    lvm.remove_volume(run, dirty)
    host.install(ABIS[0])
    for name in volumes():
        assert marker[:24] not in Path("/dev", GROUP, name).read_bytes()
    host.remove()


def test_a_volume_of_a_change_that_is_at_work_is_no_leftover(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    tags = [f"{INSTALLED_TAG}{NAME}"]
    staged = lvm.create_volume(run, GROUP, f"{NAME}-disk.new-1", size_bytes=4 << 20, tags=tags)
    named = lvm.create_volume(run, GROUP, f"{NAME}-disk", size_bytes=4 << 20, tags=tags)
    assert find_leftovers(project, busy=[NAME]) == {}
    (said,) = remove_leftovers(project)
    assert said.startswith(f"removed {GROUP}/{staged.name}: ")
    assert volumes() == [named.name]
    lvm.remove_volume(run, named)
