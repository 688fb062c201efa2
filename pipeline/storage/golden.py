"""Golden images as thin volumes: what copy-on-write guests of a pool are snapshots of."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from pipeline.errors import InUseError
from pipeline.locks import locked
from pipeline.project import Project
from pipeline.storage import lvm
from pipeline.storage.block_device import write_image
from pipeline.storage.disks import GOLDEN_TAG, PROJECT_TAG, Target, name_new, project_mark
from pipeline.storage.lvm import Volume
from pipeline.storage.refusals import require_pool_room
from pipeline.storage.staged_volume import create_staged, removed_on_failure
from pipeline.storage.written import BuiltDisk

PREFIX = "domu-golden-"
_LOCKS = Path("/run/lock")


def snapshot_golden(
    run: lvm.Run, target: Target, image: Path, fingerprint: str, made: list[BuiltDisk]
) -> Volume:
    """A new snapshot of this golden image under a temporary name; it is put into `made`.

    The golden volume is made when the pool has none of that fingerprint, and is read only.
    """
    golden = _ensure(run, target, image, fingerprint)
    name = name_new(target.path.name)
    volume = lvm.create_snapshot(run, target.group, golden.name, name, tags=target.tags)
    made.append(BuiltDisk.of_volume(target, volume))
    size = target.part.size_mib << 20
    return lvm.extend_volume(run, volume, size) if size > volume.size else volume


def list_golden(run: lvm.Run, group: str = "") -> dict[Volume, tuple[str, ...]]:
    """Every golden volume, with the names of the volumes that are snapshots of it."""
    volumes = lvm.list_volumes(run, group)
    return {
        golden: tuple(
            sorted(
                volume.name
                for volume in volumes
                if (volume.group, volume.origin) == (golden.group, golden.name)
            )
        )
        for golden in volumes
        if any(tag.startswith(GOLDEN_TAG) for tag in golden.tags)
    }


def remove_unused(run: lvm.Run, project: Project, current: Collection[str]) -> list[str]:
    """Remove this project's golden volumes without clones that no spec would use today.

    `current` are fingerprints of golden images. Returns the names of what is gone.
    """
    ours = f"{PROJECT_TAG}{project_mark(project)}"
    used = {f"{GOLDEN_TAG}{fingerprint}" for fingerprint in current}
    gone = []
    for golden, clones in list_golden(run).items():
        if ours in golden.tags and not clones and not used & golden.tags:
            remove_golden(run, golden)
            gone.append(f"{golden.group}/{golden.name}")
    return gone


def remove_golden(run: lvm.Run, golden: Volume) -> None:
    """Remove a golden volume; raises InUseError when a guest is a snapshot of it."""
    with lvm.lvm_lock():
        if clones := list_golden(run, golden.group).get(golden):
            raise InUseError(
                f"{golden.path} is the golden image of {', '.join(clones)}",
                hint="doit flatten name=GUEST makes a guest stand on its own",
            )
        lvm.remove_volume(run, golden)


def _ensure(run: lvm.Run, target: Target, image: Path, fingerprint: str) -> Volume:
    part = "" if target.part.is_root else f"-{target.part.name}"
    name = f"{PREFIX}{fingerprint[:16]}{part}"
    with locked(_LOCKS / f"domu-{target.group}-{name}.lock"):
        found = lvm.find_volume(run, target.group, name)
        if found is not None:
            return lvm.activate_volume(run, found)
        return _make(run, target, image, name, f"{GOLDEN_TAG}{fingerprint}")


def _make(run: lvm.Run, target: Target, image: Path, name: str, tag: str) -> Volume:
    require_pool_room(run, target.group, target.pool, image.stat().st_blocks * 512)
    target = replace(target, tags=(*target.tags[1:], tag))
    with removed_on_failure(run) as made:
        volume = create_staged(run, target, image.stat().st_size, made)
        write_image(image, volume.path, is_zeroed=True)
        lvm.make_read_only(run, volume)
        return lvm.rename_volume(run, target.group, volume.name, name)
