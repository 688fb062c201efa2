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
from tests.other_day import LATER_DAYS, OTHERWISE, elsewhere, keep_locked
from tests.turns import in_turn
from tests.workshop import ROOT, Workshop, run_program

pytestmark = [pytest.mark.integration, pytest.mark.build]

GUEST = "test-drbd"
COMPARED = ("base", "kernel", "rootfs", "image")
WHOLE = "everywhere"


@pytest.fixture
def locked(
    workshop: Workshop, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Workshop]:
    """A copy of the guests with a lock, and an empty output that holds only what the lock keeps."""
    require(os.geteuid() == 0, "a network namespace without interfaces")
    guests, output = tmp_path / "guests", tmp_path / "elsewhere" / "output"
    shutil.copytree(workshop.guests, guests)
    here = Workshop(workshop.output, guests)
    here.doit("lock", f"name={getattr(request, 'param', GUEST)}", ends=0)
    keep_locked(workshop, output)
    (output.parent / "tmp").mkdir()
    yield Workshop(output, guests)


def without_network(bench: Workshop, *words: str) -> subprocess.CompletedProcess[str]:
    """doit in a network namespace without interfaces, as another machine would run it."""
    argv = [*elsewhere(bench.output.parent), sys.executable, "-m", "doit", *words]
    own = {**bench.environment(), **OTHERWISE, "TMPDIR": str(bench.output.parent / "tmp")}
    return run_program(argv, own, timeout_s=600)


def record_of(bench: Workshop, guest: str = GUEST) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (bench.output / "guests" / guest / "stages.json").read_text()
    )
    return found


def name_difference(one: Workshop, other: Workshop, stage: str, guest: str) -> str:
    """Which files differ, down to the entries of the tar where the stage has one."""
    mine, theirs = (record_of(bench, guest)[stage] for bench in (one, other))
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
@pytest.mark.parametrize(("locked", "guest"), [(GUEST, GUEST), (WHOLE, WHOLE)], indirect=["locked"])
def test_a_locked_build_without_network_gives_the_same_bytes(
    workshop: Workshop, locked: Workshop, guest: str
) -> None:
    done = without_network(locked, "build", f"name={guest}", "locked=yes", "offline=yes")
    print(done.stdout)
    assert done.returncode == 0
    assert socket.gethostname() != "elsewhere"
    days = (int((locked.output.parent / "date").read_text()) - time.time()) / 86400
    assert LATER_DAYS - 1 < days <= LATER_DAYS
    workshop.built(guest)
    ours, theirs = record_of(workshop, guest), record_of(locked, guest)
    for stage in COMPARED:
        same = ours[stage]["files"] == theirs[stage]["files"]
        assert same, name_difference(workshop, locked, stage, guest)
    mine, other = (bench.output / "guests" / guest for bench in (workshop, locked))
    boot = ("kernel.json",) if guest == WHOLE else ("vmlinuz", "initrd.img")
    for name in ("FSVERITY", "manifest", "known_hosts", *boot):
        assert (mine / name).read_bytes() == (other / name).read_bytes(), name
    digests = [digest_file(folder / "disk.img") for folder in (mine, other)]
    print(f"{guest}: sha256 of its disk {' '.join(digests)}")
    assert digests[0] == digests[1]
    for suffix in ("cfg", "xm.unsupported", "xml"):
        text = (other / f"{guest}.{suffix}").read_text().replace(str(other), str(mine))
        assert text == (mine / f"{guest}.{suffix}").read_text()


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
