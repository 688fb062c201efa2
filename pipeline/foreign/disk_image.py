"""A disk from elsewhere as a tar of its root file system: raw, qcow2, VMDK, VHD, VHDX, XVA.

Work is done on a copy: qemu-img reads a stranger's format in a cage where no other file is, ext is
looked over by e2fsck before the kernel mounts it, and the file systems are mounted in a namespace
that dies with the command. What its fstab says is where they belong.
"""

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import process
from pipeline.compression import find_compression
from pipeline.errors import CommandFailed, DiskFull, UsageError, VerificationError
from pipeline.files import open_disk
from pipeline.foreign.mounted_root import pack_disks, survey_disks
from pipeline.foreign.root_tree import FstabLine, RootTree
from pipeline.foreign.tar_command import pack_words
from pipeline.foreign.tar_writer import MADE_ANEW
from pipeline.formats.xva_reader import is_xva, take_out
from pipeline.namespace import Mount
from pipeline.scratch import remove_tree
from pipeline.storage.filesystems import EXT, MOUNTED, FileSystemAt, one_at_a_time
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.partition_table import Partition, read_partitions
from pipeline.storage.root_place import Place
from pipeline.walls.cage import caged, caged_reader, make_room
from pipeline.walls.privacy import make_private

Run = Callable[..., str]
_TOOLS = {"qemu-img": "qemu-utils", "blkid": "util-linux", "e2fsck": "e2fsprogs"}
_PACKED_DISKS = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"conectix", "vpc"),
    (0, b"vhdxfile", "vhdx"),
)
_FILE_SYSTEMS = ((1080, b"\x53\xef"), (0, b"XFSB"), (65600, b"_BHRfS_M"))
_HEAD, _VHD_FOOTER = 65608, 512
_READABLE = (*EXT, *MOUNTED)
_HIDDEN = {
    "LVM2_member": "LVM: start it where it ran (or vgchange -ay on a copy), mount what it has, "
    "and adopt the folder",
    "crypto_LUKS": "encrypted: open it with cryptsetup, mount what is in it, and adopt the folder",
    "linux_raid_member": "a part of a RAID: mdadm --assemble, and adopt the device or folder",
    "zfs_member": "ZFS: import the pool, and adopt the folder",
}
_DEVICE = re.compile(r"/dev/((?:sd|hd|vd|xvd)[a-z]|(?:nvme\d+n\d+|mmcblk\d+)(?=p\d))p?(\d*)")
_FIRST_DISKS = frozenset([*(f"{bus}a" for bus in ("sd", "hd", "vd", "xvd")), "nvme0n1", "mmcblk0"])
_OPTIONAL = {"nofail", "x-systemd.automount"}
_SHARE = 0.9  # of the free space that a copy may take


@dataclass(frozen=True)
class Part:
    """A partition, or the whole disk, and what blkid(8) finds in it."""

    place: Partition
    kind: str
    uuid: str
    label: str

    @property
    def name(self) -> str:
        return f"partition {self.place.number}" if self.place.number else "the whole disk"


@dataclass
class DiskImage:
    """What was made of a disk: `merged` mount points, (path, why) of what stayed, `notes`."""

    merged: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_format(path: Path) -> str:
    """`tar`, `xva`, `ova`, or a format of qemu-img(1), by its beginning; UsageError for others."""
    try:
        with open_disk(path) as stream:
            head = stream.read(_HEAD)
            length = stream.seek(0, 2)
            stream.seek(max(length - _VHD_FOOTER, 0))
            footer = stream.read(8)
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}", hint="from= takes a file, a folder or a block device"
        ) from error
    for at, magic, name in _PACKED_DISKS:
        if head[at : at + len(magic)] == magic:
            return name
    if footer == b"conectix":
        return "vpc"
    if head[510:512] == b"\x55\xaa" or any(
        head[at : at + len(magic)] == magic for at, magic in _FILE_SYSTEMS
    ):
        return "raw"
    if is_xva(path, head):
        return "xva"
    if head[257:262] == b"ustar" and head[:100].rstrip(b"\0").lower().endswith(b".ovf"):
        return "ova"
    if head[257:262] == b"ustar" or find_compression(head) not in ("unknown", "none"):
        return "tar"
    raise UsageError(
        f"{path} is neither a tar nor a disk with a file system or a partition table",
        hint="from= takes a tar (.gz .xz .zst), a folder, disk, XVA, OVA, ssh://HOST",
    )


def pack_disk(
    path: Path, form: str, tar: Path, *, scratch: Path, part: int, without: Sequence[str], run: Run
) -> DiskImage:
    """Write all that its fstab mounts of it into `tar`, but for mount points of `without`.

    Raises InUseError while something has it open, UsageError for a disk without a root file system
    or with several, VerificationError for a damaged one.
    """
    process.require_tools(_TOOLS)
    refuse_if_used(path)
    image = DiskImage()
    raw = (
        _take_out(path, scratch, run, image)
        if form == "xva"
        else _copy_raw(path, form, scratch, run)
    )
    with open(raw, "rb") as disk:
        places = read_partitions(disk) or [Partition(number=0, start=0, size=raw.stat().st_size)]
    parts = [probe(raw, place, run) for place in places]
    for readable in [part for part in parts if part.kind in _READABLE]:
        _settle(raw, readable, scratch, run)
    root, tree = _find_root(raw, parts, part, scratch, run)
    layout = list(_lay_out(raw, root, parts, tree.fstab, without, image))
    image.merged += [at.mountpoint for at in layout[1:]]
    image.notes.append(f"the root file system is in {root.name} ({root.kind})")
    for other in parts:
        if other.kind in _HIDDEN:
            image.left_out.append((other.name, _HIDDEN[other.kind]))

    def pack(tree: Path, packed: Path, below: Sequence[str]) -> Sequence[object]:
        return pack_words(tree, packed, below=below, without=without)

    pack_disks(layout, tar, pack, work=scratch, run=run)
    raw.unlink()
    return image


def _take_out(path: Path, scratch: Path, run: Run, image: DiskImage) -> Path:
    """The first disk of the machine of an XVA; its others stay there, and are told."""
    room = scratch / "xva"
    room.mkdir(mode=0o700)
    _refuse_full(scratch, path.stat().st_size, path)
    xva = take_out(path, room, run)
    first, *others = xva.disks
    image.notes.append(f"the machine is {xva.name} ({xva.kind}), its disk {first.label}")
    for other in others:
        image.left_out.append((other.label, "a further disk: only the first is read"))
    raw = scratch / "disk.raw"
    (room / first.file).rename(raw)
    remove_tree(room)
    return raw


def _copy_raw(path: Path, form: str, scratch: Path, run: Run) -> Path:
    """The disk as a raw file of our own: the source is never written to, its journal neither."""
    status, raw = path.stat(), make_private(scratch / "disk.raw")
    own = path
    if form != "raw" and status.st_uid != os.geteuid():  # the cage reads what is ours
        own = make_private(scratch / "disk.packed")
        _refuse_full(scratch, status.st_blocks * 512, path)
        run(["cp", "--sparse=always", "--reflink=auto", path, own])
    if form == "raw":
        _refuse_full(scratch, status.st_blocks * 512, path)
        run(["cp", "--sparse=always", "--reflink=auto", path, raw])
        return raw
    try:
        measure = ["qemu-img", "measure", "--output=json", "-f", form, "-O", "raw", own]
        needed = json.loads(run(caged_reader(measure, readable=[own])))["required"]
        _refuse_full(scratch, int(needed), path)
        convert = ["qemu-img", "convert", "-f", form, "-O", "raw", own, raw]
        run(caged_reader(convert, readable=[own], writable=[raw]))
    except CommandFailed as error:
        raise UsageError(
            f"{path}: {(error.details.strip().splitlines() or ['qemu-img cannot read it'])[-1]}",
            details=error.details,
            hint="a disk has to be whole in one file: qemu-img convert -O qcow2 makes it one",
        ) from error
    if own != path:
        own.unlink()
    return raw


def _refuse_full(folder: Path, needed: int, path: Path) -> None:
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    if needed > free * _SHARE:
        raise DiskFull(
            f"{path} has {needed >> 20} MiB in it, and {folder} {free >> 20} MiB free",
            hint="free some space, or DOMU_OUTPUT=/another/folder",
        )


def probe(raw: Path, place: Partition, run: Run) -> Part:
    """What is in a partition, by blkid(8): 2 is nothing, 8 several things at once."""
    words = ["blkid", "-p", "-o", "export", "-O", place.start, "-S", place.size, raw]
    told = run(caged_reader(words, readable=[raw]), accept=(0, 2, 8))
    table = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    return Part(place, table.get("TYPE", ""), table.get("UUID", ""), table.get("LABEL", ""))


def _at(raw: Path, part: Part, mountpoint: str = "/") -> FileSystemAt:
    return FileSystemAt(place=_place(raw, part), fs=part.kind, mountpoint=mountpoint)


def _place(raw: Path, part: Part) -> Place:
    return Place(disk=raw, offset=part.place.start, size=part.place.size)


def _find_root(
    raw: Path, parts: Sequence[Part], wanted: int, scratch: Path, run: Run
) -> tuple[Part, RootTree]:
    """The part with an /etc/fstab or an init, and its survey."""
    systems: list[tuple[Part, RootTree]] = []
    for part in parts:
        if part.kind not in _READABLE or wanted not in (0, part.place.number):
            continue
        tree = survey_disks([_at(raw, part)], work=scratch, run=run)
        if tree.fstab or tree.os_id or tree.init != "other":
            systems.append((part, tree))
    if len(systems) == 1:
        return systems[0]
    if systems:
        names = ", ".join(f"{part.name}: {tree.os_name or 'a system'}" for part, tree in systems)
        raise UsageError(f"there is more than one root file system: {names}", hint="part=NUMBER")
    seen = ", ".join(f"{part.name}: {part.kind or 'unknown'}" for part in parts) or "nothing"
    ways = [way for kind, way in _HIDDEN.items() if kind in {part.kind for part in parts}]
    raise UsageError(
        f"no root file system that can be read here ({seen})",
        hint=ways[0] if ways else "ext2, ext3, ext4, xfs and btrfs are read; or adopt a folder",
    )


def _settle(raw: Path, part: Part, scratch: Path, run: Run) -> None:
    """What its journal holds becomes part of it, in our copy; a damaged one is refused."""
    if part.kind in EXT:
        try:
            words = ["e2fsck", "-f", "-p", _place(raw, part).name]
            check = caged_reader(words, writable=[raw])
            run(check, accept=(0, 1))
        except CommandFailed as error:
            raise VerificationError(
                f"{part.name}: e2fsck finds what it does not mend by itself",
                details=error.details,
                hint="mend it at its source: e2fsck -f, then adopt it again",
            ) from error
        return
    room = make_room(scratch / "journal")
    point = room / "point"
    point.mkdir()
    options = ["nosuid", "nodev", "noexec", *_place(raw, part).mount_options]
    options += ["nouuid"] if part.kind == "xfs" else []
    mount = Mount(point, part.kind, str(raw), ",".join(options))
    words = caged(["umount", point], room=room, writable=[raw], mounts=[mount], mounts_files=True)
    with one_at_a_time([part.kind]):
        run(words)
    remove_tree(room)


def _lay_out(
    raw: Path,
    root: Part,
    parts: Sequence[Part],
    lines: Sequence[FstabLine],
    without: Sequence[str],
    image: DiskImage,
) -> Iterator[FileSystemAt]:
    """The root and what its fstab mounts of the same disk; the rest is told."""
    yield _at(raw, root)
    roots = [_DEVICE.fullmatch(line.node) for line in lines if line.mountpoint == "/"]
    disks = {match[1] for match in roots if match} or _FIRST_DISKS
    for line in lines:
        point, options = line.mountpoint.rstrip("/"), set(line.options.split(","))
        is_disk = line.node.startswith(("/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="))
        if not point.startswith("/") or not is_disk or options & {"bind", "noauto"}:
            continue
        part = _find_part(line.node, parts, disks)
        if part is root or point in MADE_ANEW:
            continue
        if point in without or (part is None and options & _OPTIONAL):
            image.left_out.append((point, f"{line.node} stays there"))
        elif part is not None and part.kind == "vfat":
            image.left_out.append((point, "the firmware's own partition, which no DomU has"))
        elif part is None or part.kind not in _READABLE:
            what = (part.kind or "unknown") if part else "not on this disk"
            raise UsageError(
                f"{point} is on {line.node}: {what}",
                hint=_HIDDEN.get(what, f"without={point} goes on without it"),
            )
        else:
            yield _at(raw, part, point)


def _find_part(node: str, parts: Sequence[Part], disks: Collection[str]) -> Part | None:
    """What a word of fstab(5) names; `disks` are names that this disk may have had."""
    key, _, value = node.partition("=")
    value = value.strip('"')
    device = _DEVICE.fullmatch(node)
    for part in parts:
        place = part.place
        names = {
            "UUID": part.uuid.lower(),
            "LABEL": part.label,
            "PARTUUID": place.uuid,
            "PARTLABEL": place.label,
        }
        if device and device[1] in disks and place.number == int(device[2] or 0):
            return part
        wanted = value.lower() if key in ("UUID", "PARTUUID") else value
        if value and names.get(key) == wanted:
            return part
    return None
