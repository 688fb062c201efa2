"""A lock comes from other machines: what it says names no file here that it should not.

On e44a75a a digest and a name with slashes linked any file of the host to any place.
"""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError, VerificationError
from pipeline.lockfile import (
    PUBLISHED_LOCK,
    Lock,
    LockedPackage,
    _copied,
    list_locks,
    read_lock,
    render_lock,
)
from pipeline.project import Project
from pipeline.store.store import BuildInfo

DIGEST = "a" * 64
RIGHT: dict[str, Any] = {
    "form": 1,
    "identity": DIGEST,
    "sources": {"bookworm": DIGEST, "bookworm-security": "b" * 64},
    "packages": [
        {
            "name": "libstdc++6",
            "version": "1:12.2.0-14+deb12u1~bpo1",
            "architecture": "amd64",
            "size": 1234,
            "sha256": DIGEST,
        }
    ],
    "unknown": ["own-tool 1.0"],
}
OUT = "../../../host/shadow"


def of_package(**changes: object) -> dict[str, Any]:
    table = copy.deepcopy(RIGHT)
    table["packages"][0] |= changes
    return table


WRONG: dict[str, Any] = {
    "no table": [],
    "a word": "lock",
    "nothing": None,
    "a number": 7,
    "no form": {key: value for key, value in RIGHT.items() if key != "form"},
    "another form": RIGHT | {"form": 2},
    "a form of text": RIGHT | {"form": "1" * 1000},
    "no packages": {key: value for key, value in RIGHT.items() if key != "packages"},
    "packages of text": RIGHT | {"packages": "abc"},
    "packages of numbers": RIGHT | {"packages": [1]},
    "packages that are lists": RIGHT | {"packages": [[1, 2]]},
    "packages that are none": RIGHT | {"packages": None},
    "identity that leads out": RIGHT | {"identity": f"{OUT}/"},
    "identity that is absolute": RIGHT | {"identity": "/etc/passwd"},
    "identity that is short": RIGHT | {"identity": "a" * 32},
    "identity that is none": RIGHT | {"identity": None},
    "sources that are a list": RIGHT | {"sources": ["bookworm"]},
    "a source's digest that is a path": RIGHT | {"sources": {"bookworm": OUT}},
    "a source's digest that is a table": RIGHT | {"sources": {"bookworm": {}}},
    "unknown of one word": RIGHT | {"unknown": ["tool"]},
    "unknown of three words": RIGHT | {"unknown": ["tool 1 2"]},
    "unknown with a path": RIGHT | {"unknown": ["../tool 1"]},
    "unknown of numbers": RIGHT | {"unknown": [1]},
    "unknown that is none": RIGHT | {"unknown": None},
    "name that leads out": of_package(name="../../../host/planted"),
    "name that is absolute": of_package(name="/etc/passwd"),
    "name with NUL": of_package(name="a\0b"),
    "name with a line end": of_package(name="a\nb"),
    "name with an escape": of_package(name="\x1b[2J"),
    "name of 5 KB": of_package(name="a" * 5000),
    "name that is empty": of_package(name=""),
    "name that is a number": of_package(name=1),
    "name that is a list": of_package(name=["a"]),
    "version with a slash": of_package(version="1/../../../x"),
    "version with blanks": of_package(version="1 2"),
    "version that is none": of_package(version=None),
    "architecture with a slash": of_package(architecture="amd64/../x"),
    "digest that leads out": of_package(sha256=OUT),
    "digest in capitals": of_package(sha256="A" * 64),
    "digest of 63": of_package(sha256="a" * 63),
    "digest with a line end": of_package(sha256=f"{DIGEST}\n"),
    "digest that is a number": of_package(sha256=1),
    "size that is negative": of_package(size=-60),
    "size of 0": of_package(size=0),
    "size of text": of_package(size="1234"),
    "size that is true": of_package(size=True),
    "size with a fraction": of_package(size=1.5),
    "size that is huge": of_package(size=10**30),
    "one key more": of_package(url="http://x"),
    "one key less": RIGHT | {"packages": [{"name": "a"}]},
}
TEXTS: dict[str, bytes] = {
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe{}",
    "empty": b"",
    "numbers of 5000 digits": b'{"form": ' + b"9" * 5000 + b"}",
    "nested 100 000 deep": b"[" * 100_000,
    "17 MiB": b" " * (17 << 20),
}


def write(project: Project, table: object) -> Path:
    path = project.guests / "ok.lock.json"
    path.write_text(json.dumps(table))
    return path


def refused(project: Project) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_lock(project, "ok")
    error = caught.value
    assert "ok.lock.json is not a lock (" in error.brief and "doit lock name=ok" in error.hint
    assert "\n" not in error.brief and len(error.brief) < 300
    return error


def test_a_right_lock_is_read(project: Project) -> None:
    write(project, RIGHT)
    package = LockedPackage("libstdc++6", "1:12.2.0-14+deb12u1~bpo1", "amd64", 1234, DIGEST)
    expected = Lock(DIGEST, RIGHT["sources"], (package,), ("own-tool 1.0",))
    assert read_lock(project, "ok") == expected


@pytest.mark.parametrize("name", WRONG)
def test_a_lock_with_a_wrong_word_is_no_lock(project: Project, name: str) -> None:
    write(project, WRONG[name])
    refused(project)


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_json_is_no_lock(project: Project, name: str) -> None:
    (project.guests / "ok.lock.json").write_bytes(TEXTS[name])
    refused(project)


@pytest.mark.parametrize(
    "make",
    [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")],
    ids=["folder", "FIFO", "device"],
)
def test_what_is_no_file_is_no_lock_and_not_waited_for(
    project: Project, make: Callable[[Path], object]
) -> None:
    make(project.guests / "ok.lock.json")
    refused(project)


def test_no_lock_is_said(project: Project) -> None:
    with pytest.raises(UsageError, match="ok has no lock"):
        read_lock(project, "ok")


@pytest.mark.parametrize("name", ["link", "../secret", "folder/inner", "fifo"])
def test_a_kept_state_is_copied_as_plain_files_of_its_own_folder(
    project: Project, name: str
) -> None:
    kept, secret = project.output / "locked/a", project.output / "locked/secret"
    (kept / "folder").mkdir(parents=True)
    secret.write_text("secret")
    (kept / "folder/inner").write_text("inner")
    (kept / "link").symlink_to(secret)
    os.mkfifo(kept / "fifo")
    info = BuildInfo("mirror", DIGEST, 1, {}, {}, files={name: {"size": 6, "sha256": DIGEST}})
    with pytest.raises(VerificationError, match="no plain file"), _copied(project, kept, info):
        pass
    assert not list((project.output / "scratch").iterdir())


def test_a_copy_is_no_second_name_of_what_was_copied(project: Project) -> None:
    kept = project.output / "store/mirror/a"
    kept.mkdir(parents=True)
    (kept / "InRelease-main").write_text("signed")
    info = BuildInfo("mirror", DIGEST, 1, {}, {}, files={"InRelease-main": {}})
    with _copied(project, kept, info) as scratch:
        assert (scratch / "InRelease-main").read_text() == "signed"
        assert (kept / "InRelease-main").stat().st_nlink == 1


def test_a_published_version_keeps_what_its_lock_names(project: Project) -> None:
    lock = Lock("a" * 64, {}, (LockedPackage("less", "590-2", "amd64", 5, "b" * 64),))
    folder = project.published / "web1/20261124T193000Z-1f2e3d4c"
    folder.mkdir(parents=True)
    (folder / PUBLISHED_LOCK).write_bytes(render_lock(lock))
    assert list(list_locks(project)) == [(f"published web1/{folder.name}", lock)]
    (folder / PUBLISHED_LOCK).write_bytes(b"{")
    with pytest.raises(UsageError, match="not a lock") as caught:
        list(list_locks(project))
    assert "publish it again" in caught.value.hint
