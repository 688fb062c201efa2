"""Disks on the host: what is wrong with one, and copies that only their owner can read.

A guest's disk holds its host keys and the hash of root's password.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline import command
from pipeline.canonical import sync_folder
from pipeline.errors import EnvironmentFault, VerificationError
from pipeline.life.records import InstalledDisk
from pipeline.privacy import make_private
from pipeline.sums import digest_as

_SPARE_BYTES = 8 << 20
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


def make_private_folder(folder: Path) -> None:
    """A folder that nobody else looks into, and its parents; one of ours from before is closed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    _close(folder)


def _close(folder: Path) -> None:
    """Nobody else looks in; where an administrator's link leads is his."""
    if not folder.is_symlink():
        folder.chmod(PRIVATE_FOLDER)


def copy_disk(source: Path, target: Path, *, recorded: str = "", log: Path | None = None) -> None:
    """A sparse copy, or a reflink, on the disk when this returns; `target` must not be there.

    `recorded` is the digest that it must have, VerificationError where it has not.
    """
    make_private(target)
    command.run(["cp", "--sparse=always", "--reflink=auto", "--", source, target], log=log)
    if recorded and digest_as(recorded, target) != recorded:
        raise VerificationError(
            f"{target} is not what was copied from {source}",
            hint="it changed meanwhile, or a disk or the memory fails: see dmesg and smartctl",
        )
    descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(target.parent)


def tighten(disks: Iterable[InstalledDisk]) -> None:
    """Close what an earlier version left open for others: files that are disks, their folders."""
    for disk in disks:
        if not disk.is_owned or disk.kind != "file":
            continue
        with suppress(OSError):
            if stat.S_ISREG(disk.path.lstat().st_mode):
                disk.path.chmod(PRIVATE_FILE)
                for folder in disk.path.parents[:2]:
                    _close(folder)


def find_fault(disk: InstalledDisk) -> str:
    """What is wrong with a guest's disk, "" for one that is there and is one."""
    try:
        mode = disk.path.stat().st_mode
    except FileNotFoundError:
        return f"{disk.target} is gone"
    except OSError as error:
        return f"{disk.target}: {error.strerror}"
    is_right = stat.S_ISBLK(mode) if disk.kind == "block" else stat.S_ISREG(mode)
    return "" if is_right else f"{disk.target} is no disk but a {_kind_of(mode)}"


def _kind_of(mode: int) -> str:
    kinds = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "FIFO", stat.S_ISREG: "file"}
    return next((name for test, name in kinds.items() if test(mode)), "device")


def require_disk(disk: InstalledDisk) -> None:
    """Raises EnvironmentFault where the disk cannot be worked on."""
    if fault := find_fault(disk):
        raise EnvironmentFault(
            fault, hint="put it back from a copy; or take the guest off: doit remove, yes=yes"
        )


def refuse_no_room(disk: InstalledDisk, more: Path) -> None:
    """Raises EnvironmentFault where the host has no room for what a file adds to a sparse disk.

    The file system in it promises more than a full host can give, and what is written is lost.
    """
    require_disk(disk)
    if disk.kind != "file":
        return
    state = os.statvfs(disk.path.parent)
    free, need = state.f_bavail * state.f_frsize, more.stat().st_size + _SPARE_BYTES
    if free < need:
        raise EnvironmentFault(
            f"{disk.path.parent}: {need >> 20} MiB are needed, {free >> 20} MiB are free",
            hint="make room on this host",
        )
