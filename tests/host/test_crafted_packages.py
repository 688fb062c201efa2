"""Crafted packages in the unpacker: nothing outside the tree changes, one line says what is wrong.

No cage here: what is shown is that the unpacker itself does not leave the tree. Each package is
brought in by a process of its own, with a deadline and little memory.
"""

import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from pipeline.bootstrap.database import (
    add_packages,
    begin_database,
    read_control,
    remove_control_files,
    write_control_files,
    write_package,
)
from pipeline.bootstrap.deb import read_deb, read_members
from pipeline.bootstrap.diversions import apply_diversions
from pipeline.bootstrap.order import Order
from pipeline.bootstrap.skeleton import forbid_services, lay_out, mark_automatic, tidy
from pipeline.bootstrap.unpack import Tree
from pipeline.errors import PipelineError
from tests.conftest import require
from tests.crafted_packages import PLAIN, deb, file, folder
from tests.host.leftover_table import LEFT
from tests.host.package_table import RIGHT, WRONG

DEADLINE_S = 60
MEMORY_BYTES = 320 << 20  # beside what the test has already
ORDER = Order(
    work="",
    tar="",
    delivery=-1,
    arch="amd64",
    waves=(),
    automatic=(),
    sources=("deb http://mirror/ x main",),
    links=(),
)
BASE = deb(
    *(folder(name) for name in (b"./var", b"./run", b"./run/lock")),
    file(b"./etc/passwd", b"_apt:x:42:65534::/:/bin/false\n"),
    control=PLAIN.replace(b"evil", b"base"),
)


@pytest.fixture(autouse=True)
def as_root() -> None:
    require(os.geteuid() == 0, "packages have owners")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A machine to be kept: what packages would like to change, beside the tree and above it."""
    witness = tmp_path / "host"
    for name in ("etc/profile.d", "lists/partial", "info", "triggers", "empty", "sub/sub"):
        (witness / name).mkdir(parents=True)
    for name in ("shadow", "etc/shadow", "status", "sub/lock", "lock", "File", "Unincorp", "x"):
        (witness / name).write_text("root:secret\n")
        (witness / name).chmod(0o640)
    (tmp_path / "room").mkdir()
    yield witness
    # a tree may be deeper than Python can remove
    subprocess.run(["rm", "-rf", tmp_path / "room"], check=True)


def seen(path: Path, *, but: Path) -> dict[str, tuple[object, ...]]:
    """All that is below a folder, bytes and facts, without one folder."""
    found: dict[str, tuple[object, ...]] = {}
    for place, folders, files in os.walk(path):
        for name in [".", *files, *folders]:
            entry = Path(place, name)
            status = entry.lstat()
            content = entry.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            if not entry.is_relative_to(but) and entry != but.parent:
                found[str(entry)] = (*status[:6], status.st_mtime_ns, content)
        folders[:] = [name for name in folders if Path(place, name) != but]
    return found


def bring_in(tree: Path, debs: Iterable[str], leave: Callable[[], object] | None) -> None:
    """The steps of bootstrap.inside, in its order, without the scripts; `leave` is one."""
    lay_out(tree, ORDER)
    begin_database(tree)
    mark_automatic(tree, ["base"], "amd64")
    packages = {}
    with Tree(tree) as place:
        for count, name in enumerate(debs):
            if count == 1:
                forbid_services(tree)
            if count == 1 and leave is not None:
                leave()
                forbid_services(tree)
            archive = read_deb(tree.with_name(name), name=name, installed_kib=100)
            control = read_control(archive, name=name, version="1", architecture="amd64")
            members = tuple(read_members(archive.files, name=name))
            for member in members:
                place.place(member, archive.files, package=name, pending=control.conffiles)
            write_package(tree, control, members, archive.files)
            place.settle()
            add_packages(tree, {name: (control, members)})
            packages[name] = (control, members)
            apply_diversions(tree, packages)
            write_control_files(tree, control)
            remove_control_files(tree)
    tidy(tree)


def in_a_process(work: Callable[[], None]) -> str:
    """What an error says, "" when there is none; fails for a traceback, a hang, or much memory."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(DEADLINE_S)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
        answer = {"error": "", "traceback": ""}
        try:
            work()
        except PipelineError as error:
            answer["error"] = str(error)
        finally:
            if sys.exc_info()[0] is not None:
                answer["traceback"] = traceback.format_exc()[-20_000:]
            os.write(writer, json.dumps(answer).encode())
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"it ended with {status}: {DEADLINE_S} s are over?"
    answer = json.loads(said)
    assert not answer["traceback"], answer["traceback"]
    assert "\n" not in answer["error"], "more than one line"
    return str(answer["error"])


def attempt(
    host: Path, debs: dict[str, bytes], leave: Callable[[Path, Path], object] | None = None
) -> tuple[Path, str]:
    tree = host.parent / "room/tree"
    for name, content in debs.items():
        tree.with_name(name).write_bytes(content)
    before = seen(host.parent, but=host.parent / "room")
    error = in_a_process(lambda: bring_in(tree, debs, leave and (lambda: leave(tree, host))))
    assert seen(host.parent, but=host.parent / "room") == before
    assert sorted(os.listdir(tree.parent)) == sorted([*debs, "tree"])
    return tree, error


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_package_gives_a_right_tree(host: Path, name: str) -> None:
    make, check = RIGHT[name]
    tree, error = attempt(host, {"base": BASE, "evil": make(os.fsencode(host))})
    assert error == ""
    assert check(tree)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_package_is_one_line_and_changes_nothing_outside(host: Path, name: str) -> None:
    make, reason = WRONG[name]
    _, error = attempt(host, {"base": BASE, "evil": make(os.fsencode(host))})
    assert re.search(reason, error), error
    assert "package evil" in error


@pytest.mark.parametrize("name", LEFT)
def test_what_a_script_left_in_the_tree_leads_nobody_out(host: Path, name: str) -> None:
    leave, reason = LEFT[name]
    coming = deb(
        file(b"./usr/lib/next"),
        file(b"./etc/next.conf"),
        control=PLAIN.replace(b"evil", b"next"),
        files={"conffiles": b"/etc/next.conf\n", "triggers": b"interest next\nactivate /usr\n"},
    )
    tree, error = attempt(host, {"base": BASE, "next": coming}, leave)
    assert re.search(reason, error), error
    assert error or tree.is_dir()


def test_the_table_is_large() -> None:
    assert len(RIGHT) + len(WRONG) + len(LEFT) > 200
