"""Publishing, installing, refreshing, resizing, rebuilding, removing: below a folder, without Xen.

The guest here is small and boots nowhere; tests/boot/test_life_in_dom0.py does the same with one
that boots, under Xen.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.dom0.layout import Layout
from pipeline.namespace import is_root
from pipeline.storage.root_place import find_root
from tests.conftest import ROOT, require
from tests.host.dom0_bench import NAME, LifeBench
from tests.host.small_artifact import (
    ABIS,
    DISK_MIB,
    hostname_in,
    is_clean,
    make_kernel,
    modules_in,
)
from tests.whole_disk import is_sound
from tests.workshop import Workshop

pytestmark = pytest.mark.integration


def refused(place: LifeBench, code: int, *words: str) -> str:
    """All that is said of a word that must be refused and change nothing."""
    error = place.refused(*words)
    assert error.exit_code == code, error
    return f"{error.brief}\n{error.details}\n{error.hint}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LifeBench:
    made = LifeBench(tmp_path / "work")
    monkeypatch.setenv("DOMU_ROOT", str(made.root))
    return made


@pytest.fixture
def installed(place: LifeBench) -> LifeBench:
    place.demand("install", f"name={NAME}", "unproven=yes", "autostart=yes")
    return place


@pytest.fixture
def open_disk(installed: LifeBench) -> Iterator[Path]:
    """Somebody has the disk open, as a running guest's backend would."""
    with open(installed.disk(), "rb") as stream:
        holder = subprocess.Popen(["sleep", "600"], stdin=stream)
        yield installed.disk()
        holder.send_signal(signal.SIGKILL)
        holder.wait()


def test_an_unproven_artifact_is_neither_published_nor_installed(place: LifeBench) -> None:
    assert "never proven" in refused(place, 5, "install", f"name={NAME}")
    assert "never proven" in refused(place, 5, "publish", f"name={NAME}")
    assert not (place.work / "output/published").exists()


def test_install_puts_everything_in_its_place_and_remove_takes_it_away(place: LifeBench) -> None:
    said = place.demand("install", f"name={NAME}", "unproven=yes", "autostart=yes")
    assert "no Xen here" in said
    text = place.config.read_text()
    assert str(place.disk()) in text
    assert place.kernels()[0].startswith(ABIS[0])
    assert f"{place.kernels()[0]}/vmlinuz" in text
    assert os.readlink(place.root / "etc/xen/auto" / f"{NAME}.cfg") == f"../{NAME}.cfg"
    listed = json.loads(place.demand("list-guests", "json=yes"))
    assert [(one["guest"], one["kernel"], one["autostart"]) for one in listed] == [
        (NAME, ABIS[0], True)
    ]
    place.demand("remove", f"name={NAME}")
    left = [path for path in place.root.rglob("*") if not path.is_dir()]
    assert left == []
    assert (place.artifact / "disk.img").is_file()


def test_what_is_not_ours_is_neither_overwritten_nor_removed(place: LifeBench) -> None:
    place.config.parent.mkdir(parents=True)
    place.config.write_text("theirs")
    assert "was not installed by doit" in refused(
        place, 4, "install", f"name={NAME}", "unproven=yes"
    )
    place.config.unlink()
    folder = place.disk().parent
    folder.mkdir(parents=True)
    (folder / "precious").write_text("theirs")
    assert "was not installed by doit" in refused(
        place, 4, "install", f"name={NAME}", "unproven=yes"
    )
    assert (folder / "precious").read_text() == "theirs"
    assert "is not installed here" in refused(place, 2, "remove", f"name={NAME}")


def test_on_a_host_with_xm_the_configuration_is_xms(place: LifeBench) -> None:
    place.demand("install", f"name={NAME}", "unproven=yes", "toolstack=xm")
    text = place.config.read_text()
    assert "configuration for xm" in text
    assert f"'file:{place.disk()},xvda1,w'" in text
    place.demand("refresh", f"from={place.work / ABIS[1]}") if is_root() else None
    place.demand("remove", f"name={NAME}")


def test_a_pvh_guest_is_refused_where_no_toolstack_or_no_processor_can(place: LifeBench) -> None:
    place.make_artifact(ABIS[0], "one", type="pvh")
    words = ("install", f"name={NAME}", "unproven=yes")
    said = refused(place, 2, *words, "toolstack=xm")
    assert "xend never had it" in said
    assert f"doit build name={NAME} type=pv" in said
    caps = place.root / "sys/hypervisor/properties/capabilities"
    caps.parent.mkdir(parents=True)
    caps.write_text("xen-3.0-x86_64\n")
    said = refused(place, 3, *words)
    assert "type pvh needs VT-x or AMD-V" in said
    assert "type=pv" in said
    caps.write_text("xen-3.0-x86_64 hvm-3.0-x86_64\n")
    place.demand(*words)


def test_a_guest_becomes_another_type_by_a_rebuild_alone_and_says_so(
    installed: LifeBench,
) -> None:
    installed.make_artifact(ABIS[1], "two", type="pvh")
    kernel = installed.work / ABIS[1]
    refreshed = installed.demand("refresh", f"name={NAME}", f"from={kernel}") if is_root() else ""
    assert "type" not in refreshed
    assert 'type = "pv"' in installed.config.read_text()
    words = ("rebuild", f"name={NAME}", f"from={installed.artifact}", "unproven=yes")
    note = "its type changes: pv -> pvh; type=pv in its spec keeps it"
    assert note in installed.demand(*words)
    assert 'type = "pvh"' in installed.config.read_text()
    installed.demand("rebuild", f"name={NAME}", "undo=yes")
    assert 'type = "pv"' in installed.config.read_text()
    text = installed.config.read_text()
    installed.config.write_text(text.replace("memory = 256", "memory = 300"))
    assert note in installed.demand(*words)
    installed.demand("rebuild", f"name={NAME}", "undo=yes")
    assert note in installed.demand("install", f"name={NAME}", "unproven=yes", "replace=yes")


def test_a_damaged_artifact_is_not_installed(place: LifeBench) -> None:
    (place.artifact / "vmlinuz").write_bytes(b"another kernel")
    said = refused(place, 5, "install", f"name={NAME}", "unproven=yes")
    assert "vmlinuz is not what SHA256SUMS says" in said


def test_a_second_install_is_refused_unless_it_may_replace(installed: LifeBench) -> None:
    installed.make_artifact(ABIS[1], "two")
    assert "installed already" in refused(installed, 4, "install", f"name={NAME}", "unproven=yes")
    installed.demand("install", f"name={NAME}", "unproven=yes", "replace=yes")
    assert hostname_in(installed.disk(2)) == f"{NAME} two"
    assert not installed.disk(1).exists()
    assert [name.rpartition("-")[0] for name in installed.kernels()] == [ABIS[1]]


def test_what_a_guest_has_written_is_lost_only_when_told_so(installed: LifeBench) -> None:
    with open(installed.disk(), "r+b") as stream:
        stream.seek(20 << 20)
        stream.write(b"written by the guest")
    assert "has written to it" in refused(installed, 4, "remove", f"name={NAME}")
    installed.demand("remove", f"name={NAME}", "yes=yes")
    assert not installed.config.exists()


def test_a_disk_in_use_stops_everything(installed: LifeBench, open_disk: Path) -> None:
    for words in (
        ("remove", "yes=yes"),
        ("resize", "size=64M"),
        ("rebuild", "unproven=yes", f"from={installed.artifact}"),
        ("install", "replace=yes", "unproven=yes"),
    ):
        said = refused(installed, 4, words[0], f"name={NAME}", *words[1:])
        assert "in use by process" in said


def test_a_refresh_and_its_undo(installed: LifeBench) -> None:
    require(is_root(), "mounts a file system")
    installed.config.write_text(f"# mine\n{installed.config.read_text()}memory = 384\n")
    said = installed.demand("refresh", f"name={NAME}", f"from={installed.work / ABIS[1]}")
    assert f"{ABIS[0]} -> {ABIS[1]}" in said
    text = installed.config.read_text()
    assert text.startswith("# mine\n")
    assert text.endswith("memory = 384\n")
    assert set(modules_in(installed.disk())) == {ABIS[0], ABIS[1]}
    assert is_clean(installed.disk())
    assert len(installed.kernels()) == 2
    assert "nothing to do" in installed.demand(
        "refresh", f"name={NAME}", f"from={installed.work / ABIS[1]}"
    )
    installed.demand("refresh", f"name={NAME}", "undo=yes")
    assert set(modules_in(installed.disk())) == {ABIS[0]}
    assert installed.config.read_text().count(f"kernels/{ABIS[0]}-") == 2
    assert [name.rpartition("-")[0] for name in installed.kernels()] == [ABIS[0]]
    assert "no refresh that can be undone" in refused(
        installed, 2, "refresh", f"name={NAME}", "undo=yes"
    )


def test_old_kernels_go_when_nobody_needs_them(installed: LifeBench) -> None:
    require(is_root(), "mounts a file system")
    for abi in ABIS[1:]:
        installed.demand("refresh", f"from={installed.work / abi}")
    assert set(modules_in(installed.disk())) == set(ABIS[1:]), "the first ABI was not purged"
    installed.demand("refresh", "purge=yes")
    assert set(modules_in(installed.disk())) == {ABIS[2]}
    assert [name.rpartition("-")[0] for name in installed.kernels()] == [ABIS[2]]


def test_a_running_guest_is_told_to_shut_down_and_keeps_its_kernel(
    installed: LifeBench, open_disk: Path
) -> None:
    before = installed.config.read_text()
    said = installed.demand("refresh", f"from={installed.work / ABIS[1]}")
    assert "a reboot keeps the old kernel" in said
    assert installed.config.read_text() == before
    assert set(modules_in(open_disk)) == {ABIS[0]}
    assert "waits for kernel" in installed.demand("list-guests")
    installed.demand("refresh", "undo=yes")
    assert len(installed.kernels()) == 1


def test_a_refresh_that_does_not_fit_changes_nothing(installed: LifeBench) -> None:
    require(is_root(), "mounts a file system")
    big = installed.work / "big"
    make_kernel(big, "6.1.0-9-test")
    tree = installed.work / "tree"
    (tree / "lib/modules/6.1.0-9-test").mkdir(parents=True)
    with open(tree / "lib/modules/6.1.0-9-test/big.ko", "wb") as stream:
        stream.truncate(DISK_MIB << 20)
    subprocess.run(["tar", "-C", tree, "-cf", big / "modules.tar", "lib"], check=True)
    before = installed.config.read_text()
    outcome = installed.ask("refresh", f"name={NAME}", f"from={big}")
    assert outcome.code == 3, outcome
    assert "free in the guest" in str(outcome.error)
    assert installed.config.read_text() == before
    assert set(modules_in(installed.disk())) == {ABIS[0]}
    assert len(installed.kernels()) == 1


def test_a_link_in_the_guest_does_not_lead_out_of_it(installed: LifeBench) -> None:
    require(is_root(), "mounts a file system")
    outside = installed.work / "outside"
    outside.mkdir()
    script = f"rmdir /usr/lib/nothing\nrm /lib\nsymlink /lib {outside}\n"
    subprocess.run(
        ["debugfs", "-w", installed.disk()],
        input=script,
        text=True,
        check=True,
        capture_output=True,
    )
    installed.ask("refresh", f"name={NAME}", f"from={installed.work / ABIS[1]}")
    assert list(outside.iterdir()) == []


def test_resize_both_ways_but_never_below_the_content(installed: LifeBench) -> None:
    installed.demand("resize", f"name={NAME}", "size=64M")
    assert installed.disk().stat().st_size == 64 << 20
    assert is_clean(installed.disk())
    installed.demand("resize", f"name={NAME}", "size=24M")
    assert installed.disk().stat().st_size == 24 << 20
    assert is_clean(installed.disk())
    assert hostname_in(installed.disk()) == f"{NAME} one"
    assert "files need" in refused(installed, 2, "resize", f"name={NAME}", "size=2M")
    assert "is not a size" in refused(installed, 2, "resize", f"name={NAME}", "size=4X")
    # nothing of a guest's is lost: what was written since was ours
    installed.demand("remove", f"name={NAME}")


def test_the_life_of_a_whole_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = LifeBench(tmp_path / "work", type="pvh", boot="grub", disk="whole")
    monkeypatch.setenv("DOMU_ROOT", str(bench.root))
    bench.demand("install", unproven="yes")
    assert NAME in bench.demand("list-guests")
    assert "32 MiB, nothing to do" in bench.demand("resize", size="32M")
    assert "48 MiB" in bench.demand("resize", size="48M")
    assert (bench.disk().stat().st_size >> 20, is_sound(bench.disk())) == (51, True)
    assert "files need" in bench.refused("resize", size="2M").brief
    bench.make_artifact(ABIS[0], "two")
    bench.demand("rebuild", of=str(bench.artifact), unproven="yes")
    for generation, named in ((1, f"{NAME} one"), (2, f"{NAME} two")):
        disk = bench.disk(generation)
        assert hostname_in(disk) == named
        assert (disk.stat().st_size >> 20, is_sound(disk), is_clean(disk)) == (51, True, True)
    assert "upgrade it in the guest" in bench.demand("refresh")
    bench.demand("rebuild", undo="yes")
    assert hostname_in(bench.disk()) == f"{NAME} one"
    bench.demand("remove", yes="yes")
    assert not bench.disk().exists()


def test_a_whole_disk_that_moves_needs_its_firmware_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = LifeBench(tmp_path / "work", type="hvm", boot="firmware", firmware="uefi")
    monkeypatch.setenv("DOMU_ROOT", str(bench.root))
    bench.demand("install", unproven="yes")
    said = bench.demand("migrate", to="peer", dry="yes").split()
    (firmware,) = [word for word in said if word.endswith("/OVMF.fd")]
    assert firmware in Layout(bench.root).config(NAME).read_text()
    assert str(bench.disk()) in said


def test_a_whole_disk_of_which_a_partition_is_mounted_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(is_root(), "mounts a file system")
    bench = LifeBench(tmp_path / "work", type="pvh", boot="grub", disk="whole")
    monkeypatch.setenv("DOMU_ROOT", str(bench.root))
    bench.demand("install", unproven="yes")
    point = tmp_path / "mounted"
    point.mkdir()
    place = find_root(bench.disk(), is_whole=True)
    options = ",".join(("ro", "noload", *place.mount_options))
    subprocess.run(["mount", "-o", options, place.disk, point], check=True)
    try:
        assert "/dev/loop" in bench.refused("resize", size="48M").brief
        assert "/dev/loop" in bench.refused("remove", yes="yes").brief
    finally:
        subprocess.run(["umount", point], check=True)
    bench.demand("remove", yes="yes")


def test_a_whole_disk_that_its_guest_partitioned_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = LifeBench(tmp_path / "work", type="pvh", boot="grub", disk="whole")
    monkeypatch.setenv("DOMU_ROOT", str(bench.root))
    bench.demand("install", unproven="yes")
    with open(bench.disk(), "r+b") as stream:
        stream.seek(520)
        stream.write(b"\xff")
    assert "header is damaged" in bench.refused("resize", size="48M").brief


def test_a_rebuild_and_its_undo(installed: LifeBench) -> None:
    installed.make_artifact(ABIS[1], "two")
    words = ("rebuild", f"name={NAME}", f"from={installed.artifact}")
    assert "is not proven" in refused(installed, 5, *words)
    installed.demand(*words, "unproven=yes")
    assert hostname_in(installed.disk(2)) == f"{NAME} two"
    assert str(installed.disk(2)) in installed.config.read_text()
    installed.demand("rebuild", f"name={NAME}", "undo=yes")
    assert hostname_in(installed.disk(1)) == f"{NAME} one"
    assert str(installed.disk(1)) in installed.config.read_text()
    assert not installed.disk(2).exists()
    assert [name.rpartition("-")[0] for name in installed.kernels()] == [ABIS[0]]


def test_a_refresh_does_not_end_the_undo_of_a_rebuild(installed: LifeBench) -> None:
    installed.config.write_text(f"# mine\n{installed.config.read_text()}")
    words = ("rebuild", f"name={NAME}", f"from={installed.artifact}", "unproven=yes")
    installed.demand(*words)
    assert installed.config.read_text().startswith("# mine\n")
    said = refused(installed, 4, "refresh", f"name={NAME}", f"from={installed.work / ABIS[1]}")
    assert "can still be undone" in said
    installed.demand("rebuild", f"name={NAME}", "undo=yes")
    assert installed.config.read_text().startswith("# mine\n")


def test_a_rebuilt_disk_is_as_large_as_the_old_one_was_made(installed: LifeBench) -> None:
    installed.demand("resize", f"name={NAME}", "size=64M")
    words = ("rebuild", f"name={NAME}", f"from={installed.artifact}", "unproven=yes")
    assert "resized to 64 MiB" in installed.demand(*words)
    assert installed.disk(2).stat().st_size == 64 << 20
    assert is_clean(installed.disk(2))
    installed.demand("rebuild", f"name={NAME}", "undo=yes")
    assert installed.disk(1).stat().st_size == 64 << 20


def test_an_interruption_undoes_what_was_begun(installed: LifeBench) -> None:
    (installed.work / f"guests/{NAME}.toml").write_text('suite = "bookworm"\n')
    before = installed.stock()
    words = ["install", f"name={NAME}", "replace=yes", "unproven=yes"]
    for delay_s in (0.6, 0.8, 1.0, 1.2):
        child = subprocess.Popen(
            [sys.executable, "-m", "doit", *words],
            cwd=ROOT,
            env=Workshop(installed.output, installed.work / "guests").environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        time.sleep(delay_s)
        child.send_signal(signal.SIGTERM)
        said = child.communicate()[0].decode()
        if child.returncode == 0:
            return  # it was faster
        assert child.returncode in (130, -signal.SIGTERM), said
        if installed.stock() != before:  # it came after the rename that decides
            assert str(installed.disk(2)) in installed.config.read_text()
            installed.demand("list-guests")  # whatever comes next finishes it
            assert is_clean(installed.disk(2)) and not installed.disk(1).exists()
            assert not list((installed.root / "var/lib/domu/journal").glob("*.json"))
            return


def test_the_doctor_removes_what_a_killed_command_left(installed: LifeBench) -> None:
    journal = installed.root / "var/lib/domu/journal"
    journal.mkdir(parents=True, exist_ok=True)
    half = installed.disk(2)
    half.parent.mkdir()
    half.write_bytes(b"half a copy")
    undo = {"kind": "remove-tree", "path": str(half.parent)}
    table = {"word": "rebuild", "phase": "preparing", "undo": [undo], "finish": []}
    (journal / f"{NAME}.json").write_text(json.dumps(table))
    (installed.root / "var/lib/xen/kernels/.new-12345678").mkdir()
    assert "unfinished command" in installed.demand("doctor", "dry=yes")
    assert half.exists()
    assert f"rebuild of {NAME}: undone" in installed.demand("doctor")
    assert not half.parent.exists()
    assert len(installed.kernels()) == 1
    assert "leftovers: none" in installed.demand("doctor")


def test_versions_are_published_kept_and_rolled_back(place: LifeBench) -> None:
    root = place.work / "output/published" / NAME
    for number in ("one", "two", "three"):
        place.make_artifact(ABIS[0], number)
        place.demand("publish", f"name={NAME}", "unproven=yes", "keep=2")
        time.sleep(1.1)  # a version is named after its second
    versions = sorted(path for path in root.iterdir() if path.name.startswith("2"))
    assert len(versions) == 2
    assert (root / "current").resolve() == versions[1]
    assert hostname_in(root / "current/disk.img") == f"{NAME} three"
    for path in versions[1].iterdir():
        assert path.stat().st_mode & 0o222 == 0
    again = place.demand("publish", f"name={NAME}", "unproven=yes")
    assert "nothing is signed: there are no keys in" in again
    assert str(versions[1]) in again
    # what did not change between two versions is the same file
    assert (versions[0] / "swap.img").samefile(versions[1] / "swap.img")
    place.demand("publish", f"name={NAME}", "rollback=yes")
    assert (root / "current").resolve() == versions[0]
    assert "no published version before" in refused(
        place, 2, "publish", f"name={NAME}", "rollback=yes"
    )
    place.demand("install", f"name={NAME}", "from=published", "unproven=yes")
    assert hostname_in(place.disk()) == f"{NAME} two"


def test_a_guest_that_was_moved_is_left_alone_until_it_is_known_where_it_runs(
    installed: LifeBench,
) -> None:
    note = Layout(installed.root).moved(NAME)
    note.parent.mkdir()
    note.write_text("xen2.invalid\n")
    for words in (["remove", "yes=yes"], ["resize", "size=2G"], ["refresh"]):
        said = refused(installed, 3, words[0], f"name={NAME}", *words[1:])
        assert f"{NAME} was moved to xen2.invalid, which cannot be asked" in said
        assert f"rm {note}" in said
    assert '"state": "moved"' in installed.demand("list-guests", "json=yes")
    note.unlink()
    installed.demand("remove", f"name={NAME}", "yes=yes")


def test_the_words_over_xl_say_that_there_is_no_xen(installed: LifeBench) -> None:
    for word in ("start", "console", "shutdown", "reboot", "save", "restore"):
        assert "no Xen host" in refused(installed, 3, word, f"name={NAME}")
    assert "no Xen host" in refused(installed, 3, "destroy", f"name={NAME}", "yes=yes")
    said = installed.demand("migrate", f"name={NAME}", "to=peer", "dry=yes")
    assert "ssh peer xl migrate-receive" in said
    assert "disks do not move" in said
    assert "'nmae'" not in said
    assert "did you mean 'name'" in refused(installed, 2, "start", "nmae=x")
