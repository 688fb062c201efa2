"""What a tree holds besides its packages: made before them, tidied after them.

The same files as mmdebstrap makes and removes (mmdebstrap(1), "OPERATION"), but for what it takes
from the build host: no host name, no resolver, no path of a keyring, no settings of its own.
"""

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.bootstrap.filters import CONFIG, PathFilter
from pipeline.bootstrap.order import Order
from pipeline.errors import EnvironmentFault, PipelineError
from pipeline.walls.beneath import Beneath

_FOLDERS = (
    *("etc/apt/apt.conf.d", "etc/apt/sources.list.d", "etc/apt/preferences.d"),
    *("etc/dpkg/dpkg.cfg.d", "etc/ssh", "tmp", "usr/sbin"),
    *("var/cache/apt/archives/partial", "var/lib/apt/lists/partial", "var/log/apt"),
    *("var/lib/dpkg/alternatives", "var/lib/dpkg/info", "var/lib/dpkg/parts"),
    *("var/lib/dpkg/triggers", "var/lib/dpkg/updates"),
)
# an sshd that finds keys makes none: they would be thrown away, identity comes later
_HOST_KEYS = tuple(f"etc/ssh/ssh_host_{kind}_key" for kind in ("rsa", "ecdsa", "ed25519"))
_POLICY = "usr/sbin/policy-rc.d"
_USERS_MAX = 16 << 20
LEFT_OVER = (
    *("var/log/dpkg.log", "var/log/alternatives.log", "var/log/apt/history.log"),
    *("var/log/apt/term.log", "var/log/apt/eipp.log.xz", "var/log/bootstrap.log"),
    *("var/cache/ldconfig/aux-cache", "var/lib/dbus/machine-id"),
)


def lay_out(root: Path, order: Order) -> None:
    """The folders and files that packages expect to find."""
    root.mkdir(mode=0o755)
    with _changing(root) as tree:
        for name in order.links:
            tree.make_folders(f"usr/{name}")
            tree.symlink(f"usr/{name}", name)
        for folder in (*_FOLDERS, *PathFilter(order.unwanted).empty_folders):
            tree.make_folders(folder)
        tree.chmod("tmp", 0o1777)
        _write(tree, "etc/fstab", "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n")
        _write(tree, "etc/apt/sources.list", "".join(f"{line}\n" for line in order.sources))
        _write(tree, "var/lib/dpkg/arch", f"{order.arch}\n")
        for key in _HOST_KEYS:
            _write(tree, key, "")
        if order.unwanted:
            _write(tree, CONFIG, order.unwanted_text)


def forbid_services(root: Path) -> None:
    """Let no maintainer script start anything (invoke-rc.d(8))."""
    with _changing(root) as tree:
        _write(tree, _POLICY, "#!/bin/sh\nexit 101\n", mode=0o755)


def mark_automatic(root: Path, names: Iterable[str], arch: str) -> None:
    """Tell the tree's apt what nobody asked for by name (apt-mark(8))."""
    stanzas = [
        f"Package: {name}\nArchitecture: {arch}\nAuto-Installed: 1\n\n" for name in sorted(names)
    ]
    with _changing(root) as tree:
        _write(tree, "var/lib/apt/extended_states", "".join(stanzas))


def tidy(root: Path) -> None:
    """Remove traces of the making; leave apt's folders as apt itself leaves them.

    Scripts of packages made this tree: PipelineError for what is not of its usual kind.
    """
    with _changing(root) as tree:
        for name in (*_HOST_KEYS, _POLICY, *LEFT_OVER):
            tree.unlink(name, missing_ok=True)
        if tree.exists("etc/machine-id"):
            _write(tree, "etc/machine-id", "")
        for folder, kept in (("run", "lock"), ("tmp", "")):
            for name in tree.names(folder, follow_last=True):
                if name != kept:
                    tree.remove(f"{folder}/{name}")
        for folder in ("var/lib/apt/lists", "var/cache/apt/archives"):
            _write(tree, f"{folder}/lock", "", mode=0o640)
            tree.chown(f"{folder}/partial", _downloader(tree), 0)
            tree.chmod(f"{folder}/partial", 0o700)


@contextmanager
def _changing(root: Path) -> Iterator[Beneath]:
    """The tree, open; what goes wrong in it is the error of whoever made it so, or a full disk."""
    try:
        with Beneath(root) as tree:
            yield tree
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentFault(
                "no space left for the base tree", hint="free some space, or some memory"
            ) from error
        raise PipelineError(
            f"the base tree: {error.filename}: {error.strerror}",
            hint="a package's script has changed it: see the stage's log",
        ) from error


def _write(tree: Beneath, path: str, text: str, *, mode: int = 0o644) -> None:
    tree.write(path, text.encode(), mode=mode, replace=True)


def _downloader(tree: Beneath) -> int:
    """The number of apt's user in the tree, root's where there is none."""
    users = tree.read("etc/passwd", limit=_USERS_MAX).decode("utf-8", "surrogateescape")
    for line in users.split("\n"):
        name, _, rest = line.partition(":")
        number = rest.split(":")[1:2]
        if name == "_apt" and number and re.fullmatch("[0-9]{1,9}", number[0]):
            return int(number[0])
    return 0
