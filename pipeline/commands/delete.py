"""Deleting a guest that was built here: its artifact, its disks, and more where that is asked for.

What goes is put aside under the guest's journal and removed then: a kill leaves the guest or
nothing. What is installed on this host, and the golden half, are other commands' (remove, gc).
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline import process
from pipeline.commands.options import Delete
from pipeline.console.progress import print_line
from pipeline.dom0.inventory import list_installed
from pipeline.dom0.layout import Layout
from pipeline.errors import InUseError, PipelineError, UsageError, suggest_nearest
from pipeline.interruption import gate
from pipeline.lockfile import lock_path
from pipeline.locks import locked
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Specs
from pipeline.storage import lvm, steps
from pipeline.storage.in_use import refuse_if_defined, refuse_if_used
from pipeline.storage.switch import finish_switch, site_of
from pipeline.storage.transaction import Transaction
from pipeline.storage.written import BuiltDisk, read_record, read_times
from pipeline.store.store import Store


@dataclass(frozen=True)
class Doomed:
    """What goes: folders of output/, logical volumes, the spec's files; what is lost for good."""

    folders: tuple[Path, ...]
    volumes: tuple[BuiltDisk, ...]
    files: tuple[Path, ...]
    losses: tuple[str, ...]


def delete(recipe: Recipe, specs: Specs, asked: Delete) -> None:
    """Remove what was built; yes= where something would be lost for good."""
    project, name = recipe.project, asked.name
    with _alone(project, name):
        doomed = _find(project, asked)
        if not any((doomed.folders, doomed.volumes, doomed.files)):
            hints = [suggest_nearest(name, project.built), "doit guests lists what was"]
            raise UsageError(f"{name} was not built here", hint=next(filter(None, hints)))
        _refuse(doomed, asked)
        if not asked.dry:
            _remove(project, name, doomed)
        for path in (*doomed.folders, *(disk.path for disk in doomed.volumes), *doomed.files):
            print_line(f"  {'would remove' if asked.dry else 'removed'} {path}")
        for loss in doomed.losses if asked.dry else ():
            print_line(f"  would be lost for good: {loss}")
    _tell_of_the_rest(project, specs, asked)


@contextmanager
def _alone(project: Project, name: str) -> Iterator[None]:
    """No build, publication or proof of this guest is at work."""
    store = Store.of(project)
    paths = [store.lock_path(stage, name) for stage in ("volume", "config")]
    if (project.published / name).is_dir():
        paths.append(project.published / ".locks" / name)

    def tell() -> None:
        print_line(f"  waiting: {name} is being built or published")

    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(locked(path, on_wait=tell))
        finish_switch(project, name)
        yield


def _find(project: Project, asked: Delete) -> Doomed:
    name = asked.name
    folders = [project.artifact(name), project.volume(name), project.output / "logs" / name]
    folders.append(project.report(name).parent)
    volumes = [disk for disk in read_record(project.volume(name)) if disk.uuid and _is_there(disk)]
    written = [
        *_written_files(project.volume(name)),
        *(
            disk.path
            for disk in volumes
            if not disk.written or not disk.written.is_still_on(disk.path)
        ),
    ]
    losses = [f"{path}: its guest has written to it" for path in written]
    files: list[Path] = []
    if asked.published and (project.published / name).is_dir():
        folders.append(project.published / name)
        losses.append(f"{project.published / name}: what was published")
    if asked.spec:
        files = [project.guests / f"{name}.toml", lock_path(project, name)]
        folders.append(project.identity(name))
        losses += [f"{path}" for path in (*files, project.identity(name)) if path.exists()]
    return Doomed(
        tuple(folder for folder in folders if folder.is_dir()),
        tuple(volumes),
        tuple(file for file in files if file.exists()),
        tuple(losses),
    )


def _is_there(disk: BuiltDisk) -> bool:
    volume = lvm.find_volume(process.run, disk.group, disk.path.name)
    return volume is not None and volume.uuid == disk.uuid


def _written_files(folder: Path) -> Iterator[Path]:
    for file, mtime_ns in read_times(folder).items():
        path = folder / file
        if path.is_file() and path.stat().st_mtime_ns != mtime_ns:
            yield path


def _refuse(doomed: Doomed, asked: Delete) -> None:
    """Raises InUseError for disks in use, and losses that were not agreed to."""
    disks = [disk.path for disk in doomed.volumes]
    for folder in doomed.folders[:2]:
        disks += [path for path in folder.iterdir() if path.suffix in (".img", ".qcow2", ".vhd")]
    for path in disks:
        refuse_if_used(path)
        try:
            refuse_if_defined(path)
        except InUseError as error:
            error.hint = "take it out of that configuration first"
            raise
    if doomed.losses and not (asked.yes or asked.dry):
        raise InUseError(
            f"deleting {asked.name} would lose what cannot be made again",
            details="\n".join(doomed.losses),
            hint=f"the same line with yes=yes: doit delete name={asked.name} ... yes=yes",
        )


def _remove(project: Project, name: str, doomed: Doomed) -> None:
    """The folders go aside by renames, the domain configuration's first, then all is removed."""
    site = site_of(project.output)
    aside = site.state / name / "deleted"
    moves = [(folder, aside / folder.parent.name) for folder in doomed.folders]
    with Transaction(site, name, "delete") as change:
        change.will_make(steps.remove_tree(aside))
        aside.mkdir(parents=True, exist_ok=True)
        change.commit(
            [
                *(steps.rename(folder, target) for folder, target in moves),
                *(steps.remove_volume(disk.path) for disk in doomed.volumes),
                steps.remove_tree(aside),
            ]
        )
    for file in doomed.files:
        with gate("delete", file):
            file.unlink(missing_ok=True)


def _tell_of_the_rest(project: Project, specs: Specs, asked: Delete) -> None:
    """What stays, and how it goes too."""
    name = asked.name
    try:
        installed = list_installed(Layout.here())
    except (PipelineError, OSError):  # it is not about this host
        installed = {}
    if name in installed:
        print_line(f"  stays: {name} as it is installed here (doit remove name={name})")
    if (project.published / name).is_dir() and not asked.published:
        print_line("  stays: what was published of it (published=yes yes=yes removes it)")
    kept = [project.guests / f"{name}.toml", lock_path(project, name), project.identity(name)]
    kept = [path for path in kept if os.path.exists(path)]
    if kept and not asked.spec:
        print_line(f"  stays: {', '.join(map(str, kept))} (spec=yes yes=yes removes it)")
    if name in specs and not asked.spec:
        print_line(f"  doit build name={name} makes it again")
