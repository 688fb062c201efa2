"""Paths of a tree that strangers made: no way out of it, nothing opened that is no file."""

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.walls.beneath import Beneath, Escape, take

ME = {"uid": os.geteuid(), "gid": os.getegid()}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder of the host beside the tree, which is as it was at the end of each test."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text("the host's")
    before = snapshot(folder)
    yield folder
    assert snapshot(folder) == before


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    """A tree with every kind of a way out of it, and the same names inside."""
    made = tmp_path / "tree"
    (made / "etc").mkdir(parents=True)
    (made / "etc/passwd").write_text("the tree's")
    os.mkfifo(made / "fifo")
    for name, target in {
        "up": "../outside",
        "host": str(outside),
        "hostfile": f"{outside}/secret",
        "circle": "circle",
        "conf": "etc",
        "rooted": "/etc",
        "high": "../../../../../../etc",
        "file": "etc/passwd",
        "magic": "/proc/self/root",
    }.items():
        (made / name).symlink_to(target)
    return made


@pytest.fixture
def tree(root: Path) -> Iterator[Beneath]:
    with Beneath(root) as made:
        yield made


@pytest.fixture
def strict(root: Path) -> Iterator[Beneath]:
    with Beneath(root, follow=False) as made:
        yield made


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (*status[:6], status.st_mtime_ns, status.st_ctime_ns, content)
    return found


def put(tree: Beneath, path: str, content: bytes = b"x", *, replace: bool = False) -> None:
    tree.write(path, content, mode=0o644, replace=replace, **ME)


# what every one of them does to a path that leads into a folder outside
CHANGES: dict[str, Callable[[Beneath, str], object]] = {
    "open": lambda tree, path: tree.open(path, os.O_RDONLY),
    "open O_CREAT": lambda tree, path: tree.open(path, os.O_WRONLY | os.O_CREAT),
    "open O_TRUNC": lambda tree, path: tree.open(path, os.O_WRONLY | os.O_TRUNC, follow_last=True),
    "open_file": lambda tree, path: tree.open_file(path),
    "read": lambda tree, path: tree.read(path, limit=100),
    "read follow_last": lambda tree, path: tree.read(path, limit=100, follow_last=True),
    "write": put,
    "replace": lambda tree, path: put(tree, path, replace=True),
    "make_folder": lambda tree, path: tree.make_folder(path, **ME),
    "make_folders": lambda tree, path: tree.make_folders(f"{path}/a/b", **ME),
    "symlink": lambda tree, path: tree.symlink("x", path, **ME),
    "link from": lambda tree, path: tree.link(path, "taken"),
    "link to": lambda tree, path: tree.link("etc/passwd", path),
    "rename from": lambda tree, path: tree.rename(path, "taken"),
    "rename to": lambda tree, path: tree.rename("etc/passwd", path),
    "exchange": lambda tree, path: tree.exchange("etc/passwd", path),
    "unlink": lambda tree, path: tree.unlink(path),
    "remove": lambda tree, path: tree.remove(path),
    "empty": lambda tree, path: tree.empty(path),
    "stat": lambda tree, path: tree.stat(path),
    "readlink": lambda tree, path: tree.readlink(path),
    "names": lambda tree, path: tree.names(path),
    "chmod": lambda tree, path: tree.chmod(path, 0o777),
    "chown": lambda tree, path: tree.chown(path, *ME.values()),
    "utime": lambda tree, path: tree.utime(path, 1),
}
WAYS = ["up/secret", "host/secret", "../outside/secret", "etc/../../outside/secret", "magic/etc"]


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("way", WAYS)
def test_no_way_leads_to_a_folder_outside(tree: Beneath, what: str, way: str) -> None:
    try:
        CHANGES[what](tree, way)
    except (Escape, OSError) as error:
        assert str(error)
    else:
        # resolved inside the tree, where nothing of it was there before
        assert what == "make_folders" and way.startswith(("..", "etc"))


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("way", [*WAYS, "conf/passwd", "rooted/passwd", "circle/x"])
def test_no_link_at_all_is_followed_when_none_may_be(strict: Beneath, what: str, way: str) -> None:
    with pytest.raises((Escape, FileNotFoundError)):
        CHANGES[what](strict, way)


@pytest.mark.parametrize("what", ["open", "read", "open_file", "chmod", "names", "empty"])
@pytest.mark.parametrize("way", ["hostfile", "file", "conf", "host", "circle"])
def test_a_link_at_the_end_is_not_followed(tree: Beneath, what: str, way: str) -> None:
    with pytest.raises(Escape):
        CHANGES[what](tree, way)


@pytest.mark.parametrize("what", ["write", "make_folder", "symlink", "link to"])
@pytest.mark.parametrize("way", ["hostfile", "host", "up", "circle", "fifo", "etc/passwd"])
def test_what_is_made_takes_no_place_that_is_taken(tree: Beneath, what: str, way: str) -> None:
    with pytest.raises(FileExistsError):
        CHANGES[what](tree, way)


@pytest.mark.parametrize("way", ["conf", "rooted", "high", "/etc", "etc/", "/./etc", "../../etc"])
def test_links_and_dots_count_as_in_a_chroot(tree: Beneath, root: Path, way: str) -> None:
    assert tree.read(f"{way}/passwd", limit=100) == b"the tree's"
    put(tree, f"{way}/new", b"abc")
    assert (root / "etc/new").read_bytes() == b"abc"


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "etc", "file"])
@pytest.mark.parametrize("what", ["read", "open_file"])
def test_only_regular_files_are_read(tree: Beneath, root: Path, kind: str, what: str) -> None:
    if kind == "socket":
        os.mknod(root / "socket", stat.S_IFSOCK | 0o600)
    if kind == "device":
        if os.geteuid():
            pytest.skip("only root makes devices")
        os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    with pytest.raises(Escape):
        CHANGES[what](tree, kind)


def test_reading_stops_at_the_limit(tree: Beneath) -> None:
    assert tree.read("etc/passwd", limit=10) == b"the tree's"
    with pytest.raises(PipelineError, match="etc/passwd: longer than 9 bytes"):
        tree.read("etc/passwd", limit=9)
    assert tree.read("file", limit=10, follow_last=True) == b"the tree's"


def test_a_file_has_its_content_mode_and_time(tree: Beneath, root: Path) -> None:
    big = os.urandom(3 << 20)
    tree.write(
        "etc/tool", big, mode=0o4755, mtime_s=1_600_000_000, uid=os.geteuid(), gid=os.getegid()
    )
    found = (root / "etc/tool").stat()
    assert (found.st_mode & 0o7777, found.st_mtime) == (0o4755, 1_600_000_000)
    assert tree.read("etc/tool", limit=3 << 20) == big


@pytest.mark.parametrize("old", ["hostfile", "fifo", "file", "etc/passwd", "missing"])
def test_replacing_takes_the_name_and_not_what_it_points_to(
    tree: Beneath, root: Path, old: str
) -> None:
    put(tree, old, b"new", replace=True)
    assert (root / old).is_file() and not (root / old).is_symlink()
    assert old == "etc/passwd" or (root / "etc/passwd").read_text() == "the tree's"


def test_owner_mode_and_time_are_those_of_a_link_itself_or_refused(
    tree: Beneath, root: Path
) -> None:
    tree.utime("hostfile", 5)
    tree.chown("hostfile", *ME.values())
    assert (root / "hostfile").lstat().st_mtime == 5
    with pytest.raises(Escape):
        tree.chmod("hostfile", 0o777)
    tree.chmod("etc", 0o1777)
    tree.chmod("/", 0o751)
    assert ((root / "etc").stat().st_mode & 0o7777, root.stat().st_mode & 0o7777) == (0o1777, 0o751)


def test_folders_are_made_and_those_there_stay_as_they_are(tree: Beneath, root: Path) -> None:
    (root / "etc").chmod(0o700)
    tree.make_folders("rooted/a/b", mode=0o750, **ME)
    assert [(root / name).stat().st_mode & 0o777 for name in ("etc", "etc/a", "etc/a/b")] == [
        *(0o700, 0o750, 0o750)
    ]
    with pytest.raises(NotADirectoryError):
        tree.make_folders("etc/passwd/x", **ME)
    with pytest.raises(Escape, match="not a folder"):
        tree.make_folders("etc/passwd", **ME)


def test_names_are_exchanged_linked_and_renamed(tree: Beneath, root: Path) -> None:
    put(tree, "a", b"a")
    put(tree, "b", b"b")
    tree.exchange("a", "conf/../b")
    assert (tree.read("a", limit=1), tree.read("b", limit=1)) == (b"b", b"a")
    tree.link("a", "rooted/c")
    tree.link("hostfile", "etc/d")  # the link itself
    assert (root / "etc/c").stat().st_nlink == 2 and (root / "etc/d").is_symlink()
    with pytest.raises(FileExistsError):
        tree.rename("a", "b", replace=False)
    tree.rename("a", "b")
    assert tree.names("/") == sorted(os.listdir(root))
    assert "a" not in tree.names("/") and tree.readlink("conf") == "etc"


def test_what_is_missing_is_said_by_the_usual_errors(tree: Beneath) -> None:
    assert not tree.exists("none") and not tree.exists("etc/passwd/x")
    assert tree.exists("hostfile") and not tree.is_file("file") and tree.is_folder("conf")
    tree.unlink("none/x", missing_ok=True)
    tree.remove("none/x", missing_ok=True)
    for what in (tree.unlink, tree.remove, tree.readlink, tree.stat, tree.names):
        with pytest.raises(FileNotFoundError):
            what("none")


@pytest.mark.parametrize("name", ["", "/", ".", "..", "etc/.", "etc/..", "a\0b"])
def test_what_is_no_name_is_refused(tree: Beneath, name: str) -> None:
    for what in ("write", "make_folder", "symlink", "unlink", "remove", "rename from"):
        with pytest.raises((Escape, OSError)):
            CHANGES[what](tree, name)
    assert tree.names("etc") == ["passwd"]


def test_a_tree_of_any_depth_and_width_is_removed(
    request: pytest.FixtureRequest, tree: Beneath, root: Path
) -> None:
    top = os.open(root, os.O_RDONLY)
    for number in range(1500):
        for kind in ("side", "deep") if number < 100 else ("deep",):
            os.mkdir(kind, dir_fd=top)
        os.symlink("/etc", "link", dir_fd=top)
        os.close(os.open(f"file{number}", os.O_CREAT, dir_fd=top))
        lower = os.open("deep", os.O_RDONLY, dir_fd=top)
        os.close(top)
        top = lower
    os.close(top)
    request.addfinalizer(lambda: tree.empty("/"))  # deeper than pytest can remove
    for name in ("deep", "side", "link", "file0", "host", "fifo", "etc"):
        tree.remove(name)
        assert name not in tree.names("/")
    tree.empty("/")
    assert os.listdir(root) == []


def test_what_is_mounted_in_it_is_not_entered() -> None:
    with Beneath(Path("/")) as machine:
        for path in ("proc", "proc/self/status", "proc/sys/kernel/hostname"):
            with pytest.raises(Escape):
                machine.open(path, os.O_RDONLY)
    with Beneath(Path("/"), mounts=True) as machine:
        assert b"Name:" in machine.read(f"proc/{os.getpid()}/status", limit=1 << 16)
        with pytest.raises(Escape):  # a magic link all the same
            machine.names(f"proc/{os.getpid()}/root/etc")


def test_a_folder_that_turns_into_a_link_meanwhile_leads_nowhere(
    tree: Beneath, root: Path, outside: Path
) -> None:
    """Two names are swapped all the time, one a folder, one a link out: no write gets out."""
    (root / "a").mkdir()
    (root / "b").symlink_to(outside)
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            tree.exchange("a", "b")

    swapper = threading.Thread(target=swap)
    swapper.start()
    written = 0
    try:
        for number in range(3000):
            try:
                put(tree, f"a/../a/{number}")
                written += 1
            except (Escape, FileNotFoundError):
                continue
    finally:
        ended.set()
        swapper.join()
    folder = root / ("b" if (root / "a").is_symlink() else "a")
    assert len(os.listdir(folder)) == written > 0


def test_no_descriptor_stays_open(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Beneath(root) as tree:
        for what in CHANGES.values():
            for way in ("etc/passwd", "none", "host/secret", "circle/x", "fifo", "conf"):
                try:
                    opened = what(tree, way)
                except (Escape, OSError):
                    continue
                if type(opened) is int:
                    os.close(opened)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_finished_file_is_taken_out_of_a_room(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    (room / "made").write_bytes(b"made")
    (room / "made").chmod(0o666)
    target = take(room, "made", tmp_path / "kept", mode=0o640)
    found = target.stat()
    assert (target.read_bytes(), found.st_mode & 0o7777) == (b"made", 0o640)
    assert (found.st_uid, found.st_gid) == tuple(ME.values())
    assert os.listdir(room) == []


@pytest.mark.parametrize("kind", ["link", "hard", "fifo", "folder", "missing", "folder/../up/x"])
def test_nothing_else_is_taken_out_of_a_room(tmp_path: Path, kind: str) -> None:
    room, host = tmp_path / "room", tmp_path / "host"
    (room / "folder").mkdir(parents=True)
    host.mkdir()
    (host / "x").write_text("the host's")
    (room / "up").symlink_to("../host")
    (room / "link").symlink_to("../host/x")
    os.link(host / "x", room / "hard")
    os.mkfifo(room / "fifo")
    before = snapshot(tmp_path)
    with pytest.raises((Escape, FileNotFoundError)):
        take(room, kind, tmp_path / "kept")
    assert snapshot(tmp_path) == before
