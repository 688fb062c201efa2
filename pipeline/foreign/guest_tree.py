"""The tree of a guest of ours as one tar, read out of its disks: what `doit adopt` takes.

The disks are mounted read-only in a namespace that dies with the command; nothing is copied before.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import EnvironmentFault, PipelineError
from pipeline.foreign.disk_image import Run, probe
from pipeline.foreign.mounted_root import pack_disks
from pipeline.foreign.tar_command import pack_words
from pipeline.namespace import is_root
from pipeline.spec import Spec
from pipeline.storage.filesystems import FileSystemAt
from pipeline.storage.images import identity_uuid
from pipeline.storage.partition_table import read_partitions
from pipeline.storage.root_place import Place

# no time of reading or of this host; whose folder it is says fsck
_OWN = ("--sort=name", "--pax-option=delete=atime,delete=ctime", "--exclude=./lost+found")


def pack_guest(
    spec: Spec, disks: Mapping[str, Path], tar: Path, *, scratch: Path, run: Run
) -> None:
    """Write `tar`; `disks` are raw, by the guest's name for each (xvda1).

    Raises EnvironmentFault for an ordinary user, PipelineError for disks that are not this spec's.
    """
    if not is_root():
        raise EnvironmentFault(
            "only root mounts file systems, and a tree is read out of them",
            hint="as root; or format=raw, which root adopts elsewhere: doit adopt from=FILE",
        )
    places = list(_find_places(spec, disks, run))
    if "/" not in {place.mountpoint for place in places}:
        raise PipelineError(
            f"{spec.name}: no root file system is on its disks",
            hint=f"build it again: doit build name={spec.name} replace=yes",
        )

    def words(tree: Path, packed: Path, below: Sequence[str]) -> Sequence[object]:
        told = pack_words(tree, packed, below=below)
        return [told[0], *_OWN, *told[1:]]

    pack_disks(places, tar, words, work=scratch, run=run)


def _find_places(spec: Spec, disks: Mapping[str, Path], run: Run) -> Sequence[FileSystemAt]:
    """Each file system with files in it: of a disk of its own, or of a partition, by its UUID."""
    found = []
    by_uuid = {identity_uuid(spec, part): part for part in spec.parts if part.has_files}
    by_name = {part.vdev: part for part in spec.parts if part.has_files}
    for vdev, disk in disks.items():
        with open(disk, "rb") as stream:
            partitions = read_partitions(stream)
        for partition in partitions:
            part = by_uuid.get(probe(disk, partition, run).uuid)
            if part is not None:
                place = Place(disk=disk, offset=partition.start, size=partition.size)
                found.append(FileSystemAt(place=place, fs=part.fs, mountpoint=part.mountpoint))
        if not partitions and vdev in by_name:
            part, place = by_name[vdev], Place(disk=disk)
            found.append(FileSystemAt(place=place, fs=part.fs, mountpoint=part.mountpoint))
    return sorted(found, key=lambda at: at.mountpoint)
