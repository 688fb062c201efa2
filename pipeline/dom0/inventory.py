"""What is installed on this host: a record for each guest, written when its configuration is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.artifact.kernel_folder import ABI
from pipeline.dom0.config_file import read_config
from pipeline.dom0.layout import Layout
from pipeline.errors import PipelineError, UsageError, suggest_nearest
from pipeline.files import damaged, read_table, take

FORM = 1
_HEAD_BYTES = 1 << 20
_WRITTEN = "written"
_GONE = "no disk"
_WHAT = "a record of an installed guest"
_VDEV = re.compile(r"[a-z]{2,4}[a-z0-9]{0,8}")
_CHOICES = {
    "kind": ("file", "block"),
    "role": ("root", "swap", "boot", "data"),
    "word": ("install", "refresh", "rebuild", "resize"),
    "toolstack": ("xl", "xm"),
    "fs": ("ext2", "ext3", "ext4", "xfs", "btrfs"),
}


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
        return Path(self.target)


@dataclass(frozen=True)
class Installed:
    """An installed guest; `kernel` is its folder in Layout.kernels, "" when it brings its own.

    `config_text` is the configuration as we wrote it, edits of the administrator's that were taken
    over included; `rendered_text` is the same without them ("" where there were none), which is how
    a rebuild knows an edit. `pending` a kernel's folder that the guest
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
    rendered_text: str = ""
    previous: Installed | None = None

    @property
    def is_kernel_inside(self) -> bool:
        return not self.kernel

    @property
    def rendered(self) -> str:
        """The configuration as it would be without an administrator."""
        return self.rendered_text or self.config_text

    def with_config(self, text: str, rendered: str) -> Installed:
        """The same with another configuration, and what that is without the edits in it."""
        return replace(self, config_text=text, rendered_text=rendered if rendered != text else "")

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
        table = read_table(path, _WHAT)
        if take(table, "form", int) != FORM:
            raise ValueError("of a form that is not known here")
        record = _from_table(table, layout)
        if record.name != name:
            raise ValueError(f"it is of {record.name!r}")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged(path, _WHAT, error) from error
    return record


def list_installed(layout: Layout) -> dict[str, Installed]:
    """Every installed guest, by name; PipelineError for a record that cannot be read."""
    found, problems = survey(layout)
    if problems:
        raise problems[0]
    return found


def survey(layout: Layout) -> tuple[dict[str, Installed], list[PipelineError]]:
    """Every installed guest whose record can be read, and what is wrong with the others."""
    found: dict[str, Installed] = {}
    problems = []
    for path in sorted((layout.state / "installed").glob("*.json")):
        if path.name.startswith("."):
            continue  # a draft of a command that was killed
        try:
            record = read_installed(layout, path.stem)
        except PipelineError as error:
            problems.append(error)
            continue
        if record is not None:
            found[record.name] = record
    return found, problems


def require_installed(layout: Layout, name: str) -> Installed:
    """The record; raises UsageError naming those that are installed."""
    record = read_installed(layout, name)
    if record is None:
        known = sorted(survey(layout)[0])
        hints = [suggest_nearest(name, known), f"installed: {', '.join(known) or 'none'}"]
        raise UsageError(f"{name} is not installed here", hint="; ".join(filter(None, hints)))
    return record


def mark_of(disk: Path) -> str:
    """What changes when a guest writes to its disk.

    A file's modification time; of a device the digest of its first MiB, where every file system
    that we make notes each mount (ext4's s_mtime, xfs' and btrfs' generation).
    """
    try:
        state = disk.stat()
        if stat.S_ISREG(state.st_mode):
            return f"mtime {state.st_mtime_ns}"
        if not stat.S_ISBLK(state.st_mode):
            return _GONE
        with open(disk, "rb") as stream:
            return f"head {hashlib.sha256(stream.read(_HEAD_BYTES)).hexdigest()}"
    except OSError:
        return _GONE


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
    """Whether an administrator's hand is in the configuration."""
    try:
        return read_config(layout, record.name) != record.rendered
    except PipelineError:
        return True


def _from_table(table: dict[str, Any], layout: Layout, *, is_previous: bool = False) -> Installed:
    """A record out of what a file holds, each value looked at; ValueError for what we never write.

    Unknown keys are a TypeError: a later pipeline's record is not understood by half.
    """
    previous = table.pop("previous")
    if previous is not None and (is_previous or type(previous) is not dict):
        raise ValueError("previous is no record")
    origin = take(table, "origin", dict)
    texts = {key: take(table, key, str, default="") for key in _TEXTS}
    record = Installed(
        generation=take(table, "generation", int),
        changed_at=take(table, "changed_at", int),
        is_autostarted=take(table, "is_autostarted", bool),
        disks=tuple(_read_disk(disk) for disk in take(table, "disks", list)),
        origin={str(key): str(value) for key, value in origin.items()},
        stale_modules=tuple(map(str, take(table, "stale_modules", list))),
        previous=_from_table(previous, layout, is_previous=True) if previous else None,
        **texts,
        **table,
    )
    _require_sense(record, layout)
    return record


_TEXTS = tuple("name word config_text rendered_text kernel abi fs suite toolstack pending".split())


def _read_disk(table: object) -> InstalledDisk:
    if type(table) is not dict:
        raise ValueError("a disk is no table")
    owned = take(table, "is_owned", bool)
    texts = {key: take(table, key, str, default="") for key in tuple(table)}
    disk = InstalledDisk(is_owned=owned, **texts)
    if not _VDEV.fullmatch(disk.vdev):
        raise ValueError(f"{disk.vdev!r} is no device of a guest")
    if not disk.target.startswith("/") or ".." in disk.path.parts or "\0" in disk.target:
        raise ValueError(f"{disk.target!r} is no path of a disk")
    return disk


def _require_sense(record: Installed, layout: Layout) -> None:
    """Names, choices and places are those that we write; ValueError for others."""
    if not record.config_text:
        raise ValueError("it holds no configuration")
    if not 0 < record.generation < 1 << 31:
        raise ValueError(f"generation {record.generation}")
    for key, value in _chosen(record):
        if value not in _CHOICES[key]:
            raise ValueError(f"{key} {value!r}")
    abis = [record.abi, *(name.removesuffix("-previous") for name in record.stale_modules)]
    for abi in abis:
        if abi and not ABI.fullmatch(abi):
            raise ValueError(f"abi {abi!r}")
    for folder in filter(None, (record.kernel, record.pending)):
        if Path(folder).parent != layout.kernels or Path(folder).name.startswith("."):
            raise ValueError(f"{folder!r} is not below {layout.kernels}")
    for disk in record.disks:
        is_ours = disk.path.parent.parent == layout.images / record.name
        if disk.is_owned and disk.kind == "file" and not is_ours:
            raise ValueError(f"{disk.target!r} is not below {layout.images / record.name}")


def _chosen(record: Installed) -> Iterator[tuple[str, str]]:
    yield from ((key, getattr(record, key)) for key in ("word", "toolstack", "fs"))
    for disk in record.disks:
        yield from (("kind", disk.kind), ("role", disk.role))


def link_target(link: Path) -> str:
    """Where a symbolic link leads, "" when it is none."""
    return os.readlink(link) if link.is_symlink() else ""
