"""The disks of a guest that was not built here: what is on each, its copy, whether it changed."""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import process
from pipeline.artifact.sums import copy_disk
from pipeline.dom0.inventory import InstalledDisk
from pipeline.dom0.layout import Layout
from pipeline.errors import EnvironmentFault, Finding, InUseError
from pipeline.files import open_disk
from pipeline.foreign.old_guest import node_of
from pipeline.storage import lvm
from pipeline.storage.block_device import copy_device
from pipeline.storage.disks import volume_path
from pipeline.storage.refusals import refuse_volumes, require_folder_room, require_pool_room
from pipeline.storage.staged_volume import create_noted
from pipeline.storage.steps import Step, remove_tree, rename_volume
from pipeline.storage.transaction import Transaction
from pipeline.storage.written import mark_of
from pipeline.walls.cage import caged_reader
from pipeline.walls.privacy import make_private_folder
from pipeline.xen.devices import Disk

FILE_SYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs")
GENERATION = 2  # of the disks that a guest gets; the first are those that it had
_TAG = re.compile(r"^(TYPE|UUID|LABEL|PTTYPE)=(.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class OldDisk:
    """A disk as it lies there. `vdev` is its name in the guest from now on, `mark` tells whether
    anybody has written to it since (`mark_of`); sizes in bytes, `used_bytes` what a copy takes."""

    vdev: str
    path: Path
    format: str
    access: str
    fs: str = ""
    uuid: str = ""
    label: str = ""
    table: str = ""
    size: int = 0
    used_bytes: int = 0
    mark: str = ""
    pool: str = ""
    is_volume: bool = False

    @property
    def kind(self) -> str:
        return "block" if self.path.is_block_device() else "file"

    @property
    def node(self) -> str:
        """What it is called in the guest."""
        return f"/dev/{self.vdev}"

    def is_meant(self, name: str) -> bool:
        """Whether fstab or root= mean it: a node by any old name, UUID= or LABEL=."""
        kind, _, value = name.partition("=")
        if value:
            own = {"UUID": self.uuid, "LABEL": self.label}.get(kind, "")
            return bool(own) and own == value.strip('"')
        return node_of(name) == self.node

    def as_before(self, role: str) -> InstalledDisk:
        """In the record of what the guest was."""
        return InstalledDisk(
            self.vdev, str(self.path), self.kind, self.format, role, is_owned=False
        )


def look_at_disks(disks: Iterable[Disk]) -> list[OldDisk]:
    """Each disk that is there and no CD. Raises EnvironmentFault for one that is not."""
    return [_look(disk) for disk in disks if disk.devtype == "disk"]


def _look(disk: Disk) -> OldDisk:
    path = Path(disk.target)
    try:
        with open_disk(path) as stream:
            state = os.fstat(stream.fileno())
            size = stream.seek(0, os.SEEK_END)
    except OSError as error:
        raise EnvironmentFault(
            f"{path}: {error.strerror}", hint="the configuration names it as a disk: put it back"
        ) from error
    is_block = stat.S_ISBLK(state.st_mode)
    volume = _find_volume(path) if is_block else None
    tags: Mapping[str, str] = {}
    if disk.format == "raw":
        probe = ["blkid", "-p", "-o", "export", path]
        tags = dict(_TAG.findall(process.run(caged_reader(probe, readable=[path]), accept=(0, 2))))
    return OldDisk(
        vdev=disk.vdev,
        path=path,
        format=disk.format,
        access=disk.access,
        fs=tags.get("TYPE", ""),
        uuid=tags.get("UUID", ""),
        label=tags.get("LABEL", ""),
        table=tags.get("PTTYPE", ""),
        size=size,
        used_bytes=size if is_block else state.st_blocks * 512,
        mark=mark_of(path),
        pool=volume.pool if volume else "",
        is_volume=volume is not None,
    )


def _find_volume(path: Path) -> lvm.Volume | None:
    """The volume of a device; /dev/VG0/x and /dev/mapper/VG0-x are the same one."""
    if process.find_tool("lvs") is None or os.geteuid() != 0:
        return None
    number = path.stat().st_rdev
    wanted = (os.major(number), os.minor(number))
    volumes = lvm.list_volumes(process.run)
    return next((volume for volume in volumes if volume.device == wanted), None)


def find_disk_trouble(disks: Sequence[OldDisk]) -> Iterator[Finding]:
    """What speaks against a copy of these, those that are changed."""
    for disk in disks:
        if disk.format != "raw":
            yield Finding(
                "error",
                disk.vdev,
                f"{disk.path} is {disk.format}: only raw disks and volumes are changed",
                f"qemu-img convert -O raw {disk.path} NEW, and name it in the configuration",
            )
        elif disk.table:
            yield Finding(
                "error",
                disk.vdev,
                f"{disk.path} has a partition table ({disk.table})",
                "copy its file systems into disks of their own, and name those",
            )
        elif disk.kind == "block" and not disk.is_volume:
            yield Finding(
                "error",
                disk.vdev,
                f"{disk.path} is no logical volume: there is no place for a copy beside it",
                "copy it into a volume or a file, and name that in the configuration",
            )


def plan_copies(
    layout: Layout, name: str, disks: Sequence[OldDisk], *, changed: Mapping[str, str]
) -> tuple[InstalledDisk, ...]:
    """The disks of the guest from now on; those in `changed` (vdev to role) are copies."""
    planned = []
    for disk in disks:
        if disk.vdev not in changed:
            role = "swap" if disk.fs == "swap" else "data"
            planned.append(disk.as_before(role))
            continue
        target = layout.disks(name, GENERATION) / f"{disk.vdev}.img"
        if disk.is_volume:
            target = volume_path(_group_of(disk), name, f"disk-{disk.vdev}.img", GENERATION)
        planned.append(
            InstalledDisk(
                disk.vdev, str(target), disk.kind, "raw", changed[disk.vdev], is_owned=True
            )
        )
    return tuple(planned)


def _group_of(disk: OldDisk) -> str:
    volume = _find_volume(disk.path)
    if volume is None:
        raise EnvironmentFault(f"{disk.path} is no logical volume any more", hint="look at it")
    return volume.group


def refuse_full(layout: Layout, pairs: Sequence[tuple[OldDisk, InstalledDisk]]) -> None:
    """Raises EnvironmentFault with figures where the copies have no room."""
    files = [old.used_bytes for old, new in pairs if new.kind == "file"]
    at = layout.images
    while not at.exists():
        at = at.parent
    if not os.access(at, os.W_OK):
        raise EnvironmentFault(f"{at} cannot be written", hint="run doit modernize as root")
    require_folder_room(at, sum(files), what=" for copies of its disks")
    groups: dict[str, list[tuple[Path, int]]] = {}
    for old, new in pairs:
        if new.kind == "block" and old.pool:
            require_pool_room(process.run, new.path.parent.name, old.pool, old.used_bytes)
        elif new.kind == "block":
            groups.setdefault(new.path.parent.name, []).append((new.path, old.size))
    for group, wanted in groups.items():
        refuse_volumes(process.run, group, wanted)


@dataclass(frozen=True)
class Copied:
    """A copy before its disk takes the place: where it lies, and the steps that name it."""

    path: Path
    steps: tuple[Step, ...] = ()


def copy_old_disk(change: Transaction, old: OldDisk, new: InstalledDisk, log: Path) -> Copied:
    """The same bytes in another place, on the disk when this returns."""
    if new.kind == "block":
        volume = create_noted(change, new.path, old.size, pool=old.pool)
        copy_device(old.path, volume.path, is_zeroed=bool(old.pool))
        return Copied(volume.path, (rename_volume(volume.group, volume.name, new.path.name),))
    if not new.path.parent.exists():
        change.will_make(remove_tree(new.path.parent))
        make_private_folder(new.path.parent.parent)
        make_private_folder(new.path.parent)
    copy_disk(old.path, new.path, log=log)
    return Copied(new.path)


def refuse_written(disks: Iterable[OldDisk]) -> None:
    """Raises InUseError when somebody has written to a disk since it was looked at."""
    for disk in disks:
        if mark_of(disk.path) != disk.mark:
            raise InUseError(
                f"{disk.path} was written to while its copy was changed and proven",
                hint="leave the guest shut down until doit modernize has ended, then again",
            )
