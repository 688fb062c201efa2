"""The root file system of a guest that is shut down, mounted where nobody else sees it.

In a mount namespace that dies with the command: a kill unmounts it, by the kernel, and what the
file system's journal holds is whole. debugfs would need no mount but leaves an inconsistent file
system when it is killed. Before that e2fsck looks at it, outside the kernel.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline import command
from pipeline.errors import (
    CommandFailed,
    EnvironmentFault,
    InUseError,
    PipelineError,
    UsageError,
    VerificationError,
)
from pipeline.host.in_use import refuse_if_used
from pipeline.host.namespace import is_root, isolated
from pipeline.life.journal import work_folder
from pipeline.life.layout import Layout
from pipeline.life.records import Installed, InstalledDisk, read_installed
from pipeline.life.steps import Step
from pipeline.life.toolstack import find_toolstack, refuse_running
from pipeline.volumes.overlay import TOOLS as QCOW2_TOOLS
from pipeline.volumes.overlay import edit_overlay

_OPTIONS = "nodev,nosuid,noexec"
_EXT = ("ext2", "ext3", "ext4")
_DYING_S = 3.0


def root_disk(record: Installed) -> InstalledDisk:
    """The disk with the root file system; raises UsageError where there is none."""
    for disk in record.disks:
        if disk.role == "root":
            return disk
    raise UsageError(
        f"{record.name} has no disk with a root file system", hint="look at its record"
    )


def change_modules(layout: Layout, record: Installed, words: Sequence[str | Path]) -> str:
    """Run pipeline.life.inside in the guest's root file system; returns what it said.

    Raises InUseError while the guest runs or its disk is open, EnvironmentFault without root or
    when there is no room in the guest, VerificationError for a damaged file system.
    """
    if not is_root():
        raise EnvironmentFault("a guest's file system is opened by root only", hint="sudo ./doit")
    refuse_running(find_toolstack(), record.name, "changing its modules")
    disk = root_disk(record)
    refuse_if_used(disk.path)
    try:
        with work_folder(layout, record.name) as work:
            return _run_inside(record, disk, work, [str(word) for word in words])
    except CommandFailed as error:
        if "no space" in error.details:
            raise EnvironmentFault(
                f"{record.name}: {error.details.strip().splitlines()[-1]}",
                hint=f"doit resize name={record.name} size=...",
            ) from error
        raise


def _run_inside(record: Installed, disk: InstalledDisk, work: Path, words: list[str]) -> str:
    root = work / "root"
    root.mkdir()
    program = [sys.executable, "-m", "pipeline.life.inside", str(root), *words]
    source = Path(__file__).resolve().parents[2]
    loop = "" if disk.kind == "block" else ",loop"
    steps = [
        f'mount -t {record.fs} -o {_OPTIONS}{loop} "$1" {shlex.quote(str(root))}',
        f"cd {shlex.quote(str(source))}",
        shlex.join(program),
        f"cd / && umount {shlex.quote(str(root))}",
    ]
    if disk.format == "qcow2":
        command.require_tools(QCOW2_TOOLS)
        if record.fs in _EXT:
            steps.insert(0, 'e2fsck -p "$1" || [ $? -le 1 ]')
        return edit_overlay(command.run, disk.path, steps, work=work, env={})
    check_file_system(disk.path, record.fs)
    return command.run(isolated(["sh", "-euc", "\n".join(steps), "sh", disk.path]))


def check_file_system(disk: Path, fs: str) -> None:
    """Replay an ext file system's journal and look it over; the others do it when mounted.

    What is clean is not written to: its time of change tells whether the guest ran.
    """
    if fs not in _EXT:
        return
    try:
        command.run(["e2fsck", "-n", disk])
    except CommandFailed:
        pass
    else:
        return
    try:
        command.run(["e2fsck", "-p", disk], accept=(0, 1))
    except CommandFailed as error:
        raise VerificationError(
            f"{disk}: e2fsck finds what it does not mend by itself",
            details=error.details,
            hint=f"look at it: e2fsck -f {disk}",
        ) from error


def modules_step(record: Installed, what: str, *abis: str) -> Step:
    """A journal's step that changes the modules in the guest, `drop` or `back`."""
    return {"kind": "modules", "guest": record.name, "what": what, "abis": " ".join(abis)}


def perform_modules(layout: Layout, step: Step) -> None:
    """The step; modules that stay because the guest runs by now or cannot be read harm nobody."""
    record = read_installed(layout, step["guest"])
    if record is None:
        return
    _await_dying(root_disk(record).path)
    with suppress(PipelineError):
        change_modules(layout, record, [step["what"], *step["abis"].split()])


def _await_dying(disk: Path) -> None:
    """The programs of a killed command end a moment after it."""
    end = time.monotonic() + _DYING_S
    while time.monotonic() < end:
        try:
            refuse_if_used(disk)
        except InUseError:
            time.sleep(0.05)
        else:
            return


def is_there(disk: InstalledDisk) -> bool:
    """Whether the disk exists and may be opened."""
    return disk.path.exists() and os.access(disk.path, os.R_OK | os.W_OK)
