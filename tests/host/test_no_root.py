"""An ordinary user with subordinate ids builds a whole guest, and the same bytes as root.

The checkout's path has letters that sources.list, PATH and shells take apart.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

from pipeline.files import digest_file
from tests.conftest import require
from tests.other_day import OTHERWISE, elsewhere, keep_locked
from tests.turns import in_turn
from tests.workshop import ROOT, Workshop, run_program

pytestmark = [pytest.mark.integration, pytest.mark.build]

WHOLE = "everywhere"
USER = f"domu-{os.getpid()}"
CHECKOUT = "Xen Gäste, ñ (1) & $x; [a]"
SYSTEM_PYTHON = "/usr/bin/python3"
RUNUSER = shutil.which("runuser", path="/usr/sbin:/sbin") or "runuser"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A new user's home with a clone, without any right; the user is gone afterwards."""
    require(os.geteuid() == 0, "root makes the ordinary user")
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", USER], check=True)
    folder = Path("/home") / USER
    try:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / CHECKOUT)], check=True)
        subprocess.run(["chown", "-R", f"{USER}:", str(folder)], check=True)
        yield folder
    finally:
        subprocess.run(["userdel", "--remove", USER], check=True, capture_output=True)
        assert not folder.exists()


@pytest.fixture(scope="module")
def ready(home: Path) -> Path:
    """The same home, whose clone has its libraries."""
    done = as_user(f"cd {quote(CHECKOUT)} && ./doit list")
    assert done.returncode == 0, done.stdout
    return home


def as_user(
    script: str, *, before: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """A shell line in the user's home, with nothing of ours in its environment."""
    kept = {key: os.environ[key] for key in os.environ if key.startswith(("SSL_", "PIP_"))}
    own = {"HOME": f"/home/{USER}", "PATH": "/usr/bin:/bin", "PYTHON": SYSTEM_PYTHON}
    words = [*before, RUNUSER, "-u", USER, "--", "sh", "-c", f'cd "$HOME" && {script}']
    return run_program(words, {**kept, **own, **environment}, cwd=Path.cwd(), timeout_s=400)


def files_of(folder: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "stages.json").read_text())[stage]["files"]
    return {name: facts["sha256"] for name, facts in found.items()}


@in_turn("bytes", "an ordinary user's")
def test_an_ordinary_user_builds_the_same_golden_image_as_root(
    home: Path, workshop: Workshop
) -> None:
    assert shutil.which("sudo", path="/usr/bin:/bin") is None, "this test is about having no sudo"
    snapshot = workshop.built("test-drbd").parent.parent / "store" / "mirror"
    shutil.copytree(snapshot, home / CHECKOUT / "output/store/mirror", copy_function=shutil.copy2)
    subprocess.run(["chown", "-R", f"{USER}:", str(home)], check=True)
    closed = as_user("test ! -r /dev/loop0 && test ! -w /dev/loop-control && test ! -r /dev/kvm")
    assert closed.returncode == 0, "this user has what a CI job has not"
    done = as_user(f"cd {quote(CHECKOUT)} && ci/build test-drbd")
    print(done.stdout)
    assert done.returncode == 0
    ours, theirs = workshop.output / "guests/test-drbd", home / CHECKOUT / "output/guests/test-drbd"
    for stage in ("kernel", "rootfs", "image"):
        mine, users = files_of(ours, stage), files_of(theirs, stage)
        assert mine == users, f"{stage}: root and user made different files"
    disk = theirs / "disk.img"
    assert disk.stat().st_uid != 0
    owner = as_user(
        f"/usr/sbin/debugfs -R 'stat /etc/shadow' {quote(str(disk))} 2>/dev/null"
    ).stdout
    assert "User:     0   Group:    42" in owner


@in_turn("bytes", "an ordinary user's")
def test_an_ordinary_user_builds_the_same_whole_disk_as_root_on_another_day(
    ready: Path, workshop: Workshop, tmp_path: Path
) -> None:
    """Out of what root's lock keeps, with root's identity of the guest: the disk is that guest."""
    ours = workshop.built(WHOLE)
    guests, work = tmp_path / "guests", ready / "otherwise"
    shutil.copytree(workshop.guests, guests)
    Workshop(workshop.output, guests).doit("lock", f"name={WHOLE}", ends=0)
    shutil.copy(guests / f"{WHOLE}.lock.json", ready / CHECKOUT / "guests")
    keep_locked(workshop, work / "output")
    subprocess.run(["chown", "-R", f"{USER}:", str(ready)], check=True)
    done = as_user(
        f"cd {quote(CHECKOUT)} && ./doit build name={WHOLE} locked=yes offline=yes",
        before=elsewhere(work),
        DOMU_OUTPUT=str(work / "output"),
        **OTHERWISE,
    )
    print(done.stdout)
    assert done.returncode == 0
    theirs = work / "output/guests" / WHOLE
    assert (theirs / "disk.img").stat().st_uid != 0
    digests = [digest_file(folder / "disk.img") for folder in (ours, theirs)]
    print(f"{WHOLE}: sha256 of its disk {' '.join(digests)}")
    assert digests[0] == digests[1]


def test_an_ordinary_users_cage_holds_as_roots_does(ready: Path) -> None:
    """The attempts of tests/host/test_cage.py; what they aim at belongs to that very user."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        prepare = (
            "mkdir room witness && echo mine > witness/file && cp -r /proc/sys/vm/swappiness ."
        )
        attempt = f".venv/bin/python -m tests.host.cage_attempts ~/room ~/witness {port}"
        done = as_user(f"{prepare} && cd {quote(CHECKOUT)} && {attempt}")
        assert done.returncode == 0, done.stdout
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert os.listdir(ready / "witness") == ["file"], done.stdout
    assert (ready / "witness/file").read_text() == "mine\n"
    assert (ready / "witness/file").stat().st_mode & 0o7777 == 0o644
    assert (ready / "swappiness").read_text() == Path("/proc/sys/vm/swappiness").read_text()


@in_turn("bytes", "an ordinary user's")
def test_what_a_ci_job_keeps_is_the_artifact_the_events_and_the_logs(home: Path) -> None:
    kept = home / CHECKOUT / "ci-output"
    with tarfile.open(kept / "test-drbd.tar") as archive:
        names = {Path(name).name for name in archive.getnames()}
    assert {"disk.img", "vmlinuz", "initrd.img", "test-drbd.cfg", "SHA256SUMS"} <= names
    events = [json.loads(line) for line in (kept / "events.jsonl").read_text().splitlines()]
    built = {one["stage"] for one in events if one.get("outcome") == "built"}
    assert built >= {"base", "kernel", "rootfs", "image", "volume", "config"}
    assert all(one["seconds"] > 0 for one in events if one.get("outcome") == "built")
    assert events[-1]["event"] == "run ended" and events[-1]["exit_code"] == 0
    assert (kept / "test-drbd-logs.tar.gz").is_file()


def test_where_user_namespaces_are_forbidden_one_message_says_so(home: Path) -> None:
    """Really forbidden: inside a user namespace whose own limit is none."""
    limit = "echo 0 > /proc/sys/user/max_user_namespaces"
    within = [sys.executable, str(ROOT / "tests/elements/user_namespace.py")]
    done = as_user(
        f"cd {quote(CHECKOUT)} && ./doit build name=test-drbd packages=less",
        before=[*within, "sh", "-c", f'{limit} && exec "$@"', "sh"],
    )
    print(done.stdout)
    assert done.returncode == 3
    assert "Traceback" not in done.stdout
    assert done.stdout.count("error: ") == 1
    assert "user namespaces are forbidden on this machine: user.max_user_namespaces is 0" in (
        done.stdout
    )
    assert "sysctl user.max_user_namespaces=10000" in done.stdout
    assert not list((home / CHECKOUT / "output/scratch").iterdir())


def test_without_subordinate_ids_one_clear_message_says_so(home: Path) -> None:
    lines = Path("/etc/subuid").read_text().splitlines()
    first, count = next(line for line in lines if line.startswith(f"{USER}:")).split(":")[1:]
    ids = f"{first}-{int(first) + int(count) - 1}"
    subprocess.run(["usermod", "--del-subuids", ids, USER], check=True)
    done = as_user(f"cd {quote(CHECKOUT)} && ./doit build name=test-drbd packages=less")
    print(done.stdout)
    assert done.returncode == 3
    assert "Traceback" not in done.stdout
    assert "this user has no subordinate ids" in done.stdout
    assert not list((home / CHECKOUT / "output/scratch").iterdir())
