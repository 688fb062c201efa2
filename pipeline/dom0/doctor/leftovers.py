"""What our own killed commands left, and what nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline import process
from pipeline.dom0.kernels import purge_kernels
from pipeline.dom0.layout import Layout
from pipeline.errors import PipelineError
from pipeline.locks import is_locked, remove_unlocked
from pipeline.namespace import is_root
from pipeline.process import find_tool
from pipeline.project import Project
from pipeline.scratch import remove_abandoned
from pipeline.storage import leftovers, lvm
from pipeline.storage.staged_volume import find_abandoned
from pipeline.storage.switch import pending_switches
from pipeline.storage.transaction import list_unfinished, recover_all


def list_leftovers(project: Project, layout: Layout) -> list[str]:
    """What `remove_leftovers` would look at; a running command's are among it."""
    found = [f"an unfinished command on {name}" for name in list_unfinished(layout)]
    found += [f"scratch folder {path.name}" for path in _scratches(project) if path.is_dir()]
    found += [f"dead lock {path.name}" for path in _dead_locks(project)]
    return [*found, *(f"half-made volume {name}" for name in (*_half_made(), *_unnamed(project)))]


def remove_leftovers(project: Project, layout: Layout) -> list[str]:
    """Finish or undo what was begun, remove what is abandoned; returns what was done."""
    done = recover_all(layout)
    done += [f"removed kernel {name}: no guest boots it" for name in purge_kernels(layout)]
    scratch = project.output / "scratch"
    if scratch.is_dir():
        done += [f"removed scratch folder {path.name}" for path in remove_abandoned(scratch)]
    for path in _dead_locks(project):
        if remove_unlocked(path):
            done.append(f"removed dead lock {path.name}")
    for name in _half_made():
        group, _, volume = name.partition("/")
        found = lvm.find_volume(process.run, group, volume)
        if found is not None and not lvm.open_count(process.run, found):
            lvm.remove_volume(process.run, found)
            done.append(f"removed half-made volume {name}")
    return [*done, *_finish_builds(project)]


def _scratches(project: Project) -> Iterator[Path]:
    scratch = project.output / "scratch"
    yield from sorted(scratch.iterdir()) if scratch.is_dir() else ()


def _dead_locks(project: Project) -> list[Path]:
    """Lock files of scratch folders that are gone; their names are never used again."""
    locks = [path for path in _scratches(project) if path.name.endswith(".lock")]
    folders = {f".{path.name}.lock" for path in _scratches(project) if path.is_dir()}
    return [path for path in locks if path.name not in folders and not is_locked(path)]


def _half_made() -> list[str]:
    return find_abandoned() if is_root() and find_tool("lvs") else []


def _finish_builds(project: Project) -> list[str]:
    """Volumes of builds that were killed: half-way between their names, or without one."""
    if not pending_switches(project) and not _unnamed(project):
        return []
    try:
        return leftovers.remove_leftovers(project, process.run)
    except PipelineError as error:
        return [f"not finished: {error.brief}"]


def _unnamed(project: Project) -> list[str]:
    if not is_root() or not find_tool("lvs"):
        return []
    try:
        found = leftovers.find_leftovers(project, process.run)
    except PipelineError:
        return []
    return [f"{left.volume.group}/{left.volume.name}" for left in found]
