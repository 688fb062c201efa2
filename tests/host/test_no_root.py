"""An ordinary user with subordinate ids builds a whole guest, and the same bytes as root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.workshop import ROOT, Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build]

USER = f"domu-{os.getpid()}"
SYSTEM_PYTHON = "/usr/bin/python3"
RUNUSER = shutil.which("runuser", path="/usr/sbin:/sbin") or "runuser"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A new user's home, without any right; the user is gone afterwards."""
    require(os.geteuid() == 0, "root makes the ordinary user")
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", USER], check=True)
    folder = Path("/home") / USER
    try:
        yield folder
    finally:
        subprocess.run(["userdel", "--remove", USER], check=True, capture_output=True)
        assert not folder.exists()


def as_user(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell line in the user's home, with nothing of ours in its environment."""
    kept = {key: os.environ[key] for key in os.environ if key.startswith(("SSL_", "PIP_"))}
    return subprocess.run(
        [RUNUSER, "-u", USER, "--", "sh", "-c", f'cd "$HOME" && {script}'],
        env={
            **kept,
            "HOME": f"/home/{USER}",
            "PATH": "/usr/bin:/bin",
            "PYTHON": SYSTEM_PYTHON,
            **environment,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def files_of(folder: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "stages.json").read_text())[stage]["files"]
    return {name: facts["sha256"] for name, facts in found.items()}


def test_an_ordinary_user_builds_the_same_golden_image_as_root(
    home: Path, workshop: Workshop
) -> None:
    assert shutil.which("sudo", path="/usr/bin:/bin") is None, "this test is about having no sudo"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(home / "domu")], check=True)
    snapshot = workshop.built("test-drbd").parent.parent / "store" / "mirror"
    shutil.copytree(snapshot, home / "domu/output/store/mirror", copy_function=shutil.copy2)
    subprocess.run(["chown", "-R", f"{USER}:", str(home)], check=True)
    done = as_user("cd domu && ./doit build name=test-drbd")
    print(done.stdout)
    assert done.returncode == 0
    ours, theirs = workshop.output / "guests/test-drbd", home / "domu/output/guests/test-drbd"
    for stage in ("kernel", "rootfs", "image"):
        mine, users = files_of(ours, stage), files_of(theirs, stage)
        assert mine == users, f"{stage}: root and user made different files"
    disk = theirs / "disk.img"
    assert disk.stat().st_uid != 0
    owner = as_user(f"/usr/sbin/debugfs -R 'stat /etc/shadow' {disk} 2>/dev/null").stdout
    assert "User:     0   Group:    42" in owner


def test_without_subordinate_ids_one_clear_message_says_so(home: Path) -> None:
    lines = Path("/etc/subuid").read_text().splitlines()
    first, count = next(line for line in lines if line.startswith(f"{USER}:")).split(":")[1:]
    ids = f"{first}-{int(first) + int(count) - 1}"
    subprocess.run(["usermod", "--del-subuids", ids, USER], check=True)
    done = as_user("cd domu && ./doit build name=test-drbd packages=less")
    print(done.stdout)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert "this user has no subordinate ids" in done.stdout
    assert not list((home / "domu/output/scratch").iterdir())
