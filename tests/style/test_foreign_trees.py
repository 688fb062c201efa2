"""Foreign trees are reached in one way: the modules that touch them open no path themselves.

What strangers made (a package's tree, a guest's disk, a room that a cage wrote to) is opened,
written, linked and removed through `pipeline.walls.beneath`: by path, a link in it would be
followed as the host. `FOREIGN` are the modules that have to do with such trees; `OWN` says for
each what it does by path all the same, and why that is a file of the host's own. A way that is
not listed fails, and so does a word that is no longer needed: the list becomes shorter, never
longer.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PIPELINE = Path(__file__).resolve().parents[2] / "pipeline"
FOREIGN = (
    *("bootstrap/*.py", "check/*.py", "guest/*.py"),
    *(
        "dom0/modules_in_guest.py",
        "dom0/guest_root.py",
        "kernel/assembly.py",
        "storage/filesystems.py",
    ),
)
OWN = {
    # packages as they lie in the cache, handed in as open files
    "bootstrap/deb.py": "open",
    "bootstrap/delivery.py": "open",
    # and an artifact's own note of the time that they say
    "bootstrap/epoch.py": "open Path.read_text Path.write_text",
    # apt's lists and settings, in a scratch folder before any package is there
    "bootstrap/resolution.py": "Path.mkdir Path.touch Path.write_text",
    "bootstrap/addition.py": "Path.write_bytes",
    # a scratch folder
    "bootstrap/bootstrap.py": "Path.mkdir",
    # beside the tree: a start-stop-daemon to be lent, the empty folder that becomes the tree
    "bootstrap/scripts.py": "Path.chmod Path.write_text",
    "bootstrap/skeleton.py": "Path.mkdir",
    # the artifact, published by this program, and a scratch folder
    "check/__init__.py": "Path.is_file Path.mkdir Path.read_text Path.stat",
    # the guest's disk, a file of the artifact or a copy of it, and a scratch folder
    "check/built_disk.py": "Path.mkdir open",
    "check/file_systems.py": "Path.is_block_device open",
    "check/packed_disk.py": "Path.is_file Path.mkdir Path.unlink",
    "check/boot_files.py": "Path.is_file Path.read_bytes Path.stat",
    "check/contents.py": "Path.is_file",
    "check/facts.py": "Path.exists Path.glob Path.is_block_device Path.is_file Path.iterdir"
    " Path.read_bytes Path.read_text Path.stat open",
    # this program's own record of a tree
    "guest/adopted_tree.py": "open",
    # output/identity, which nobody else may enter; a file that the person names
    "guest/host_keys.py": "Path.is_file os.path.lexists",
    "guest/kept_file.py": "open",
    "guest/replication_files.py": "Path.chmod Path.is_file Path.mkdir open os.path.lexists",
    "guest/identity.py": "Path.chmod Path.mkdir os.path.lexists",
    "guest/passwords.py": "Path.exists Path.is_file Path.read_bytes",
    # results of this program beside the tree; depmod's, after links and devices were refused
    "kernel/assembly.py": "Path.glob Path.mkdir Path.read_bytes Path.read_text Path.unlink"
    " Path.write_bytes Path.write_text",
    # modules.tar of the kernel that goes in, opened before the guest's tree
    "dom0/modules_in_guest.py": "tarfile.open",
    # the place where a guest's disk is mounted, and the disk itself
    "dom0/guest_root.py": "Path.mkdir Path.resolve",
    "storage/filesystems.py": "Path.exists Path.is_file Path.mkdir Path.rmdir Path.unlink open",
}
# functions of os that take a path; those on descriptors are as good as Beneath's own
OS = frozenset(
    "access chmod chown chroot lchown link listdir lstat makedirs mkdir mkfifo mknod open readlink"
    " remove removedirs rename renames replace rmdir scandir setxattr stat symlink truncate unlink"
    " utime walk".split()
)
# methods of Path, with the number of arguments that tells them from those of str and Beneath
PATH = {
    **dict.fromkeys(["read_text", "read_bytes", "write_text", "write_bytes"], range(9)),
    **dict.fromkeys(["touch", "mkdir", "symlink_to", "hardlink_to", "rglob"], range(9)),
    **dict.fromkeys(["iterdir", "is_symlink", "is_dir", "is_mount"], range(9)),
    **dict.fromkeys(
        ["is_file", "exists", "stat", "lstat", "readlink", "rmdir", "unlink", "resolve"], range(1)
    ),
    **dict.fromkeys(["is_block_device", "is_char_device", "is_fifo", "is_socket"], range(9)),
    **dict.fromkeys(["rename", "replace", "chmod", "open", "glob"], range(2)),
}
MODULES = frozenset({"shutil", "tarfile", "tempfile", "zipfile", "glob"})


def ways(path: Path) -> Iterator[str]:
    """How a module gets at paths by itself, a word for each call."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id == "open":
            yield "open"
        if not isinstance(function, ast.Attribute):
            continue
        owner = ast.unparse(function.value)
        if owner == "os" and function.attr in OS:
            if not any(word.arg and word.arg.endswith("dir_fd") for word in node.keywords):
                yield f"os.{function.attr}"
        elif (
            owner == "os.path"
            and function.attr not in "join samestat basename dirname normpath".split()
        ):
            yield f"os.path.{function.attr}"
        elif owner in MODULES:
            yield f"{owner}.{function.attr}"
        elif function.attr == "glob" and owner.endswith("tree"):
            continue  # of check.tree: names in memory
        elif owner != "os" and len(node.args) in PATH.get(function.attr, ()):
            yield f"Path.{function.attr}"


SOURCES = sorted(path for pattern in FOREIGN for path in PIPELINE.glob(pattern))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PIPELINE)))
def test_a_foreign_tree_is_reached_beneath_it_and_in_no_other_way(path: Path) -> None:
    allowed = OWN.get(str(path.relative_to(PIPELINE)), "").split()
    assert sorted(set(ways(path))) == sorted(allowed)


def test_the_list_names_modules_that_are_there() -> None:
    assert set(OWN) <= {str(path.relative_to(PIPELINE)) for path in SOURCES}


@pytest.mark.parametrize(
    ("line", "way"),
    [
        ('open(tree / "x")', "open"),
        ('os.open(f"{tree}/x", os.O_RDONLY)', "os.open"),
        ("os.link(a, b)", "os.link"),
        ("shutil.rmtree(tree)", "shutil.rmtree"),
        ("tarfile.open(name)", "tarfile.open"),
        ("os.path.isdir(folder)", "os.path.isdir"),
        ('(tree / "x").write_text("")', "Path.write_text"),
        ('(tree / "x").unlink(missing_ok=True)', "Path.unlink"),
        ('(tree / "x").rename(y)', "Path.rename"),
        ("os.unlink(name, dir_fd=folder)", ""),
        ('beneath.write("x", b"", mode=0o644)', ""),
        ('beneath.unlink("x", missing_ok=True)', ""),
        ('beneath.rename("x", "y")', ""),
        ('beneath.open("x", os.O_RDONLY)', ""),
        ('text.replace("x", "y")', ""),
    ],
)
def test_ways_are_told_from_others(tmp_path: Path, line: str, way: str) -> None:
    (tmp_path / "x.py").write_text(line)
    assert " ".join(ways(tmp_path / "x.py")) == way
