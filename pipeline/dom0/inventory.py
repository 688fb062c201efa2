"""What is installed on this host: a record for each guest, written when its configuration is."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.artifact.kernel_folder import ABI
from pipeline.dom0.layout import Layout
from pipeline.errors import EnvironmentFault, PipelineError, UsageError, suggest_nearest
from pipeline.files import damaged, read_table, take
from pipeline.spec.values import check_guest_name
from pipeline.storage.written import mark_of
from pipeline.walls.privacy import PRIVATE_FILE, close_folder

FORM = 1
_WRITTEN = "written"
_WHAT = "a record of an installed guest"
FOUND = "found"  # the word of a guest that was here before doit
_VDEV = re.compile(r"[a-z]{2,4}[a-z0-9]{0,8}")
_CHOICES = {
    "kind": ("file", "block"),
    "role": ("root", "whole", "swap", "boot", "data", "shared"),
    "word": ("install", "refresh", "rebuild", "resize", "modernize", FOUND),
    "toolstack": ("xl", "xm"),
    "fs": ("ext2", "ext3", "ext4", "xfs", "btrfs"),
}


@dataclass(frozen=True)
class InstalledDisk:
    """A disk of an installed guest; `kind` is file or block, `role` root, swap, boot, data, shared:
    other guests have it too, or whole: it has partitions, of which the root is the last.

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

    @property
    def is_whole(self) -> bool:
        return self.role == "whole"


@dataclass(frozen=True)
class Membership:
    """Of which appliance a guest is a member, behind which guests it starts, when it is ready.

    That is asked at `addresses`, the fixed ones of its cards on other bridges than `private`.
    """

    appliance: str
    after: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    private: tuple[str, ...] = ()


@dataclass(frozen=True)
class Installed:
    """An installed guest; `kernel` is its folder in Layout.kernels, "" when it brings its own.

    `config_text` is the configuration as we wrote it, edits of the administrator's that were taken
    over included; `rendered_text` is the same without them ("" where there were none), which is how
    a rebuild knows an edit. `pending` a kernel's folder that the guest
    gets when it is down, `stale_modules` ABIs in the guest that nobody needs. `origin` is what it
    was made from: stage to fingerprint, and `proof`, the verdict. `previous` is what an undo goes
    back to, one step. `membership` is that in an appliance, if any.
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
    membership: Membership | None = None

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


def list_used_versions(layout: Layout) -> set[str]:
    """Fingerprints of what the guests of this host were installed from, or can go back to."""
    records = survey(layout)[0].values()
    before = (record.previous for record in records if record.previous)
    return {record.origin.get("config", "") for record in (*records, *before)} - {""}


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


def list_members(layout: Layout, appliance: str) -> dict[str, Installed]:
    """The installed members of an appliance, by name, each behind those that it starts after."""
    waiting = {
        name: record
        for name, record in list_installed(layout).items()
        if record.membership and record.membership.appliance == appliance
    }
    members: dict[str, Installed] = {}
    while waiting:
        free = [name for name in waiting if not _earlier(waiting[name], waiting)]
        name = (free or list(waiting))[0]  # records that somebody edited may wait for one another
        members[name] = waiting.pop(name)
    return members


def _earlier(record: Installed, waiting: Collection[str]) -> set[str]:
    return set(record.membership.after if record.membership else ()) & set(waiting)


def require_installed(layout: Layout, name: str) -> Installed:
    """The record; raises UsageError naming those that are installed."""
    record = read_installed(layout, name)
    if record is None:
        known = sorted(survey(layout)[0])
        hints = [suggest_nearest(name, known), f"installed: {', '.join(known) or 'none'}"]
        raise UsageError(f"{name} is not installed here", hint="; ".join(filter(None, hints)))
    return record


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


def marked(record: Installed, staged: Mapping[str, Path]) -> Installed:
    """The same record, with the marks of today for disks that only we have written to.

    `staged` says where those are that a commit puts in their places, by target.
    """

    def mark(disk: InstalledDisk) -> InstalledDisk:
        path = staged.get(disk.target, disk.path)
        is_ours = disk.mark != _WRITTEN and path.exists()
        return replace(disk, mark=mark_of(path)) if is_ours else disk

    return replace(record, disks=tuple(map(mark, record.disks)))


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


def _from_table(table: dict[str, Any], layout: Layout, *, is_previous: bool = False) -> Installed:
    """A record out of what a file holds, each value looked at; ValueError for what we never write.

    Unknown keys are a TypeError: a later pipeline's record is not understood by half.
    """
    previous = table.pop("previous")
    if previous is not None and (is_previous or type(previous) is not dict):
        raise ValueError("previous is no record")
    origin = take(table, "origin", dict)
    membership = table.pop("membership", None)
    texts = {key: take(table, key, str, default="") for key in _TEXTS}
    record = Installed(
        generation=take(table, "generation", int),
        changed_at=take(table, "changed_at", int),
        is_autostarted=take(table, "is_autostarted", bool),
        disks=tuple(_read_disk(disk) for disk in take(table, "disks", list)),
        origin={str(key): str(value) for key, value in origin.items()},
        stale_modules=tuple(map(str, take(table, "stale_modules", list))),
        previous=_from_table(previous, layout, is_previous=True) if previous else None,
        membership=None if membership is None else _read_membership(membership),
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


_LISTS = ("after", "ready", "addresses", "private")


def _read_membership(table: object) -> Membership:
    if type(table) is not dict:
        raise ValueError("membership is no table")
    lists = {key: tuple(map(str, take(table, key, list))) for key in _LISTS}
    name = check_guest_name(take(table, "appliance", str))
    if table:
        raise ValueError(f"membership has {', '.join(map(str, table))}")
    return Membership(name, **lists)


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
