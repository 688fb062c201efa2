"""What killed builds left on this host: volumes without a name of their own, loops, half switches.

Only what carries this project's tag and belongs to no guest is listed; a build that lives holds its
guest's lock, and what it makes is left alone. For `doit doctor`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.locks import is_locked
from pipeline.project import Project
from pipeline.storage import lvm
from pipeline.storage.disks import GUEST_TAG, PROJECT_TAG, project_mark
from pipeline.storage.in_use import Subject, find_holders
from pipeline.storage.lvm import Volume
from pipeline.storage.staged_volume import NEW, OLD, list_staged
from pipeline.storage.switch import finish_switches, pending_switches
from pipeline.store.store import Store


@dataclass(frozen=True)
class Leftover:
    """A volume that nobody will ask for again, and why."""

    volume: Volume
    reason: str


def find_leftovers(project: Project, run: lvm.Run) -> list[Leftover]:
    """Volumes of this project with temporary names that no record of a guest speaks of."""
    ours = f"{PROJECT_TAG}{project_mark(project)}"
    known = list_staged([path for path in (project.output / "volumes").glob("*") if path.is_dir()])
    switching = set(pending_switches(project))
    found = []
    for volume in lvm.list_volumes(run):
        guest = _guest_of(volume)
        if ours not in volume.tags or volume.uuid in known or guest in switching:
            continue
        if guest and is_locked(Store.of(project).lock_path("volume", guest)):
            continue
        for mark, reason in ((NEW, "its build was killed"), (OLD, "another took its place")):
            if mark in volume.name:
                found.append(Leftover(volume, reason))
    return found


def remove_leftovers(project: Project, run: lvm.Run) -> list[str]:
    """Carry on half-done switches, then remove what is left over; returns what was done, in words.

    A volume that somebody uses stays, and is not named.
    """
    done = [f"finished putting {guest} in its place" for guest in finish_switches(project, run)]
    with lvm.lvm_lock():
        for left in find_leftovers(project, run):
            subject = Subject.of(left.volume.path)
            if subject is not None and find_holders(subject):
                continue
            lvm.remove_volume(run, left.volume)
            done.append(f"removed {left.volume.group}/{left.volume.name}: {left.reason}")
    return done


def reclaim_own(project: Project, guest: str, run: lvm.Run) -> None:
    """Remove what earlier builds of a guest left unnamed; the caller holds the guest's lock."""
    if guest in pending_switches(project):
        finish_switches(project, run)
    tags = {f"{PROJECT_TAG}{project_mark(project)}", f"{GUEST_TAG}{guest}"}
    with lvm.lvm_lock():
        for volume in lvm.list_volumes(run):
            if tags <= volume.tags and (NEW in volume.name or OLD in volume.name):
                lvm.remove_volume(run, volume)


def _guest_of(volume: Volume) -> str:
    tags = [tag for tag in volume.tags if tag.startswith(GUEST_TAG)]
    return tags[0].removeprefix(GUEST_TAG) if tags else ""
