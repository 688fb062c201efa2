"""Putting a finished guest in its place: its folder and its volumes' names, in one go.

LVM cannot rename two volumes at once, nor together with a folder. So the steps are written down
first (the journal), and a process of its own carries them out, which a kill of the build does not
reach: it does what recovery does. After a power failure whoever comes next (`finish_switches`)
carries on. Until the first step the old guest is whole, after the last the new.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline import process
from pipeline.errors import PipelineError
from pipeline.files import digest_file, sync_folder
from pipeline.interruption import gate
from pipeline.project import Project
from pipeline.storage import lvm, steps
from pipeline.storage.disks import GUEST_TAG
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.steps import Site, Step
from pipeline.storage.transaction import (
    LOCK_PATIENCE_S,
    Transaction,
    guest_lock,
    list_unfinished,
    recover_all,
    recover_guest,
)
from pipeline.storage.written import BuiltDisk
from pipeline.store.store import BUILDINFO, publish_folder

WORD = "switch"


def site_of(output: Path) -> Site:
    """Where a project's switches are noted: switches/GUEST/switch.json."""
    return Site(
        state=output / "switches",
        files=tuple(
            output / folder for folder in ("guests", "volumes", "identity", "logs", "published")
        ),
        trees=(output / "switches",),
        tag=GUEST_TAG,
        journal="{}/switch.json",
        lock="{}/.lock",
        work="{}/work",
        record="{}/record",
        read_older=_read_older,
    )


def publish_guest(
    project: Project, guest: str, scratch: Path, final: Path, built: Iterable[BuiltDisk], log: Path
) -> None:
    """Make a finished folder and its volumes the guest; what was there before is removed.

    Raises InUseError when the old volumes are in use: then nothing has changed.
    """
    finish_switch(project, guest)  # a new cfg must not overtake it
    waiting = [disk for disk in built if disk.uuid and not _is_in_place(disk)]
    if waiting:
        _switch(project, guest, waiting, log, folder=(scratch, final))
    else:
        publish_folder(scratch, final)


def publish_volumes(project: Project, guest: str, built: Iterable[BuiltDisk], log: Path) -> None:
    """The same for volumes alone: the guest's folder stays as it is."""
    _switch(project, guest, list(built), log, folder=None)


def _switch(
    project: Project,
    guest: str,
    waiting: list[BuiltDisk],
    log: Path,
    *,
    folder: tuple[Path, Path] | None,
) -> None:
    for disk in waiting:
        refuse_if_used(disk.path)
    site = site_of(project.output)
    volumes = [(disk.group, disk.uuid, disk.path.name) for disk in waiting]
    # the journal decides: an interruption waits for what it says, or comes before it
    with gate("switch", project.artifact(guest)):
        with Transaction(site, guest, WORD) as change:
            moved: list[Step] = []
            if folder is not None:
                scratch, final = folder
                aside = site.state / guest / "folder"
                change.will_make(steps.remove_tree(aside))
                sync_folder(scratch)
                scratch.rename(aside)
                moved = _place_folder(aside, final, digest_file(aside / BUILDINFO))
            change.decide(_plan(volumes, moved))
        program = [sys.executable, "-m", "pipeline.storage.switch", str(project.output), guest]
        status = process.start_daemon(program, log=log, is_tethered=False).wait()
    if status or site.journal_of(guest).exists():
        raise PipelineError(
            f"{guest}: its volumes could not be renamed",
            details=log.read_text(errors="replace")[-2000:],
            hint="mend what the log says; doit doctor carries on where it stopped",
        )


def _plan(volumes: Iterable[tuple[str, str, str]], folder: Iterable[Step]) -> list[Step]:
    """The steps for volumes (group, uuid, final name) and what there is to do with a folder."""
    listed = list(volumes)
    return [
        *(steps.rename_volume(*volume) for volume in listed),
        *folder,
        *(
            steps.remove_volume(Path("/dev", group, steps.put_aside(final, uuid)))
            for group, uuid, final in listed
        ),
    ]


def _place_folder(aside: Path, final: Path, buildinfo: str) -> list[Step]:
    return [steps.exchange_folder(aside, final, buildinfo), steps.remove_tree(aside)]


def _read_older(table: dict[str, Any]) -> dict[str, Any]:
    """A journal as it was before 2027: a folder and volumes instead of steps."""
    if "phase" in table:
        return table
    final = table["final"]
    folder = _place_folder(Path(table["waiting"]), Path(final), table["buildinfo"]) if final else []
    finish = _plan((tuple(volume) for volume in table["volumes"]), folder)
    return {"word": WORD, "phase": "committed", "undo": [], "finish": finish}


def _is_in_place(disk: BuiltDisk) -> bool:
    found = lvm.find_volume(process.run, disk.group, disk.path.name)
    return found is not None and found.uuid == disk.uuid


def finish_switch(project: Project, guest: str) -> None:
    """Carry on a guest's switch that was cut short. Raises what its steps do."""
    if guest in pending_switches(project):
        _finish(site_of(project.output), guest)


def _finish(site: Site, guest: str) -> None:
    with guest_lock(site, guest, patience_s=LOCK_PATIENCE_S):
        recover_guest(site, guest)


def finish_switches(project: Project) -> list[str]:
    """Carry on every switch that was cut short; returns what was done, or cannot be, in words."""
    return recover_all(site_of(project.output))


def pending_switches(project: Project) -> list[str]:
    """The guests whose switch was cut short, or is being done now."""
    site = site_of(project.output)
    return [guest for guest in list_unfinished(site) if site.journal_of(guest).exists()]


def main(output: str, guest: str) -> None:
    """The process that does it; only a kill of itself or of the machine stops it half-way."""
    try:
        _finish(site_of(Path(output)), guest)
    except PipelineError as error:
        print(f"{error.brief}\n{error.details}\n{error.hint}", flush=True)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main(*sys.argv[1:])
