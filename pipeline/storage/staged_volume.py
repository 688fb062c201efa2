"""A finished image onto a volume with a temporary name, which is verified before it is renamed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import process
from pipeline.storage import lvm
from pipeline.storage.block_device import write_image
from pipeline.storage.disks import INSTALLED_TAG, MIB, Target, name_new
from pipeline.storage.lvm import Volume
from pipeline.storage.refusals import require_pool_room
from pipeline.storage.steps import remove_volume
from pipeline.storage.transaction import Transaction
from pipeline.storage.written import BuiltDisk


@contextmanager
def removed_on_failure(run: lvm.Run) -> Iterator[list[BuiltDisk]]:
    """Volumes that are put into the list are removed again when the block fails."""
    made: list[BuiltDisk] = []
    try:
        yield made
    except BaseException:
        remove_staged(run, made[::-1])
        raise


def remove_staged(run: lvm.Run, made: Iterable[BuiltDisk]) -> None:
    """Remove volumes that never got their names; nothing for one that is gone or in its place."""
    for disk in made:
        with lvm.lvm_lock():
            found = lvm.find_volume(run, disk.group, disk.staged)
            if found is not None and found.uuid == disk.uuid:
                lvm.remove_volume(run, found)


def stage_image(run: lvm.Run, target: Target, image: Path, made: list[BuiltDisk]) -> BuiltDisk:
    """Make a volume, write the image onto it whole, compare; it is put into `made` at once.

    Raises EnvironmentFault when there is no room, VerificationError when other bytes come back.
    """
    if target.pool:
        require_pool_room(run, target.group, target.pool, image.stat().st_blocks * 512)
    size = target.part.size_mib * MIB
    volume = create_staged(run, target, size, made)
    written = write_image(image, volume.path, is_zeroed=bool(target.pool))
    made[-1] = BuiltDisk.of_volume(target, volume, written)
    return made[-1]


def create_staged(run: lvm.Run, target: Target, size_bytes: int, made: list[BuiltDisk]) -> Volume:
    """An empty volume under a temporary name; it is put into `made` at once."""
    volume = lvm.create_volume(
        run,
        target.group,
        name_new(target.path.name),
        size_bytes=size_bytes,
        pool=target.pool,
        tags=target.tags,
    )
    made.append(BuiltDisk.of_volume(target, volume))
    return volume


def create_noted(change: Transaction, device: Path, size_bytes: int, *, pool: str = "") -> Volume:
    """The same for the volume of an installed guest, whose change removes it if it fails."""
    staged = device.with_name(name_new(device.name))
    change.will_make(remove_volume(staged))
    return lvm.create_volume(
        process.run,
        device.parent.name,
        staged.name,
        size_bytes=size_bytes,
        pool=pool,
        tags=[f"{INSTALLED_TAG}{change.guest}"],
    )
