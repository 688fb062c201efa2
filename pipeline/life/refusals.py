"""What forbids an installation, asked before anything is made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pipeline.errors import EnvironmentFault, InUseError
from pipeline.host.in_use import refuse_if_used
from pipeline.life import logical, placing
from pipeline.life.install import Plan
from pipeline.life.layout import Layout
from pipeline.life.records import Installed, find_written
from pipeline.life.toolstack import Toolstack, refuse_running


def refuse_impossible(plan: Plan, layout: Layout, toolstack: Toolstack | None) -> list[str]:
    """Everything that forbids the installation, before anything is made; returns notes.

    Raises InUseError for foreign files, running guests and open disks, EnvironmentFault where the
    host has no room or rights.
    """
    notes = [refuse_running(toolstack, plan.name, "installing")]
    placing.refuse_foreign(layout, plan.name)
    if layout.save_file(plan.name).exists():
        raise InUseError(
            f"{plan.name} is saved in {layout.save_file(plan.name)}: its memory and its disks "
            "belong together",
            hint=f"doit restore name={plan.name}, or remove the file",
        )
    for one in plan.disks:
        if one.source is not None:
            refuse_if_used(one.source)
    if plan.before is not None:
        for disk in plan.before.disks:
            refuse_if_used(disk.path)
    folder = layout.disks(plan.name, plan.generation)
    if os.path.lexists(folder):
        raise InUseError(f"{folder} is there and was not installed by doit", hint="move it away")
    _refuse_full(plan, layout)
    return [note for note in notes if note]


def refuse_replacing(name: str, before: Installed | None, *, may_replace: bool) -> None:
    """Raises InUseError when the guest is installed already and that was not asked for."""
    if before is None or may_replace:
        return
    written = find_written(before)
    lost = ", and its guest has written to " + ", ".join(disk.target for disk in written)
    raise InUseError(
        f"{name} is installed already{lost if written else ''}",
        hint=f"doit rebuild name={name} replaces its root disk and can be undone; "
        "replace=yes puts the artifact in its place and loses what was there",
    )


def _refuse_full(plan: Plan, layout: Layout) -> None:
    groups: dict[str, list[tuple[Path, int]]] = {}
    for one in plan.disks:
        if one.source is not None and one.disk.kind == "block":
            wanted = groups.setdefault(one.disk.path.parent.name, [])
            wanted.append((one.disk.path, one.source.stat().st_size))
    for group, devices in groups.items():
        logical.refuse_volumes(group, devices)
    files = [one.source for one in plan.disks if one.source and one.disk.kind == "file"]
    need = sum(path.stat().st_blocks * 512 for path in files)
    at = layout.images
    while not at.exists():
        at = at.parent
    if not os.access(at, os.W_OK):
        raise EnvironmentFault(f"{at} cannot be written", hint="run doit install as root")
    free = shutil.disk_usage(at).free
    if free < need:
        raise EnvironmentFault(
            f"{layout.images}: {need >> 20} MiB are needed, {free >> 20} MiB are free",
            hint="make room, or install into a volume group: lvm=VG",
        )
