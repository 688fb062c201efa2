"""The same packages give the same bytes on another day, in another folder, time zone, language."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import process
from pipeline.files import digest_file
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import load_all
from pipeline.stages import STAGES
from pipeline.walls.cage import caged, caged_reader, make_room
from tests.conftest import require
from tests.golden import read_table
from tests.turns import in_turn
from tests.workshop import ROOT, Workshop, run_program

pytestmark = [pytest.mark.integration, pytest.mark.build]

GUEST = "test-drbd"
COMPARED = ("base", "kernel", "rootfs", "image")
LATER_DAYS = 40  # the security archive's Release is valid for 7
LATER_C = """\
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    int status = syscall(SYS_clock_gettime, id, now);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec += %d;
    return status;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    int status = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return status;
}
time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"""
OTHERWISE = {"TZ": "Pacific/Auckland", "LANG": "de_DE.UTF-8", "LC_ALL": "tr_TR.UTF-8"}


@pytest.fixture
def locked(workshop: Workshop, tmp_path: Path) -> Iterator[Workshop]:
    """A copy of the guests with a lock, and an empty output that holds only what the lock keeps."""
    require(os.geteuid() == 0, "a network namespace without interfaces")
    guests, output = tmp_path / "guests", tmp_path / "elsewhere" / "output"
    shutil.copytree(workshop.guests, guests)
    here = Workshop(workshop.output, guests)
    here.doit("lock", f"name={GUEST}", ends=0)
    (output / "cache").mkdir(parents=True)
    (output.parent / "tmp").mkdir()
    for name in ("locked", "cache/debs", "identity"):
        subprocess.run(["cp", "-a", workshop.output / name, output / name], check=True)
    yield Workshop(output, guests)


def without_network(bench: Workshop, *words: str) -> subprocess.CompletedProcess[str]:
    """doit in a network namespace without interfaces, as another machine would run it."""
    script = 'umask 077; hostname elsewhere; test "$(ls /sys/class/net)" = lo || exit 9; exec "$@"'
    script = f"mount -t sysfs sys /sys; {another_day(bench.output.parent)}; {script}"
    argv = ["unshare", "--net", "--uts", "--mount", "sh", "-euc", script]
    argv += ["sh", sys.executable, "-m", "doit", *words]
    own = {**bench.environment(), **OTHERWISE, "TMPDIR": str(bench.output.parent / "tmp")}
    return run_program(argv, own, timeout_s=600)


def another_day(work: Path) -> str:
    """Shell words after which every program of this mount namespace has another date.

    Through /etc, because the pipeline hands no variable of its caller down to its programs.
    (libfaketime wants /dev/shm, which the namespaces of a build have not.)
    """
    source, library = work / "later.c", work / "later.so"
    source.write_text(LATER_C % (LATER_DAYS * 86400))
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    upper, own = work / "etc", work / "etc.work"
    options = f"lowerdir=/etc,upperdir={upper},workdir={own}"
    return (
        f"mkdir {upper} {own}; mount -t overlay -o {options} overlay /etc; "
        f"echo {library} > /etc/ld.so.preload; date +%s > {work}/date"
    )


def record_of(bench: Workshop) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (bench.output / "guests" / GUEST / "stages.json").read_text()
    )
    return found


def name_difference(one: Workshop, other: Workshop, stage: str) -> str:
    """Which files differ, down to the entries of the tar where the stage has one."""
    mine, theirs = (record_of(bench)[stage] for bench in (one, other))
    names = [name for name in mine["files"] if mine["files"][name] != theirs["files"].get(name)]
    lines = [f"{stage}: {', '.join(names)}"]
    for name in (name for name in names if name.endswith(".tar")):
        trees = [
            bench.output / "store" / stage / record["fingerprint"][:32] / name
            for bench, record in ((one, mine), (other, theirs))
        ]
        if shutil.which("diffoscope"):
            lines.append(
                subprocess.run(["diffoscope", *trees], capture_output=True, text=True).stdout
            )
        entries = [list_entries(tree) for tree in trees]
        lines += sorted({path for path, _ in entries[0].items() ^ entries[1].items()})
    return "\n".join(lines)


def list_entries(tree: Path) -> dict[str, tuple[Any, ...]]:
    with tarfile.open(tree) as archive:
        return {
            member.name: (
                *(member.mode, member.uid, member.gid, member.mtime, member.linkname),
                (archive.extractfile(member).read() if member.isfile() else b""),  # type: ignore[union-attr]
            )
            for member in archive
        }


@in_turn("bytes", "without a network, on another day")
def test_a_locked_build_without_network_gives_the_same_bytes(
    workshop: Workshop, locked: Workshop
) -> None:
    done = without_network(locked, "build", f"name={GUEST}", "locked=yes", "offline=yes")
    print(done.stdout)
    assert done.returncode == 0
    assert socket.gethostname() != "elsewhere"
    days = (int((locked.output.parent / "date").read_text()) - time.time()) / 86400
    assert LATER_DAYS - 1 < days <= LATER_DAYS
    ours, theirs = record_of(workshop), record_of(locked)
    for stage in COMPARED:
        same = ours[stage]["files"] == theirs[stage]["files"]
        assert same, name_difference(workshop, locked, stage)
    mine, other = (bench.output / "guests" / GUEST for bench in (workshop, locked))
    for name in ("FSVERITY", "manifest", "known_hosts", "vmlinuz", "initrd.img"):
        assert (mine / name).read_bytes() == (other / name).read_bytes(), name
    for suffix in ("cfg", "xm.unsupported", "xml"):
        text = (other / f"{GUEST}.{suffix}").read_text().replace(str(other), str(mine))
        assert text == (mine / f"{GUEST}.{suffix}").read_text()


@pytest.fixture
def newer(workshop: Workshop, tmp_path: Path) -> Path:
    """A folder with trixie's e2fsprogs, each program run with its own libc."""
    folder = tmp_path / "newer"
    folder.mkdir()
    record = json.loads((workshop.built("trixie") / "stages.json").read_text())["rootfs"]
    tar = workshop.output / "store/rootfs" / record["fingerprint"][:32] / "rootfs.tar"
    wanted = ["./usr/lib64", "./usr/lib/x86_64-linux-gnu", "./usr/sbin"]
    subprocess.run(["tar", "-C", folder, "-xf", tar, *wanted], check=True)
    libraries = folder / "usr/lib/x86_64-linux-gnu"
    for name in ("mke2fs", "debugfs", "dumpe2fs", "tune2fs", "resize2fs", "e2fsck"):
        program = folder / name
        program.write_text(
            f"#!/bin/sh\nexec {libraries}/ld-linux-x86-64.so.2 "
            f'--argv0 {name} --library-path {libraries} {folder}/usr/sbin/{name} "$@"\n'
        )
        program.chmod(0o755)
    return folder


@in_turn("build", "a newer e2fsprogs")
def test_a_newer_e2fsprogs_writes_the_same_golden_image_and_the_same_disk(
    workshop: Workshop, newer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = workshop.built(GUEST) / "disk.img"
    output = tmp_path / "output"
    output.mkdir()
    subprocess.run(["cp", "-al", workshop.output / "store", output / "store"], check=True)
    subprocess.run(["cp", "-a", workshop.output / "identity", output / "identity"], check=True)
    shutil.rmtree(output / "store/image")
    said = [
        subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stderr
        for program in ("/usr/sbin/mke2fs", newer / "mke2fs")
    ]
    assert said[0].split()[1] != said[1].split()[1], "both are the same version"
    monkeypatch.setattr(process, "PATH", f"{newer}:{process.PATH}")
    before = os.umask(0o022)
    project = Project(ROOT, output, workshop.guests)
    spec = load_all(project.guests)[GUEST]
    recipe = Recipe(project, STAGES)
    image = recipe.build("image", spec).folder / "golden.img"
    volume = recipe.build("volume", spec).folder / "disk.img"
    os.umask(before)
    room = make_room(tmp_path / "room")
    ask = ["sh", "-c", "for name in mke2fs debugfs tune2fs resize2fs e2fsck; do $name -V; done"]
    for walled in (caged_reader(ask), caged(ask, room=room)):
        told = process.run(walled, accept=(0, 1)).count(said[1].split()[1])
        assert told >= 5, "the cage runs other programs than the caller's"
    assert digest_file(image) == record_of(workshop)["image"]["files"]["golden.img"]["sha256"]
    assert digest_file(volume) == digest_file(disk)


def test_without_network_what_is_not_kept_is_named(locked: Workshop) -> None:
    lock = json.loads((locked.guests / f"{GUEST}.lock.json").read_text())
    gone = next(one for one in lock["packages"] if one["name"] == "bash")
    (locked.output / "cache/debs" / gone["sha256"]).unlink()
    done = without_network(locked, "build", f"name={GUEST}", "locked=yes", "offline=yes")
    assert done.returncode == 3, done.stdout
    assert "offline=yes: bash_" in done.stdout
    assert "Traceback" not in done.stdout
    assert not list((locked.output / "scratch").iterdir())


def test_without_network_and_snapshot_one_message_says_what_is_missing(locked: Workshop) -> None:
    shutil.rmtree(locked.output / "locked")
    done = without_network(locked, "build", f"name={GUEST}", "locked=yes", "offline=yes")
    assert done.returncode == 3, done.stdout
    assert "the locked state of its mirror is not kept here" in done.stdout


def test_a_lock_that_is_missing_or_broken_is_refused(locked: Workshop) -> None:
    path = locked.guests / f"{GUEST}.lock.json"
    path.write_text('{"form": 1')
    broken = locked.doit("build", f"name={GUEST}", "locked=yes")
    assert broken.code == 2
    assert "is not a lock" in broken.said
    path.unlink()
    missing = locked.doit("build", f"name={GUEST}", "locked=yes")
    assert missing.code == 2
    assert f"doit lock name={GUEST}" in missing.said


def test_the_table_of_golden_digests_is_whole() -> None:
    for fingerprint, digests in read_table().items():
        assert len(fingerprint) == 64
        assert digests
        assert all(len(digest) == 64 for digest in digests.values())


@pytest.mark.matrix
def test_debootstrap_gives_the_same_bytes_twice(workshop: Workshop, tmp_path: Path) -> None:
    found = []
    for name in ("one", "other"):
        output = tmp_path / name
        output.mkdir()
        (output / "cache").symlink_to(workshop.output / "cache")
        bench = Workshop(output, workshop.guests)
        bench.doit("base", f"name={GUEST}", "bootstrap=debootstrap", ends=0)
        tars = (output / "store/base").glob("*/base.tar")  # those of the other guests, too
        found.append({path.parent.name: digest_file(path) for path in tars})
    assert found[0] == found[1]
