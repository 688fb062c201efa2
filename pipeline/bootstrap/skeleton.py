"""What a tree holds besides its packages: made before them, tidied after them.

The same files as mmdebstrap makes and removes (mmdebstrap(1), "OPERATION"), but for what it takes
from the build host: no host name, no resolver, no path of a keyring, no settings of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pipeline.bootstrap.filters import CONFIG
from pipeline.bootstrap.order import Order

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
_LEFT_OVER = (
    *("var/log/dpkg.log", "var/log/alternatives.log", "var/log/apt/history.log"),
    *("var/log/apt/term.log", "var/log/apt/eipp.log.xz", "var/log/bootstrap.log"),
    *("var/cache/ldconfig/aux-cache", "var/lib/dbus/machine-id"),
)


def lay_out(tree: Path, order: Order) -> None:
    """The folders and files that packages expect to find."""
    tree.mkdir(mode=0o755)
    for name in order.links:
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for folder in _FOLDERS:
        (tree / folder).mkdir(parents=True, exist_ok=True)
    (tree / "tmp").chmod(0o1777)
    (tree / "etc/fstab").write_text("# UNCONFIGURED FSTAB FOR BASE SYSTEM\n")
    (tree / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in order.sources))
    (tree / "var/lib/dpkg/arch").write_text(f"{order.arch}\n")
    for key in _HOST_KEYS:
        (tree / key).touch()
    if order.unwanted:
        (tree / CONFIG).write_text(order.unwanted_text)


def forbid_services(tree: Path) -> None:
    """Let no maintainer script start anything (invoke-rc.d(8))."""
    policy = tree / _POLICY
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)


def mark_automatic(tree: Path, names: Iterable[str], arch: str) -> None:
    """Tell the tree's apt what nobody asked for by name (apt-mark(8))."""
    stanzas = [
        f"Package: {name}\nArchitecture: {arch}\nAuto-Installed: 1\n\n" for name in sorted(names)
    ]
    (tree / "var/lib/apt/extended_states").write_text("".join(stanzas))


def tidy(tree: Path) -> None:
    """Remove traces of the making; leave apt's folders as apt itself leaves them."""
    for name in (*_HOST_KEYS, _POLICY, *_LEFT_OVER):
        (tree / name).unlink(missing_ok=True)
    machine_id = tree / "etc/machine-id"
    if machine_id.exists():
        machine_id.unlink()
        machine_id.touch()
    for folder, kept in (("run", "lock"), ("tmp", "")):
        for path in (tree / folder).iterdir():
            if path.name != kept:
                _remove(path)
    for folder in ("var/lib/apt/lists", "var/cache/apt/archives"):
        lock = tree / folder / "lock"
        lock.touch()
        lock.chmod(0o640)
        os.chown(tree / folder / "partial", _downloader(tree), 0)
        (tree / folder / "partial").chmod(0o700)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _downloader(tree: Path) -> int:
    """The number of apt's user in the tree, root's where there is none."""
    for line in (tree / "etc/passwd").read_text().splitlines():
        name, _, number, *_ = line.split(":")
        if name == "_apt":
            return int(number)
    return 0
