"""What a script of a package may have made of the tree before the next one comes, or it is tidied.

Each gets the tree and the path of the witness: a folder of the host that no case may change.
"""

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.host.package_table import MIB, PATH


def put_link(tree: Path, name: str, target: Path | str) -> None:
    """What a script can do with any name of its tree."""
    path = tree / name
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}.old"))
    elif path.exists() or path.is_symlink():
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def put_pipe(tree: Path, name: str) -> None:
    (tree / name).unlink(missing_ok=True)
    os.mkfifo(tree / name)


def put_text(name: str, text: str) -> Callable[[Path, Path], None]:
    return lambda tree, _host: None if (tree / name).write_text(text) else None


def put_deep(tree: Path, name: str) -> None:
    top = os.open(tree / name, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=top)
        lower = os.open("d", os.O_RDONLY, dir_fd=top)
        os.close(top)
        top = lower
    os.close(top)


def link_out(name: str, tree: Path, host: Path) -> None:
    put_link(tree, name, host)


def link_up_and_out(name: str, tree: Path, host: Path) -> None:
    put_link(tree, name, os.path.relpath(host, (tree / name).parent))


def link_to_file(name: str, tree: Path, host: Path) -> None:
    put_link(tree, name, host / "shadow")


def leave_pipe(name: str, tree: Path, _host: Path) -> None:
    put_pipe(tree, name)


def divert_through_link(tree: Path, host: Path) -> None:
    put_link(tree, "opt", host)
    (tree / DPKG / "diversions").write_text("/usr/lib\n/opt/x\nbase\n")


Leave = Callable[[Path, Path], object]
DPKG = "var/lib/dpkg"
# folders of the tree that a script may turn into links
SWAPPED = (
    *("usr", "usr/lib", "etc", "var", "var/lib", DPKG, f"{DPKG}/info", f"{DPKG}/triggers"),
    *("usr/sbin", "tmp", "run", "var/log", "var/lib/apt/lists", "var/cache/apt/archives/partial"),
)
REPLACED = (
    *(f"{DPKG}/{name}" for name in ("status", "triggers/File", "triggers/Unincorp", "diversions")),
    *(f"{DPKG}/{name}" for name in ("tmp.ci", "info/next.list", "info/next.md5sums")),
    *("etc/machine-id", "etc/passwd", "etc/ssh/ssh_host_rsa_key", "usr/sbin/policy-rc.d"),
    *("var/lib/apt/lists/lock", "var/log/dpkg.log", "usr/lib/next", "etc/next.conf"),
)
LEFT: dict[str, tuple[Leave, str]] = {
    # whether it is an error or a tree is the script's luck; nothing outside is the rule
    **{f"{name} is a link out": (partial(link_out, name), "") for name in SWAPPED},
    **{f"{name} is a link up and out": (partial(link_up_and_out, name), "") for name in SWAPPED},
    **{f"{name} is a link to a file": (partial(link_to_file, name), "") for name in REPLACED},
    **{f"{name} is a pipe": (partial(leave_pipe, name), "") for name in REPLACED},
    "usr/lib is a link to /proc/self/root": (
        lambda tree, _host: put_link(tree, "usr/lib", "/proc/self/root/tmp"),
        "without|leads out|another one",
    ),
    "usr/lib is in a circle": (lambda tree, _host: put_link(tree, "usr/lib", "lib"), "leads out"),
    "usr/lib is gone": (lambda tree, _host: (tree / "usr/lib").rmdir(), ""),
    "usr/lib is a link inside": (lambda tree, _host: put_link(tree, "usr/lib", "/etc"), ""),
    "a diversion that leads out": (
        put_text(f"{DPKG}/diversions", "/usr/lib\n/../../x\nbase\n"),
        PATH,
    ),
    "a diversion of two lines": (
        put_text(f"{DPKG}/diversions", "/usr/lib\n/usr/x\n"),
        "three lines",
    ),
    "a diversion that is relative": (put_text(f"{DPKG}/diversions", "usr/lib\nx\nbase\n"), PATH),
    "diversions of 2 MiB": (put_text(f"{DPKG}/diversions", "x" * 2 * MIB), "longer than"),
    "a diversion through a link out": (divert_through_link, "opt/x"),
    "a diverted file": (
        put_text(f"{DPKG}/diversions", "/usr/lib/next\n/x\nbase\n"),
        "which next ships",
    ),
    "no status": (lambda tree, _host: (tree / DPKG / "status").unlink(), ""),
    "no triggers": (lambda tree, _host: (tree / DPKG / "triggers/File").unlink(), "dpkg"),
    "tmp.ci is there": (lambda tree, _host: (tree / DPKG / "tmp.ci").mkdir(), "File exists"),
    "/tmp is 1500 folders deep": (lambda tree, _host: put_deep(tree, "tmp"), ""),
    "lists/lock is a folder": (
        lambda tree, _host: (tree / "var/lib/apt/lists/lock").mkdir(),
        "lock",
    ),
    "an odd number of apt's": (put_text("etc/passwd", "_apt:x:../1:\n_apt\n::::\n_apt:x:\n"), ""),
    "a socket in /run": (lambda tree, _host: os.mknod(tree / "run/s", stat.S_IFSOCK | 0o600), ""),
}
