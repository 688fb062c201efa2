"""Golden images as thin volumes: what copy-on-write guests of a pool are snapshots of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InUseError
from pipeline.locks import locked
from pipeline.project import Project
from pipeline.storage import lvm
from pipeline.storage.block_device import write_image
from pipeline.storage.disks import GOLDEN_TAG, PROJECT_TAG, LogicalTarget, project_mark
from pipeline.storage.lvm import Volume
from pipeline.storage.staged_volume import (
    Staged,
    make_staged,
    new_name,
    removed_on_failure,
    require_pool_room,
)

PREFIX = "domu-golden-"
_LOCKS = Path("/run/lock")


@dataclass(frozen=True)
class Golden:
    """A golden volume and the volumes that are snapshots of it."""

    volume: Volume
    clones: tuple[str, ...]


def snapshot_golden(
    run: lvm.Run, target: LogicalTarget, image: Path, fingerprint: str, made: list[Staged]
) -> Volume:
    """A new snapshot of this golden image under a temporary name; it is put into `made`.

    The golden volume is made when the pool has none of that fingerprint, and is read only.
    """
    golden = _ensure(run, target, image, fingerprint)
    name = new_name(target)
    volume = lvm.create_snapshot(run, target.group, golden.name, name, tags=target.tags)
    made.append(make_staged(target, volume))
    size = target.part.size_mib << 20
    return lvm.extend_volume(run, volume, size) if size > volume.size else volume


def list_golden(run: lvm.Run, group: str = "") -> list[Golden]:
    """Every golden volume, with its clones."""
    volumes = lvm.list_volumes(run, group)
    found = []
    for volume in volumes:
        if any(tag.startswith(GOLDEN_TAG) for tag in volume.tags):
            clones = [
                one.name
                for one in volumes
                if one.group == volume.group and one.origin == volume.name
            ]
            found.append(Golden(volume, tuple(sorted(clones))))
    return found


def remove_unused(run: lvm.Run, project: Project, current: Collection[str]) -> list[str]:
    """Remove this project's golden volumes without clones that no spec would use today.

    `current` are fingerprints of golden images. Returns the names of what is gone.
    """
    ours = f"{PROJECT_TAG}{project_mark(project)}"
    gone = []
    for golden in list_golden(run):
        tags = golden.volume.tags
        is_current = any(f"{GOLDEN_TAG}{fingerprint}" in tags for fingerprint in current)
        if ours in tags and not golden.clones and not is_current:
            remove_golden(run, golden)
            gone.append(f"{golden.volume.group}/{golden.volume.name}")
    return gone


def remove_golden(run: lvm.Run, golden: Golden) -> None:
    """Remove a golden volume; raises InUseError when a guest is a snapshot of it."""
    with lvm.lvm_lock():
        now = [one for one in list_golden(run, golden.volume.group) if one.volume == golden.volume]
        if now and now[0].clones:
            raise InUseError(
                f"{golden.volume.path} is the golden image of {', '.join(now[0].clones)}",
                hint="doit flatten name=GUEST makes a guest stand on its own",
            )
        lvm.remove_volume(run, golden.volume)


def _ensure(run: lvm.Run, target: LogicalTarget, image: Path, fingerprint: str) -> Volume:
    part = "" if target.part.is_root else f"-{target.part.name}"
    name = f"{PREFIX}{fingerprint[:16]}{part}"
    with locked(_LOCKS / f"domu-{target.group}-{name}.lock"):
        found = lvm.find_volume(run, target.group, name)
        if found is not None:
            return lvm.activate_volume(run, found)
        return _make(run, target, image, name, f"{GOLDEN_TAG}{fingerprint}")


def _make(run: lvm.Run, target: LogicalTarget, image: Path, name: str, tag: str) -> Volume:
    require_pool_room(run, target.group, target.pool, image.stat().st_blocks * 512)
    with removed_on_failure(run) as made:
        volume = lvm.create_volume(
            run,
            target.group,
            new_name(target),
            size_bytes=image.stat().st_size,
            pool=target.pool,
            tags=[*target.tags[1:], tag],
        )
        made.append(make_staged(target, volume))
        write_image(image, volume.path, is_zeroed=True)
        lvm.make_read_only(run, volume)
        return lvm.rename_volume(run, target.group, volume.name, name)
