"""What our own killed commands left, and what nobody needs any more."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.dom0.guest_root import site_of
from pipeline.dom0.kernels import purge_kernels
from pipeline.dom0.layout import Layout
from pipeline.errors import PipelineError
from pipeline.locks import is_locked, remove_unlocked
from pipeline.namespace import is_root
from pipeline.process import find_tool
from pipeline.project import Project
from pipeline.scratch import remove_abandoned
from pipeline.storage import leftovers
from pipeline.storage.switch import pending_switches
from pipeline.storage.transaction import list_unfinished, recover_all


def list_leftovers(project: Project, layout: Layout) -> list[str]:
    """What `remove_leftovers` would look at; a running command's are among it."""
    found = [f"an unfinished command on {name}" for name in list_unfinished(site_of(layout))]
    found += [f"scratch folder {path.name}" for path in _scratches(project) if path.is_dir()]
    found += [f"dead lock {path.name}" for path in _dead_locks(project)]
    return [*found, *(f"half-made volume {name}" for name in _find_volumes(project, layout))]


def remove_leftovers(project: Project, layout: Layout) -> list[str]:
    """Finish or undo what was begun, remove what is abandoned; returns what was done."""
    done = recover_all(site_of(layout))
    done += [f"removed kernel {name}: no guest boots it" for name in purge_kernels(layout)]
    done += [f"removed scratch folder {path.name}" for path in remove_abandoned(project.scratch)]
    for path in _dead_locks(project):
        if remove_unlocked(path):
            done.append(f"removed dead lock {path.name}")
    return [*done, *_remove_volumes(project, layout)]


def _scratches(project: Project) -> Iterator[Path]:
    yield from sorted(project.scratch.iterdir()) if project.scratch.is_dir() else ()


def _dead_locks(project: Project) -> list[Path]:
    """Lock files of scratch folders that are gone; their names are never used again."""
    locks = [path for path in _scratches(project) if path.name.endswith(".lock")]
    folders = {f".{path.name}.lock" for path in _scratches(project) if path.is_dir()}
    return [path for path in locks if path.name not in folders and not is_locked(path)]


def _find_volumes(project: Project, layout: Layout) -> list[str]:
    """Volumes of killed commands: half-way between their names, or without one."""
    if not is_root() or not find_tool("lvs"):
        return []
    try:
        found = leftovers.find_leftovers(project, busy=list_unfinished(site_of(layout)))
    except PipelineError:
        return []
    return [f"{volume.group}/{volume.name}" for volume in found]


def _remove_volumes(project: Project, layout: Layout) -> list[str]:
    if not pending_switches(project) and not _find_volumes(project, layout):
        return []
    busy = list_unfinished(site_of(layout))
    try:
        return list(leftovers.remove_leftovers(project, busy=busy))
    except PipelineError as error:
        return [f"not finished: {error.brief}"]
