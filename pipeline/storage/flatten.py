"""Making a copy-on-write guest stand on its own."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import process
from pipeline.errors import InUseError, UsageError
from pipeline.files import sync_file, sync_folder
from pipeline.process import require_tools
from pipeline.project import Project
from pipeline.scratch import scratch_folder
from pipeline.spec import Spec
from pipeline.storage import lvm
from pipeline.storage.block_device import copy_device
from pipeline.storage.disks import Target, targets_of
from pipeline.storage.images import TOOLS, find_backing, flatten
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.refusals import require_pool_room
from pipeline.storage.staged_volume import create_staged, remove_staged, removed_on_failure
from pipeline.storage.switch import publish_volumes
from pipeline.storage.written import read_record, read_times, write_record, write_times
from pipeline.walls.privacy import make_private

DISK = "disk.qcow2"


def flatten_guest(project: Project, spec: Spec) -> str:
    """Replace the guest's disks by such as need no golden image; returns what they rested on.

    The new disk is compared with the old one before it takes its place; the guest must be shut
    down. Raises UsageError where nothing is shared, InUseError while a disk is in use.
    """
    log = project.log(spec.name, "flatten")
    log.parent.mkdir(parents=True, exist_ok=True)

    def run(argv: Sequence[object], **options: Any) -> str:
        return process.run(argv, log=log, **options)

    targets = targets_of(spec, project)
    thin = [target for target in targets if target.pool]
    if thin:
        return _flatten_volumes(project, spec.name, thin, run, log)
    if spec.clone == "cow" and spec.format == "raw":
        return _flatten_shared(project, spec.name, targets, run)
    return _flatten_overlay(project, spec.name, run)


def _flatten_volumes(
    project: Project, guest: str, targets: Sequence[Target], run: lvm.Run, log: Path
) -> str:
    """Thin volumes with blocks of their own, beside the snapshots, whose names they take."""
    found = [(target, lvm.find_volume(run, target.group, target.path.name)) for target in targets]
    snapshots = [(target, volume) for target, volume in found if volume and volume.origin]
    if not snapshots:
        raise UsageError(f"{guest}: its volumes are no snapshots", hint="nothing is to be done")
    with removed_on_failure(run) as made:
        for target, old in snapshots:
            refuse_if_used(old.path)
            require_pool_room(run, target.group, target.pool, int(old.size * old.filled / 100))
            volume = create_staged(run, target, old.size, made)
            copy_device(old.path, volume.path)
    folder = project.volume(guest)
    before = read_record(folder)
    parts = {disk.part for disk in made}
    write_record(folder, [*(disk for disk in before if disk.part not in parts), *made])
    try:
        publish_volumes(project, guest, made, log)
    except InUseError:
        remove_staged(run, made)
        write_record(folder, before)
        raise
    return ", ".join(f"{old.group}/{old.origin}" for _, old in snapshots)


def _flatten_shared(project: Project, guest: str, targets: Sequence[Target], run: lvm.Run) -> str:
    """Image files with blocks of their own instead of the golden image's."""
    for target in targets:
        disk = target.path
        if not target.part.has_files or not disk.is_file():
            continue
        refuse_if_used(disk)
        with _scratch(project, guest) as scratch:
            new = make_private(scratch / disk.name)
            run(["cp", "--reflink=never", "--sparse=always", disk, new])
            run(["cmp", disk, scratch / disk.name])
            _replace(project, guest, scratch / disk.name)
    return "blocks of its golden image"


def _flatten_overlay(project: Project, guest: str, run: lvm.Run) -> str:
    """A qcow2 file without a backing file."""
    require_tools(TOOLS)
    disk = project.artifact(guest) / DISK
    backing = find_backing(run, disk) if disk.is_file() else ""
    if not backing:
        raise UsageError(
            f"{guest}: its disk rests on no golden image",
            hint="only guests with clone=cow need flattening",
        )
    refuse_if_used(disk)
    with _scratch(project, guest) as scratch:
        flatten(run, disk, scratch / DISK)
        refuse_if_used(disk)
        _replace(project, guest, scratch / DISK)
    return backing


@contextmanager
def _scratch(project: Project, guest: str) -> Iterator[Path]:
    root = project.scratch
    root.mkdir(parents=True, exist_ok=True)
    with scratch_folder(root, f"flatten-{guest}", mode=0o700) as scratch:
        yield scratch


def _replace(project: Project, guest: str, new: Path) -> None:
    """Both stages' folders name the same disk: the artifact's first, it is what boots."""
    before = (project.artifact(guest) / new.name).stat().st_mtime_ns
    sync_file(new)
    for place in (project.artifact(guest), project.volume(guest)):
        os.link(new, new.with_name("second"))
        os.replace(new.with_name("second"), place / new.name)
        sync_folder(place)
    _note(project, guest, new.name, before)


def _note(project: Project, guest: str, name: str, before: int) -> None:
    """A disk that its guest had not written to still counts as such."""
    folder = project.volume(guest)
    times = read_times(folder)
    if times.get(name) == before:
        times[name] = (folder / name).stat().st_mtime_ns
        write_times(folder, times)
