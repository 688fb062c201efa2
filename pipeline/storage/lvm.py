"""LVM2: volume groups, logical volumes and thin pools, read and changed by its own commands.

Every command holds one lock of the machine, so that two builds never look at a half-made change of
the other. A volume's device node is waited for by the kernel's number, not slept for.
Names and tags: lvm(8), "VALID NAMES"; the report's fields: lvs(8), vgs(8), lvmreport(7).
"""

import json
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import CommandFailed, EnvironmentFault, PipelineError
from pipeline.locks import locked
from pipeline.process import find_tool, require_tools

GROUP_FIELDS = "vg_name,vg_uuid,vg_size,vg_free,vg_extent_size,vg_free_count"
VOLUME_FIELDS = (
    "vg_name,lv_name,lv_uuid,lv_size,lv_attr,lv_tags,pool_lv,origin,data_percent,"
    "metadata_percent,lv_kernel_major,lv_kernel_minor,chunk_size,zero"
)
FORM = ("--reportformat", "json", "--units", "b", "--nosuffix")


@dataclass(frozen=True)
class Group:
    """A volume group; sizes in bytes."""

    name: str
    size: int
    free: int
    extent: int
    free_extents: int

    def extents(self, size_bytes: int) -> int:
        """How many extents that many bytes take."""
        return -(-size_bytes // self.extent)


@dataclass(frozen=True)
class Volume:
    """A logical volume. Sizes in bytes, `filled` and `metadata_filled` in percent of a pool.

    `device` is the kernel's (major, minor), None while it is not active; `zeroes` says of a thin
    pool whether it hands out its blocks zeroed.
    """

    group: str
    name: str
    uuid: str
    size: int
    attributes: str
    tags: frozenset[str] = frozenset()
    pool: str = ""
    origin: str = ""
    filled: float = 0.0
    metadata_filled: float = 0.0
    device: tuple[int, int] | None = None
    chunk: int = 0
    zeroes: bool = True

    @property
    def path(self) -> Path:
        """The name by which everybody opens it."""
        return Path("/dev", self.group, self.name)

    @property
    def is_pool(self) -> bool:
        return self.attributes.startswith("t")

    @property
    def is_thin(self) -> bool:
        return self.attributes.startswith("V")


def parse_report(text: str, kind: str) -> list[dict[str, Any]]:
    """The rows of a report (`vg`, `lv`); LVM's warnings may stand before and after it.

    Raises EnvironmentFault when there is no report in it.
    """
    found = re.search(r"^\s*\{\s*$", text, re.MULTILINE)
    if found is None:
        raise EnvironmentFault(f"LVM gives no report: {text.strip()[-300:] or 'nothing'}")
    report = json.JSONDecoder().raw_decode(text, text.index("{", found.start()))[0]
    return [row for part in report["report"] for row in part.get(kind, [])]


def make_group(row: Mapping[str, Any]) -> Group:
    """The record of one row of vgs."""
    return Group(
        name=row["vg_name"],
        size=int(row["vg_size"]),
        free=int(row["vg_free"]),
        extent=int(row["vg_extent_size"]),
        free_extents=int(row["vg_free_count"]),
    )


def make_volume(row: Mapping[str, Any]) -> Volume:
    """The record of one row of lvs."""
    major, minor = row["lv_kernel_major"], row["lv_kernel_minor"]
    is_active = major not in ("", "-1")
    return Volume(
        group=row["vg_name"],
        name=row["lv_name"],
        uuid=row["lv_uuid"],
        size=int(row["lv_size"]),
        attributes=row["lv_attr"],
        tags=frozenset(filter(None, row["lv_tags"].split(","))),
        pool=row["pool_lv"],
        origin=row["origin"],
        filled=float(row["data_percent"] or 0),
        metadata_filled=float(row["metadata_percent"] or 0),
        device=(int(major), int(minor)) if is_active else None,
        chunk=int(row["chunk_size"] or 0),
        zeroes=row["zero"] in ("zero", "1"),
    )


Run = Callable[..., str]
LOCK = Path("/run/lock/domu-lvm.lock")
NODE_TIMEOUT_S = 10
TOOLS = {"lvs": "lvm2", "lvcreate": "lvm2", "dmsetup": "dmsetup"}
_UDEV = Path("/run/udev/control")
_QUIET = {"LVM_SUPPRESS_FD_WARNINGS": "1"}
_held = threading.local()


def missing_tools() -> list[str]:
    """The programs of LVM that this machine lacks."""
    return [tool for tool in TOOLS if find_tool(tool) is None]


def require_lvm() -> None:
    """Raises EnvironmentFault without root or without the programs."""
    require_tools(TOOLS)
    if os.geteuid() != 0:
        raise EnvironmentFault(
            "logical volumes can be made by root only",
            hint="sudo ./doit ..., or leave lvm out to get an image file",
        )


@contextmanager
def lvm_lock() -> Iterator[None]:
    """One at a time on this machine; taken again by whoever has it."""
    depth = getattr(_held, "depth", 0)
    if depth:
        _held.depth = depth + 1
        try:
            yield
        finally:
            _held.depth -= 1
        return
    with locked(LOCK):
        _held.depth = 1
        try:
            yield
        finally:
            _held.depth = 0


def list_groups(run: Run) -> list[Group]:
    """All volume groups of this machine."""
    rows = _report(run, ["vgs", "-o", GROUP_FIELDS], "vg")
    return [make_group(row) for row in rows]


def read_group(run: Run, name: str) -> Group:
    """One volume group; raises EnvironmentFault when there is none of that name."""
    groups = {group.name: group for group in list_groups(run)}
    if name not in groups:
        known = ", ".join(sorted(groups)) or "none"
        raise EnvironmentFault(
            f"there is no volume group '{name}' (this machine has: {known})",
            hint=f"write lvm = one that exists, or make it: vgcreate {name} /dev/DISK",
        )
    return groups[name]


def list_volumes(run: Run, group: str = "") -> list[Volume]:
    """The logical volumes of a group or of all, without LVM's own hidden ones."""
    argv = ["lvs", "-o", VOLUME_FIELDS, *([group] if group else [])]
    # a row for each segment where one of the fields is a segment's: a grown volume has several
    found = {volume.uuid: volume for volume in map(make_volume, _report(run, argv, "lv"))}
    return list(found.values())


def find_volume(run: Run, group: str, name: str) -> Volume | None:
    """The volume of that name, or None."""
    return next((found for found in list_volumes(run, group) if found.name == name), None)


def require_volume(run: Run, device: Path) -> Volume:
    """The volume of /dev/GROUP/NAME; raises EnvironmentFault where there is none."""
    found = find_volume(run, device.parent.name, device.name)
    if found is None:
        raise EnvironmentFault(f"{device} is no logical volume", hint="lvs lists them")
    return found


def create_volume(
    run: Run, group: str, name: str, *, size_bytes: int, pool: str = "", tags: Sequence[str] = ()
) -> Volume:
    """A new volume, of whole extents, or in a thin pool. What it holds is not defined.

    Signatures of former file systems are not asked about (-W n): the caller writes every block.
    """
    where = ["--thin", "-V", f"{size_bytes}b"] if pool else ["-Z", "n", "-L", f"{size_bytes}b"]
    words = [word for tag in tags for word in ("--addtag", tag)]
    target = f"{group}/{pool}" if pool else group
    _change(run, ["lvcreate", "-y", "-W", "n", *where, *words, "-n", name, target])
    return await_node(run, group, name)


def create_snapshot(
    run: Run, group: str, origin: str, name: str, *, tags: Sequence[str] = ()
) -> Volume:
    """A writable thin snapshot, active at once."""
    words = [word for tag in tags for word in ("--addtag", tag)]
    argv = ["lvcreate", "-y", "-s", "-k", "n", "-p", "rw", *words, "-n", name, f"{group}/{origin}"]
    _change(run, argv)
    return await_node(run, group, name)


def rename_volume(run: Run, group: str, old: str, new: str) -> Volume:
    """Give a volume another name, whether it is active or not."""
    _change(run, ["lvrename", group, old, new])
    return await_node(run, group, new)


def extend_volume(run: Run, volume: Volume, size_bytes: int) -> Volume:
    """Make a volume larger; what is in it stays, what is added holds anything."""
    _change(run, ["lvextend", "-L", f"{size_bytes}b", f"{volume.group}/{volume.name}"])
    return await_node(run, volume.group, volume.name)


def reduce_volume(run: Run, volume: Volume, size_bytes: int) -> Volume:
    """Cut a volume; its file system must have been made smaller before."""
    _change(run, ["lvreduce", "-f", "-L", f"{size_bytes}b", f"{volume.group}/{volume.name}"])
    return await_node(run, volume.group, volume.name)


def remove_volume(run: Run, volume: Volume) -> None:
    """Remove a volume; the caller has made sure that nobody uses it."""
    _change(run, ["lvremove", "-f", f"{volume.group}/{volume.name}"], is_cleanup=True)


def activate_volume(run: Run, volume: Volume) -> Volume:
    """Make the device appear; nothing where it is there (-K: also of a skipped snapshot)."""
    if volume.device is None:
        _change(run, ["lvchange", "-K", "-a", "y", f"{volume.group}/{volume.name}"])
    return await_node(run, volume.group, volume.name)


def make_read_only(run: Run, volume: Volume) -> None:
    """Nobody writes to it from now on; snapshots of it may be written to."""
    _change(run, ["lvchange", "-p", "r", f"{volume.group}/{volume.name}"])


def open_count(run: Run, device: tuple[int, int] | None) -> int:
    """How often the kernel has one of device-mapper's devices open; 0 for one that is not active.

    Also what no O_EXCL finds (xen-blkback).
    """
    if device is None:
        return 0
    major, minor = device
    argv = ["dmsetup", "info", "-c", "--noheadings", "-o", "open"]
    return int(run([*argv, "-j", major, "-m", minor]).split()[-1])


def await_node(run: Run, group: str, name: str) -> Volume:
    """The volume, once /dev/GROUP/NAME is its device; an inactive one as it is.

    Raises PipelineError when the node does not come.
    """
    found = find_volume(run, group, name)
    if found is None:
        raise PipelineError(f"{group}/{name} is not there although LVM made it")
    if found.device is None or _is_node(found):
        return found
    if _UDEV.exists() and find_tool("udevadm"):
        limit = f"--timeout={NODE_TIMEOUT_S}"
        run(["udevadm", "settle", limit, f"--exit-if-exists={found.path}"], accept=(0, 1))
    if not _is_node(found):
        _change(run, ["vgmknodes", group])
    if not _is_node(found):
        raise PipelineError(
            f"{found.path} does not become the device of {group}/{name}",
            hint="see whether udev works: udevadm settle; dmsetup ls --tree",
        )
    return found


def _is_node(volume: Volume) -> bool:
    try:
        found = os.stat(volume.path)
    except OSError:
        return False
    return stat.S_ISBLK(found.st_mode) and volume.device == (
        os.major(found.st_rdev),
        os.minor(found.st_rdev),
    )


def _change(run: Run, argv: Sequence[object], *, is_cleanup: bool = False) -> None:
    program, *words = argv
    with lvm_lock():
        try:
            run([program, *udevless(), *words], env=_QUIET, is_cleanup=is_cleanup)
        except CommandFailed as error:
            raise _translate(error) from error


def _report(run: Run, argv: Sequence[object], kind: str) -> list[dict[str, Any]]:
    program, *words = argv
    with lvm_lock():
        text = run([program, *udevless(), *FORM, *words], env=_QUIET, accept=(0, 5))
    return parse_report(text, kind)


def udevless() -> list[str]:
    """Without udev (a container, a rescue system) LVM itself must make the nodes."""
    return [] if _UDEV.exists() else ["--config", "activation{udev_sync=0 udev_rules=0}"]


def _translate(error: CommandFailed) -> PipelineError:
    """LVM's own words as one line, with what to do where it is known."""
    said = [line.strip() for line in error.details.splitlines() if "WARNING" not in line]
    cause = next((line for line in reversed(said) if line), error.brief)
    hint = ""
    if "insufficient free space" in error.details or "Insufficient" in error.details:
        hint = "make room (lvs; lvremove), add a disk (vgextend), or ask for less: size="
    elif "already exists" in error.details:
        hint = "see it with lvs; remove or rename it by hand"
    return EnvironmentFault(f"{error.argv[0]}: {cause}", details=error.details, hint=hint)
