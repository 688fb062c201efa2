"""The leak check: what a test must leave as it found it."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path

SETTLE_S = 5.0


@dataclass(frozen=True)
class Belongings:
    """Mount points, attached loop devices, our processes, entries of the temporary folder."""

    mounts: frozenset[str] = frozenset()
    loops: frozenset[str] = frozenset()
    processes: frozenset[str] = frozenset()
    temporary: frozenset[str] = frozenset()

    def since(self, before: Belongings) -> Belongings:
        """What is there now and was not before; processes get a moment to end."""
        end = time.monotonic() + SETTLE_S
        left = self._minus(before)
        while left.processes and time.monotonic() < end:
            time.sleep(0.2)
            left = take_stock()._minus(before)
        return left

    def _minus(self, before: Belongings) -> Belongings:
        return Belongings(
            *(getattr(self, item.name) - getattr(before, item.name) for item in fields(self))
        )


def take_stock() -> Belongings:
    """The machine as it stands."""
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    loops = {path.parent.parent.name for path in Path("/sys/block").glob("loop*/loop/backing_file")}
    return Belongings(
        frozenset(mounts),
        frozenset(loops),
        frozenset(_processes()),
        frozenset(
            name
            for name in os.listdir(tempfile.gettempdir())
            if not name.startswith(("pytest-of-", "bash_", "claude"))
        ),
    )


# the pipeline's own tools; anything else on the machine is not ours to judge
_OURS = frozenset(
    [
        "mmdebstrap",
        "debootstrap",
        "disk-image-crea",
        "unshare",
        "dpkg",
        "dpkg-deb",
        "apt-get",
        "mke2fs",
        "debugfs",
        "resize2fs",
        "qemu-img",
        "tar",
        "gpgv",
        "chroot",
        "tune2fs",
        "e2fsck",
        "depmod",
    ]
)


def _processes() -> set[str]:
    found: set[str] = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                name = Path(entry.path, "comm").read_text().strip()
            except OSError:
                continue
            if name in _OURS:
                found.add(f"{entry.name} {name}")
    return found
