"""Placing packages into one tree: nothing is replaced, nothing leads out of it."""

import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.bootstrap.deb import Member
from pipeline.bootstrap.unpack import Tree
from pipeline.errors import PipelineError

OWNER, GROUP = os.getuid(), os.getgid()
AGE = 1_600_000_000


def member(path: str, kind: str = "0", content: bytes = b"", **facts: object) -> Member:
    mode = 0o755 if kind == "5" else 0o644
    values = {"mode": mode, "uid": OWNER, "gid": GROUP, "mtime": AGE, "target": "", **facts}
    return Member(path=path, kind=kind, start=0, size=len(content), **values)  # type: ignore[arg-type]


def put(
    tree: Tree,
    path: str,
    kind: str = "0",
    content: bytes = b"",
    *,
    package: str = "one",
    pending: Collection[str] = (),
    **facts: object,
) -> None:
    one = member(path, kind, content, **facts)
    tree.place(one, content, package=package, pending=pending)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "tree").mkdir()
    with Tree(tmp_path / "tree") as made:
        for folder in ("/usr", "/usr/lib", "/etc"):
            put(made, folder, "5")
        yield made


def test_a_file_has_its_content_mode_and_time(tree: Tree) -> None:
    put(tree, "/usr/lib/x", content=b"abc", mode=0o4755)
    found = Path(tree.root, "usr/lib/x")
    assert found.read_bytes() == b"abc"
    assert (found.stat().st_mode & 0o7777, found.stat().st_mtime) == (0o4755, AGE)


def test_a_conffile_waits_under_dpkgs_name_for_it_with_its_links(tree: Tree) -> None:
    put(tree, "/etc/x", content=b"abc", pending={"/etc/x"})
    put(tree, "/etc/y", "1", target="./etc/x", pending={"/etc/x"})
    assert sorted(os.listdir(f"{tree.root}/etc")) == ["x.dpkg-new", "y"]
    assert Path(tree.root, "etc/y").read_bytes() == b"abc"


def test_a_linked_folder_is_followed_and_kept(tree: Tree) -> None:
    os.symlink("usr/lib", f"{tree.root}/lib")
    put(tree, "/lib", "5")
    put(tree, "/lib/x", content=b"abc")
    assert Path(tree.root, "lib").is_symlink()
    assert Path(tree.root, "usr/lib/x").read_bytes() == b"abc"


def test_a_folder_that_a_script_made_a_link_counts_as_one_from_then_on(
    tree: Tree, tmp_path: Path
) -> None:
    """As the tree's own programs see it: no place of before is kept, none outside is reached."""
    put(tree, "/usr/lib/x")
    (tmp_path / "host").mkdir()
    root = Path(tree.root)
    (root / "usr/lib").rename(root / "old")
    (root / "usr/lib").symlink_to("/etc")
    put(tree, "/usr/lib", "5", package="two")
    put(tree, "/usr/lib/y", package="two")
    assert (os.listdir(root / "etc"), os.listdir(root / "old")) == (["y"], ["x"])
    (root / "usr/lib").unlink()
    (root / "usr/lib").symlink_to(tmp_path / "host")
    with pytest.raises(PipelineError, match="package three: .*without its folder"):
        put(tree, "/usr/lib/z", package="three")
    assert os.listdir(tmp_path / "host") == []


@pytest.mark.parametrize("path", ["/usr/lib/x", "/lib/x"])
def test_two_packages_with_the_same_file_are_refused(tree: Tree, path: str) -> None:
    os.symlink("usr/lib", f"{tree.root}/lib")
    put(tree, "/usr/lib/x", content=b"abc")
    with pytest.raises(PipelineError, match=f"package two: another one ships {path}") as caught:
        put(tree, path, content=b"abc", package="two")
    assert "bootstrap=mmdebstrap" in caught.value.hint
    assert Path(tree.root, "usr/lib/x").read_bytes() == b"abc"


def test_the_same_link_twice_is_one_and_another_target_is_refused(tree: Tree) -> None:
    put(tree, "/usr/lib/x", "2", target="y")
    put(tree, "/usr/lib/x", "2", target="y", package="two")
    with pytest.raises(PipelineError, match="another one ships"):
        put(tree, "/usr/lib/x", "2", target="z", package="two")


@pytest.mark.parametrize(("first", "second"), [("0", "5"), ("5", "0"), ("5", "2")])
def test_a_folder_that_is_something_else_elsewhere_is_refused(
    tree: Tree, first: str, second: str
) -> None:
    put(tree, "/usr/x", first)
    with pytest.raises(PipelineError, match="another one ships /usr/x"):
        put(tree, "/usr/x", second, package="two", target="lib")


def test_packages_that_disagree_about_a_folder_are_refused(tree: Tree) -> None:
    put(tree, "/usr/x", "5", mode=0o700)
    with pytest.raises(PipelineError, match="one: 700 .*two: 755 "):
        put(tree, "/usr/x", "5", package="two")


def test_empty_folders_get_the_newest_time_that_packages_give_them(tree: Tree) -> None:
    put(tree, "/usr/empty", "5")
    put(tree, "/usr/empty", "5", package="two", mtime=AGE + 7)
    put(tree, "/usr/full", "5")
    put(tree, "/usr/full/x")
    tree.settle()
    assert Path(tree.root, "usr/empty").stat().st_mtime == AGE + 7
    assert Path(tree.root, "usr/full").stat().st_mtime > AGE + 7


def test_many_threads_make_the_same_folders_without_a_clash(tree: Tree) -> None:
    def fill(number: int) -> None:
        for folder in (f"/usr/share{part}" for part in ("", "/doc", "/doc/all", "/man")):
            put(tree, folder, "5", package=f"p{number}")
        put(tree, f"/usr/share/doc/all/{number}", content=b"x", package=f"p{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fill, range(200)))
    assert len(os.listdir(f"{tree.root}/usr/share/doc/all")) == 200
