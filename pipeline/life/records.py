"""What is installed on this host: a record for each guest, written when its configuration is."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, UsageError
from pipeline.life.layout import Layout
from pipeline.spec.mistakes import suggest_nearest

FORM = 1
_HEAD_BYTES = 1 << 20
_WRITTEN = "written"


@dataclass(frozen=True)
class InstalledDisk:
    """A disk of an installed guest; `kind` is file or block, `role` root, swap, boot or data.

    `is_owned` says that we made it, so that we may remove it. `mark` tells whether its guest has
    written to it since (`mark_of`).
    """

    vdev: str
    target: str
    kind: str
    format: str
    role: str
    is_owned: bool
    mark: str = ""

    @property
    def path(self) -> Path:
        """Where it is on the host."""
        return Path(self.target)


@dataclass(frozen=True)
class Installed:
    """An installed guest; `kernel` is its folder in Layout.kernels, "" when it brings its own.

    `config_text` is the configuration as we wrote it; `pending` a kernel's folder that the guest
    gets when it is down, `stale_modules` ABIs in the guest that nobody needs. `origin` is what it
    was made from: stage to fingerprint, and `proof`, the verdict. `previous` is what an undo goes
    back to, one step.
    """

    name: str
    word: str
    generation: int
    changed_at: int
    config_text: str
    is_autostarted: bool
    disks: tuple[InstalledDisk, ...]
    kernel: str = ""
    abi: str = ""
    fs: str = "ext4"
    suite: str = ""
    toolstack: str = "xl"
    origin: dict[str, str] = field(default_factory=dict)
    pending: str = ""
    stale_modules: tuple[str, ...] = ()
    previous: Installed | None = None

    @property
    def is_kernel_inside(self) -> bool:
        """Whether the guest boots the kernel that is installed in it."""
        return not self.kernel

    @property
    def config_sha256(self) -> str:
        """Digest of the configuration as we wrote it."""
        return hashlib.sha256(self.config_text.encode()).hexdigest()

    def without_previous(self) -> Installed:
        """The same, with nothing to go back to."""
        return replace(self, previous=None)

    def to_json(self) -> bytes:
        """The record's file."""
        return (
            json.dumps({"form": FORM, **asdict(self)}, indent=1, sort_keys=True) + "\n"
        ).encode()


def read_installed(layout: Layout, name: str) -> Installed | None:
    """The record of a guest; None when it is not installed. Raises PipelineError for a bad file."""
    path = layout.record(name)
    try:
        table = json.loads(path.read_bytes())
        if table.pop("form") != FORM:
            raise ValueError("of a form that is not known here")
        return _from_table(table)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise PipelineError(
            f"{path} is not a record of an installed guest ({error})",
            hint="move it away; what it named stays where it is",
        ) from error


def list_installed(layout: Layout) -> dict[str, Installed]:
    """Every installed guest, by name."""
    found = {}
    for path in sorted((layout.state / "installed").glob("*.json")):
        record = read_installed(layout, path.stem)
        if record is not None:
            found[record.name] = record
    return found


def require_installed(layout: Layout, name: str) -> Installed:
    """The record; raises UsageError naming those that are installed."""
    record = read_installed(layout, name)
    if record is None:
        known = sorted(list_installed(layout))
        hints = [suggest_nearest(name, known), f"installed: {', '.join(known) or 'none'}"]
        raise UsageError(f"{name} is not installed here", hint="; ".join(filter(None, hints)))
    return record


def mark_of(disk: Path) -> str:
    """What changes when a guest writes to its disk.

    A file's modification time; of a device the digest of its first MiB, where every file system
    that we make notes each mount (ext4's s_mtime, xfs' and btrfs' generation).
    """
    if disk.is_file():
        return f"mtime {disk.stat().st_mtime_ns}"
    with open(disk, "rb") as stream:
        return f"head {hashlib.sha256(stream.read(_HEAD_BYTES)).hexdigest()}"


def find_written(record: Installed) -> list[InstalledDisk]:
    """The owned disks that their guest has written to since they were put in place."""
    return [
        disk
        for disk in record.disks
        if disk.is_owned and disk.path.exists() and mark_of(disk.path) != disk.mark
    ]


def note_written(record: Installed) -> Installed:
    """The same record, with the disks noted for good that their guest has written to."""
    written = {disk.target for disk in find_written(record)}
    disks = (
        replace(disk, mark=_WRITTEN) if disk.target in written else disk for disk in record.disks
    )
    return replace(record, disks=tuple(disks))


def marked(record: Installed) -> Installed:
    """The same record, with the marks of today for disks that only we have written to."""
    disks = (
        replace(disk, mark=mark_of(disk.path))
        if disk.mark != _WRITTEN and disk.path.exists()
        else disk
        for disk in record.disks
    )
    return replace(record, disks=tuple(disks))


def is_edited(layout: Layout, record: Installed) -> bool:
    """Whether somebody changed the configuration after we wrote it."""
    try:
        return layout.config(record.name).read_text() != record.config_text
    except (OSError, ValueError):
        return True


def _from_table(table: dict[str, Any]) -> Installed:
    previous, disks = table.pop("previous"), table.pop("disks")
    return Installed(
        **{**table, "stale_modules": tuple(table["stale_modules"])},
        disks=tuple(InstalledDisk(**disk) for disk in disks),
        previous=_from_table(previous) if previous is not None else None,
    )


def link_target(link: Path) -> str:
    """Where a symbolic link leads, "" when it is none."""
    return os.readlink(link) if link.is_symlink() else ""
