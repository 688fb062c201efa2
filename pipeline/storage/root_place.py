"""Where a file system lies: a disk of its own, or a partition of a disk that has a table."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Place:
    """A file system in a disk's file or device: `size` bytes from `offset` on, 0 for all of it."""

    disk: Path
    offset: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """What e2fsprogs' programs call it, but those that make a file system."""
        return f"{self.disk}?offset={self.offset}" if self.offset else str(self.disk)

    @property
    def mount_options(self) -> tuple[str, ...]:
        """What mount(8) needs to find it; nothing for a device that holds nothing else."""
        if self.offset:
            return ("loop", f"offset={self.offset}", f"sizelimit={self.size}")
        return () if self.disk.is_block_device() else ("loop",)
