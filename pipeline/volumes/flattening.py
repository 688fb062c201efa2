"""Making a copy-on-write guest stand on its own."""

from __future__ import annotations

import json
import os

from pipeline import command
from pipeline.canonical import sync_folder, write_durably
from pipeline.command import require_tools
from pipeline.errors import UsageError
from pipeline.host.in_use import refuse_if_used
from pipeline.host.scratch import scratch_folder
from pipeline.project import Project
from pipeline.volumes.overlay import TOOLS, find_backing, flatten

DISK, WRITTEN = "disk.qcow2", "written.json"


def flatten_guest(project: Project, guest: str) -> str:
    """Replace the guest's overlay by a disk that needs no golden image; returns what it rested on.

    The new disk is compared with the old one before it takes its place; the guest must be shut
    down. Raises UsageError where there is no overlay, InUseError while the disk is in use.
    """
    require_tools(TOOLS)
    log = project.log(guest, "flatten")
    log.parent.mkdir(parents=True, exist_ok=True)
    disk = project.artifact(guest) / DISK

    def run(argv: list[object]) -> str:
        return command.run(argv, log=log)

    backing = find_backing(run, disk) if disk.is_file() else ""
    if not backing:
        raise UsageError(
            f"{guest}: its disk rests on no golden image",
            hint="only guests with clone=cow need flattening",
        )
    refuse_if_used(disk)
    before = disk.stat().st_mtime_ns
    root = project.output / "scratch"
    root.mkdir(parents=True, exist_ok=True)
    with scratch_folder(root, f"flatten-{guest}") as scratch:
        flatten(run, disk, scratch / DISK)
        refuse_if_used(disk)
        descriptor = os.open(scratch / DISK, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        # both stages' folders name the same disk: the artifact's first, it is what boots
        for place in (project.artifact(guest), project.volume(guest)):
            os.link(scratch / DISK, scratch / "second")
            os.replace(scratch / "second", place / DISK)
            sync_folder(place)
    _note(project, guest, before)
    return backing


def _note(project: Project, guest: str, before: int) -> None:
    """A disk that its guest had not written to still counts as such."""
    path = project.volume(guest) / WRITTEN
    times = json.loads(path.read_text())
    if times.get(DISK) == before:
        times[DISK] = (project.volume(guest) / DISK).stat().st_mtime_ns
        write_durably(path, json.dumps(times).encode())
