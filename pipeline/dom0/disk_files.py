"""Disks on the host: what is wrong with one, and copies that only their owner can read.

A guest's disk holds its host keys and the hash of root's password.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.dom0.inventory import InstalledDisk
from pipeline.errors import EnvironmentFault
from pipeline.walls.privacy import (
    PRIVATE_FILE,
    close_folder,
)

_SPARE_BYTES = 8 << 20


def tighten(disks: Iterable[InstalledDisk]) -> None:
    """Close what an earlier version left open for others: files that are disks, their folders."""
    for disk in disks:
        if not disk.is_owned or disk.kind != "file":
            continue
        with suppress(OSError):
            if stat.S_ISREG(disk.path.lstat().st_mode):
                disk.path.chmod(PRIVATE_FILE)
                for folder in disk.path.parents[:2]:
                    close_folder(folder)


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
