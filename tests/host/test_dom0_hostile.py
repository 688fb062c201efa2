"""Guests whose root wants the host: `doit refresh` of their file systems changes nothing outside.

Each is a real ext4 file system, made by mke2fs from a tree, and mounted by the word itself.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.dom0 import guest_root
from pipeline.namespace import is_root
from tests.conftest import ROOT, require
from tests.host.dom0_bench import LifeBench, kept_as_it_was
from tests.host.small_artifact import ABIS, DISK_MIB, is_clean, modules_in

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
NEW, OLD = ABIS[1], ABIS[0]
Change = Callable[[Path, LifeBench], None]


@pytest.fixture(scope="module")
def module_bench(tmp_path_factory: pytest.TempPathFactory) -> LifeBench:
    require(is_root(), "mounts a file system")
    bench = LifeBench(tmp_path_factory.mktemp("hostile") / "work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOMU_ROOT", str(bench.root))
        bench.demand("install", unproven="yes")
    return bench


@pytest.fixture
def bench(module_bench: LifeBench, monkeypatch: pytest.MonkeyPatch) -> Iterator[LifeBench]:
    monkeypatch.setenv("DOMU_ROOT", str(module_bench.root))
    with kept_as_it_was(module_bench, module_bench.work.with_name("aside")):
        yield module_bench


def make_guest(bench: LifeBench, tree: Path, *more: str) -> None:
    """The guest's file system is this tree now, as if its root had made it so."""
    disk = bench.disk()
    make = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", *more, "-d", str(tree), str(disk)]
    disk.unlink()
    try:
        subprocess.run([*make, f"{DISK_MIB}M"], check=True)
    finally:  # pytest's own removal recurses
        subprocess.run(["rm", "-rf", tree], check=True)


def debugfs(disk: Path, *lines: str) -> str:
    script = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(
        ["debugfs", "-w", disk], input=script, text=True, check=True, capture_output=True
    )
    return done.stdout


def plain_tree(folder: Path) -> Path:
    """What a Debian guest has: /lib leads to usr/lib."""
    (folder / f"usr/lib/modules/{OLD}/kernel").mkdir(parents=True)
    (folder / f"usr/lib/modules/{OLD}/modules.dep").write_text("old\n")
    (folder / "lib").symlink_to("usr/lib")
    (folder / "etc").mkdir()
    return folder


def put(path: str, make: Callable[[Path], object]) -> Change:
    """A change: what is at a path of the tree is another thing."""

    def change(tree: Path, bench: LifeBench) -> None:
        target = tree / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        make(target)

    return change


def link_to_host(path: str, below: str = "") -> Change:
    def change(tree: Path, bench: LifeBench) -> None:
        put(path, lambda at: at.symlink_to(bench.witness / below))(tree, bench)

    return change


def link(path: str, target: str) -> Change:
    return put(path, lambda at: at.symlink_to(target))


def fifo(path: str) -> Change:
    return put(path, os.mkfifo)


def file(path: str) -> Change:
    return put(path, lambda at: at.write_text("x"))


def device(path: str) -> Change:
    return put(path, lambda at: os.mknod(at, 0o20666, os.makedev(1, 3)))


def disk_device(path: str) -> Change:
    return put(path, lambda at: os.mknod(at, 0o60666, os.makedev(254, 0)))


def a_socket(path: str) -> Change:
    def make(at: Path) -> None:
        here = os.getcwd()
        os.chdir(at.parent)  # a socket's name has 108 bytes
        socket.socket(socket.AF_UNIX).bind(at.name)
        os.chdir(here)

    return put(path, make)


def deep(path: str) -> Change:
    def make(at: Path) -> None:
        at.mkdir()
        folder = os.open(at, os.O_RDONLY)
        for _ in range(1010):
            os.mkdir("d", dir_fd=folder)
            lower = os.open("d", os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = lower
        os.close(folder)

    return put(path, make)


def full_of_links(path: str) -> Change:
    def change(tree: Path, bench: LifeBench) -> None:
        folder = tree / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "folder").symlink_to(bench.witness)
        (folder / "file").symlink_to(bench.witness / "passwd")
        (folder / "up").symlink_to("../../../../../../../../../../srv")
        os.mkfifo(folder / "fifo")
        os.mknod(folder / "sda", 0o60666, os.makedev(8, 0))
        (folder / "a\nb\x1b[31m").write_text("x")

    return change


def many(*changes: Change) -> Change:
    def change(tree: Path, bench: LifeBench) -> None:
        for one in changes:
            one(tree, bench)

    return change


def nothing_at(path: str) -> Change:
    return put(path, lambda at: None)


def owned_by_somebody(tree: Path, bench: LifeBench) -> None:
    for folder, mode in (("usr/lib/modules", 0o500), (f"usr/lib/modules/{OLD}", 0o000)):
        os.chown(tree / folder, 1000, 1000)
        (tree / folder).chmod(mode)


def setgid(tree: Path, bench: LifeBench) -> None:
    os.chown(tree / "usr/lib/modules", 0, 1000)
    (tree / "usr/lib/modules").chmod(0o7777)


def huge_file(tree: Path, bench: LifeBench) -> None:
    folder = tree / f"usr/lib/modules/.{NEW}.new"
    folder.mkdir()
    with open(folder / "huge", "wb") as stream:
        stream.truncate(1 << 40)


M = "usr/lib/modules"
REFUSED: dict[str, Change] = {
    "/lib leads to the host": link_to_host("lib"),
    "/lib leads up": link("lib", "../../../../../../srv"),
    "/lib is a loop": link("lib", "lib"),
    "/lib is a FIFO": fifo("lib"),
    "/lib is a file": file("lib"),
    "/lib is a device": device("lib"),
    "/lib is a disk": disk_device("lib"),
    "/lib leads to /proc": link("lib", "/proc/1/root/lib"),
    "/usr is a link": many(link_to_host("usr")),
    "/usr/lib is a link": many(link_to_host("usr/lib")),
    "/usr/lib is a FIFO": fifo("usr/lib"),
    "modules lead to the host": link_to_host(M),
    "modules lead up": link(M, "../../../../../srv"),
    "modules are a FIFO": fifo(M),
    "modules are a file": file(M),
    "modules are a socket": a_socket(M),
    "modules are a device": device(M),
    "modules lead to /proc/self/fd": link(M, "/proc/self/fd/9"),
    "modules lead to a FIFO": many(fifo("srv/x"), link(M, "/srv/x")),
    "modules in a plain /lib that lead to the host": many(
        put("lib", Path.mkdir), link_to_host("lib/modules")
    ),
}
HELD: dict[str, Change] = {
    "an honest guest": many(),
    "no /lib": nothing_at("lib"),
    "no modules": nothing_at(M),
    "a plain /lib": put("lib", Path.mkdir),
    "/lib leads to usr/lib/": link("lib", "usr/lib/"),
    "/lib leads to /usr/lib": link("lib", "/usr/lib"),
    "the place of the new ABI leads to the host": link_to_host(f"{M}/{NEW}"),
    "the place of the new ABI leads to a file of the host": link_to_host(f"{M}/{NEW}", "passwd"),
    "the place of the new ABI is a FIFO": fifo(f"{M}/{NEW}"),
    "the place of the new ABI is a file": file(f"{M}/{NEW}"),
    "the place of the new ABI is a device": device(f"{M}/{NEW}"),
    "the place of the new ABI is a disk": disk_device(f"{M}/{NEW}"),
    "the place of the new ABI is a socket": a_socket(f"{M}/{NEW}"),
    "the place of the new ABI leads nowhere": link(f"{M}/{NEW}", "/nowhere"),
    "the place of the new ABI is a loop": link(f"{M}/{NEW}", NEW),
    "the place of the new ABI is full of links": full_of_links(f"{M}/{NEW}"),
    "the place of the new ABI is deep": deep(f"{M}/{NEW}"),
    "the place aside leads to the host": link_to_host(f"{M}/.{NEW}.new"),
    "the place aside leads to a FIFO": many(fifo("srv/x"), link(f"{M}/.{NEW}.new", "/srv/x")),
    "the place aside is a FIFO": fifo(f"{M}/.{NEW}.new"),
    "the place aside is a device": device(f"{M}/.{NEW}.new"),
    "the place aside is full of links": full_of_links(f"{M}/.{NEW}.new"),
    "the place aside holds a file of 1 TiB": huge_file,
    "the place before leads to the host": link_to_host(f"{M}/.{NEW}.previous"),
    "the place before is a FIFO": fifo(f"{M}/.{NEW}.previous"),
    "the place before is full of links": full_of_links(f"{M}/.{NEW}.previous"),
    "modules of now are links": many(link_to_host(f"{M}/{OLD}")),
    "modules of somebody": owned_by_somebody,
    "modules of a group, setuid, setgid, sticky": setgid,
    "our mark is a link": many(
        put(f"{M}/{NEW}", Path.mkdir), link_to_host(f"{M}/{NEW}/.domu-fresh", "passwd")
    ),
    "our mark is a FIFO": many(put(f"{M}/{NEW}", Path.mkdir), fifo(f"{M}/{NEW}/.domu-fresh")),
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_a_guest_that_leads_the_modules_elsewhere(
    bench: LifeBench, tmp_path: Path, change: Change
) -> None:
    tree = plain_tree(tmp_path / "tree")
    change(tree, bench)
    make_guest(bench, tree)
    before = bench.disk().read_bytes()
    said = bench.ask("refresh", of=str(bench.work / NEW))
    assert said.error is not None, said.text
    assert said.code in (1, 5), said.error
    assert "\n" not in said.error.brief
    assert "Traceback" not in said.error.details
    bench.require_host()
    assert is_clean(bench.disk())
    assert f"kernels/{OLD}-" in bench.config.read_text()
    assert not list(bench.journal.parent.glob("*"))
    assert len(before) == bench.disk().stat().st_size


@pytest.mark.parametrize("change", HELD.values(), ids=HELD)
def test_a_guest_that_leaves_traps(bench: LifeBench, tmp_path: Path, change: Change) -> None:
    tree = plain_tree(tmp_path / "tree")
    change(tree, bench)
    make_guest(bench, tree, "-N", "4096")
    bench.demand("refresh", of=str(bench.work / NEW))
    bench.require_host()
    assert is_clean(bench.disk())
    where = f"/{M}" if "plain" not in str(change) else "/lib/modules"
    listed = debugfs(bench.disk(), f"stat {where}/{NEW}/modules.dep", f"stat /lib/modules/{NEW}")
    assert "Type: directory" in listed
    assert ".domu-fresh" not in debugfs(bench.disk(), f"ls {where}/{NEW}")
    bench.demand("refresh", undo="yes")
    bench.require_host()
    assert is_clean(bench.disk())


def test_a_place_aside_that_is_deep(bench: LifeBench, tmp_path: Path) -> None:
    tree = plain_tree(tmp_path / "tree")
    deep(f"{M}/{NEW}")(tree, bench)
    make_guest(bench, tree, "-N", "4096")
    # mke2fs -d itself dies of some long paths
    debugfs(bench.disk(), f"link /{M}/{NEW} /{M}/.{NEW}.new", f"unlink /{M}/{NEW}")
    assert is_clean(bench.disk())
    bench.demand("refresh", of=str(bench.work / NEW))
    assert is_clean(bench.disk())
    bench.require_host()
    assert set(modules_in(bench.disk())) == {OLD, NEW}


PAYLOAD = 'open("/owned", "w").write("by the guest")\nfrom zlib import *\n'


def test_python_in_the_guest_is_never_run(bench: LifeBench, tmp_path: Path) -> None:
    tree = plain_tree(tmp_path / "tree")
    places = {Path(place) for place in (*sys.path, "/usr/lib/python3.11", str(ROOT)) if place}
    for place in places:
        for module in ("gzip", "bz2", "lzma", "sitecustomize", "copy", "zlib", "pwd", "shutil"):
            path = tree / str(place).lstrip("/") / f"{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(PAYLOAD)
    make_guest(bench, tree)
    bench.demand("refresh", of=str(bench.work / NEW))
    bench.demand("refresh", undo="yes")
    assert "File not found" in debugfs_error(bench.disk(), "stat /owned")
    bench.require_host()


def debugfs_error(disk: Path, request: str) -> str:
    done = subprocess.run(["debugfs", "-R", request, disk], capture_output=True, text=True)
    return done.stderr


WATCHED = """
import os, sys
sys.path.insert(0, {root!r})
seen, begun = [], []
def hook(event, arguments):
    if event == "open" and arguments[0] is not None and str(arguments[0]) == ".":
        begun.append(event)
    if begun and event in ("import", "compile", "exec"):
        seen.append((event, str(arguments[:1])))
    if begun and event == "open" and str(arguments[0]).startswith("/"):
        seen.append((event, str(arguments[0])))
sys.addaudithook(hook)
from pipeline.dom0 import modules_in_guest
status = modules_in_guest.main(sys.argv[1:])
print(status, len(begun), seen)
"""


@pytest.mark.parametrize("words", [["put", NEW], ["back", NEW], ["drop", NEW], ["put", "../x"]])
def test_nothing_is_imported_once_the_guest_is_open(
    bench: LifeBench, tmp_path: Path, words: list[str]
) -> None:
    tree = plain_tree(tmp_path / "tree")
    full_of_links(f"{M}/.{NEW}.new")(tree, bench)
    archive = [str(bench.work / NEW / "modules.tar")] if words[0] == "put" else []
    folder = os.open(tree, os.O_RDONLY)
    try:
        argv = [sys.executable, "-c", WATCHED.format(root=str(ROOT)), str(folder), *words, *archive]
        done = subprocess.run(argv, pass_fds=[folder], capture_output=True, text=True, timeout=60)
    finally:
        os.close(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{5 if '..' in words[1] else 0} 1 []"
    bench.require_host()


def test_what_writes_in_the_guest_sees_no_host(bench: LifeBench) -> None:
    argv = [str(word) for word in guest_root._caged(["drop", NEW])]
    argv = argv[: argv.index("-c")] + [
        "-c",
        "import os; print(sorted(os.listdir('/')), os.path.exists('/proc/1'), "
        f"os.path.exists({str(bench.witness)!r}), os.path.exists('/etc/passwd'))",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert "False False False" in done.stdout


def _zeros(disk: Path) -> None:
    size = disk.stat().st_size
    os.truncate(disk, 0)
    os.truncate(disk, size)


def _half(disk: Path) -> None:
    os.truncate(disk, disk.stat().st_size // 2)


def _noise(disk: Path) -> None:
    with open(disk, "r+b") as stream:
        for at in range(4096, 8 << 20, 65536):
            stream.seek(at)
            stream.write(b"\xa5" * 4096)


def _superblock(disk: Path) -> None:
    with open(disk, "r+b") as stream:
        stream.seek(1024)
        stream.write(b"\xff" * 1024)


def _cycle(disk: Path) -> None:
    debugfs(disk, f"link /{M} /{M}/{OLD}/up", f"link / /{M}/root")


def _slash_in_a_name(disk: Path) -> None:
    content = disk.read_bytes()
    at = content.index(b"modules.dep")
    with open(disk, "r+b") as stream:
        stream.seek(at)
        stream.write(b"../../x.dep")


def _xfs(disk: Path) -> None:
    os.truncate(disk, 0)
    os.truncate(disk, 320 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-f", disk], check=True)


def _panics(disk: Path) -> None:
    subprocess.run(["tune2fs", "-e", "panic", disk], check=True, capture_output=True)


def _immutable(disk: Path) -> None:
    debugfs(disk, f"mkdir /{M}/.{NEW}.new", f"sif /{M}/.{NEW}.new flags 0x10")


def _immutable_modules(disk: Path) -> None:
    debugfs(disk, f"sif /{M} flags 0x10")


@pytest.mark.parametrize(
    "damage",
    [
        *(_zeros, _half, _noise, _superblock, _cycle, _slash_in_a_name),
        *(_panics, _xfs, _immutable, _immutable_modules),
    ],
)
def test_a_file_system_that_is_none_or_does_not_let_us(
    bench: LifeBench, damage: Callable[[Path], None]
) -> None:
    damage(bench.disk())
    said = bench.ask("refresh", of=str(bench.work / NEW))
    if said.error is None:  # e2fsck mended it
        assert is_clean(bench.disk())
        assert NEW in modules_in(bench.disk())
    else:
        assert "\n" not in said.error.brief
        assert f"kernels/{OLD}-" in bench.config.read_text()
        assert not list(bench.journal.parent.glob("*"))
    bench.require_host()


def test_a_guest_without_room_for_inodes(bench: LifeBench, tmp_path: Path) -> None:
    tree = plain_tree(tmp_path / "tree")
    for number in range(200):
        (tree / f"etc/{number}").touch()
    make_guest(bench, tree, "-N", "230")
    for number in range(60):
        debugfs(bench.disk(), f"write /dev/null /etc/more{number}")
    said = bench.ask("refresh", of=str(bench.work / NEW))
    assert said.error is not None
    assert "No space" in said.error.brief + said.error.details
    assert "Traceback" not in said.error.details
    assert is_clean(bench.disk())
    assert set(modules_in(bench.disk())) == {OLD}
