"""Who uses a file: a running guest, a loop device, any process that has it open."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import InUseError


def refuse_if_used(path: Path) -> None:
    """Raise InUseError naming the holder when a file is open or behind a loop device.

    Covers qemu, blktap and dom0's loop devices; what a user may not see (other users' processes)
    stays unseen.
    """
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return
    holders = [*_loop_devices(path), *_processes((wanted.st_dev, wanted.st_ino))]
    if holders:
        raise InUseError(
            f"{path} is in use by {', '.join(holders)}",
            hint="shut the guest down (xl shutdown NAME) or detach it, then build again",
        )


def _loop_devices(path: Path) -> list[str]:
    found: list[str] = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if backing.read_text().strip() == str(path):
                found.append(f"/dev/{backing.parent.parent.name}")
        except OSError:
            continue
    return found


def _processes(wanted: tuple[int, int]) -> list[str]:
    found: list[str] = []
    own = str(os.getpid())
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or entry.name == own:
            continue
        if _has_open(Path(entry.path), wanted):
            found.append(f"process {entry.name} ({_name_of(Path(entry.path))})")
    return found


def _has_open(process: Path, wanted: tuple[int, int]) -> bool:
    try:
        for handle in os.scandir(process / "fd"):
            state = os.stat(handle.path)
            if (state.st_dev, state.st_ino) == wanted:
                return True
    except OSError:
        return False
    return False


def _name_of(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "ended"
