"""One disk of a guest from its golden image to its place."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.scratch import remove_tree
from pipeline.spec import Spec
from pipeline.spec.cloud_init import SEED_FS
from pipeline.spec.devices import Part
from pipeline.storage import images, lvm
from pipeline.storage.block_device import write_image
from pipeline.storage.boot_code import BootCode
from pipeline.storage.disks import MIB, Target, file_name
from pipeline.storage.ext import IdentityFile
from pipeline.storage.fat import make_fat
from pipeline.storage.filesystems import MOUNTED, make_own_mounted
from pipeline.storage.golden import snapshot_golden
from pipeline.storage.refusals import size_of
from pipeline.storage.replicated import make_replicated
from pipeline.storage.staged_volume import stage_image
from pipeline.storage.whole_disk import assemble
from pipeline.storage.written import BuiltDisk, note_times, write_record
from pipeline.walls.privacy import make_private


@dataclass
class Bench:
    """What all disks of one guest are made from: the folder of golden images, the guest's files.

    `work` holds what is needed in between; `epoch` is the time of everything that is written;
    `code` is what starts a whole disk, `seed` what cloud-init reads.
    """

    spec: Spec
    golden: Path
    scratch: Path
    work: Path
    epoch: int
    files: Sequence[IdentityFile]
    code: BootCode | None = None
    seed: Mapping[str, bytes] = field(default_factory=dict)
    built: list[BuiltDisk] = field(default_factory=list)

    def files_of(self, part: Part) -> list[IdentityFile]:
        """The guest's own files that lie in this part, with paths inside it."""
        found = []
        for file in self.files:
            if _home_of(file.path, self.spec.parts) == part:
                inside = "/" + file.path.removeprefix(part.mountpoint).lstrip("/")
                found.append(IdentityFile(inside, file.content, file.mode, file.link))
        return found

    def finish(self) -> None:
        """Note what is not in the folder as a file; nothing but the disks stays."""
        write_record(self.scratch, self.built)
        shutil.rmtree(self.work)
        note_times(self.scratch)


def make_disk(run: lvm.Run, target: Target, bench: Bench, made: list[BuiltDisk]) -> None:
    """Make one disk; volumes that were made are put into `made`, for their undoing."""
    part, spec = target.part, bench.spec
    golden = bench.golden / images.golden_name(part.mountpoint)
    if spec.clone == "cow" and part.has_files:
        _make_clone(run, target, golden, bench, made)
        return
    image = bench.scratch / file_name(part, "raw")
    if part.inside:
        _make_whole(run, target, image, bench)
    else:
        _make_part(run, part, image, bench)
    _place(run, target, image, bench, made)


def _make_part(run: lvm.Run, part: Part, image: Path, bench: Bench) -> None:
    if part.is_swap:
        images.make_swap(run, image, part, bench.spec)
    elif part.is_replicated:
        make_replicated(run, image, part)
    elif part.is_shared:
        os.truncate(make_private(image), part.size_mib * MIB)
    elif part.is_seed:
        make_fat(
            run,
            image,
            size_bytes=part.size_mib * MIB,
            label=SEED_FS,
            serial=images.identity_uuid(bench.spec, part)[:8],
            files=bench.seed,
            epoch=bench.epoch,
        )
    else:
        images.copy_golden(run, bench.golden / images.golden_name(part.mountpoint), image)
        make_own_and_grow(run, image, part, bench)


def _make_whole(run: lvm.Run, target: Target, image: Path, bench: Bench) -> None:
    """Every partition in a file of its own, then all of them in the disk."""
    assert bench.code is not None
    disk = target.part
    made = {part: bench.scratch / f"{part.name}.part" for part in disk.inside}
    for part, file in made.items():
        _make_part(run, part, file, bench)
    assemble(
        run,
        image,
        spec=bench.spec,
        disk=disk,
        code=bench.code,
        made=made,
        epoch=bench.epoch,
        size=_room_of(run, target),
    )


def _room_of(run: lvm.Run, target: Target) -> int:
    """Bytes of a disk in its place: the second copy of its table belongs at its very end."""
    size = target.part.size_mib * MIB
    if target.is_volume:
        group = lvm.read_group(run, target.group)
        return group.extents(size) * group.extent
    return size_of(target.path) if target.kind == "device" else size


def make_own_and_grow(run: lvm.Run, disk: Path, part: Part, bench: Bench) -> None:
    """Identity, UUID and size, on a file or a device that holds the golden image."""
    if part.fs in MOUNTED:
        make_own_mounted(
            run,
            disk,
            fs=part.fs,
            uuid=images.identity_uuid(bench.spec, part),
            files=bench.files_of(part),
            work=bench.work,
            epoch=bench.epoch,
            size_bytes=part.size_mib * MIB,
        )
        return
    images.make_own(
        run,
        disk,
        part=part,
        spec=bench.spec,
        files=bench.files_of(part),
        work=bench.work,
        epoch=bench.epoch,
    )
    images.grow_ext(run, disk, part.size_mib * MIB, bench.epoch)


def _place(run: lvm.Run, target: Target, image: Path, bench: Bench, made: list[BuiltDisk]) -> None:
    if target.kind == "file":
        final = bench.scratch / target.path.name
        images.convert(
            run,
            image,
            final,
            disk_format=target.format,
            is_full=target.is_full,
            identity=images.identity_uuid(bench.spec, target.part),
            epoch=bench.epoch,
        )
        return
    if target.is_volume:
        bench.built.append(stage_image(run, target, image, made))
    else:
        written = write_image(image, target.path)
        bench.built.append(BuiltDisk(target.part.name, target.path, written))
    image.unlink()


def _make_clone(
    run: lvm.Run, target: Target, golden: Path, bench: Bench, made: list[BuiltDisk]
) -> None:
    """A copy-on-write disk: thin snapshot, shared blocks, or qcow2 overlay."""
    part = target.part
    if target.is_volume:
        volume = snapshot_golden(run, target, golden, bench.golden.name, made)
        make_own_and_grow(run, volume.path, part, bench)
        bench.built.append(BuiltDisk.of_volume(target, volume))
        return
    final = bench.scratch / target.path.name
    if target.format == "raw":
        images.share_golden(run, golden, final)
        make_own_and_grow(run, final, part, bench)
        return
    images.make_overlay_disk(
        run,
        final,
        golden,
        part=part,
        spec=bench.spec,
        files=bench.files_of(part),
        work=bench.work,
        epoch=bench.epoch,
    )
    for path in bench.work.iterdir():
        remove_tree(path) if path.is_dir() else path.unlink()


def _home_of(path: str, parts: Sequence[Part]) -> Part:
    """The part whose mount point is the nearest above a path."""
    above = {str(folder) for folder in (PurePosixPath(path), *PurePosixPath(path).parents)}
    found = [part for part in parts if part.mountpoint in above]
    return max(found, key=lambda part: len(part.mountpoint))
