"""What killed commands left on this host: volumes without a name of their own, half switches.

Only what carries our tag and belongs to no guest is listed; a build that lives holds its guest's
lock, and what it makes is left alone. For `doit doctor`.
"""

from collections.abc import Collection, Iterator

from pipeline import process
from pipeline.locks import is_locked
from pipeline.project import Project
from pipeline.storage import lvm
from pipeline.storage.disks import (
    GUEST_TAG,
    INSTALLED_TAG,
    NEW,
    OLD,
    PROJECT_TAG,
    is_temporary,
    project_mark,
)
from pipeline.storage.in_use import Subject, find_holders
from pipeline.storage.lvm import Volume
from pipeline.storage.switch import finish_switch, finish_switches, pending_switches
from pipeline.storage.written import read_record
from pipeline.store.store import Store

_REASONS = {NEW: "what made it was killed", OLD: "another took its place"}


def find_leftovers(project: Project, *, busy: Collection[str] = ()) -> dict[Volume, str]:
    """Volumes with temporary names that nobody will ask for again, and why.

    Of this project, if no record of a guest speaks of them; of installations, unless a journal
    still does: those of the guests `busy`.
    """
    ours = f"{PROJECT_TAG}{project_mark(project)}"
    folders = [path for path in project.volumes.glob("*") if path.is_dir()]
    known = {disk.uuid for folder in folders for disk in read_record(folder)}
    switching = set(pending_switches(project))
    installing = {f"{INSTALLED_TAG}{guest}" for guest in busy}
    found: dict[Volume, str] = {}
    for volume in lvm.list_volumes(process.run):
        guest = _guest_of(volume)
        is_built = ours in volume.tags and volume.uuid not in known and guest not in switching
        if is_built and guest and is_locked(Store.of(project).lock_path("volume", guest)):
            continue
        is_installed = any(tag.startswith(INSTALLED_TAG) for tag in volume.tags)
        if is_built or (is_installed and not volume.tags & installing):
            for mark in (mark for mark in _REASONS if mark in volume.name):
                found[volume] = _REASONS[mark]
    return found


def remove_leftovers(project: Project, *, busy: Collection[str] = ()) -> Iterator[str]:
    """Carry on half-done switches, then remove what is left over; yields what was done, in words.

    A volume that somebody uses stays, and is not named.
    """
    yield from finish_switches(project)
    with lvm.lvm_lock():
        for volume, reason in find_leftovers(project, busy=busy).items():
            subject = Subject.of(volume.path)
            if subject is None or not find_holders(subject):
                lvm.remove_volume(process.run, volume)
                yield f"removed {volume.group}/{volume.name}: {reason}"


def reclaim_own(project: Project, guest: str, run: lvm.Run) -> None:
    """Remove what earlier builds of a guest left unnamed; the caller holds the guest's lock."""
    finish_switch(project, guest)
    tags = {f"{PROJECT_TAG}{project_mark(project)}", f"{GUEST_TAG}{guest}"}
    with lvm.lvm_lock():
        for volume in lvm.list_volumes(run):
            if tags <= volume.tags and is_temporary(volume.name):
                lvm.remove_volume(run, volume)


def _guest_of(volume: Volume) -> str:
    tags = [tag for tag in volume.tags if tag.startswith(GUEST_TAG)]
    return tags[0].removeprefix(GUEST_TAG) if tags else ""
