"""Putting a finished guest in its place: its folder and its volumes' names, in one go.

LVM cannot rename two volumes at once, nor together with a folder. So what is to be done is written
down first (the journal), and a process of its own does it, which a kill of the build does not
reach. Every step can be done again: after a power failure whoever comes next (`finish_switches`)
carries on from the journal. Until the first step the old guest is whole, after the last the new.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline import process
from pipeline.errors import InUseError, PipelineError
from pipeline.files import digest_file, sync_folder, write_durably
from pipeline.interruption import gate
from pipeline.locks import locked
from pipeline.project import Project
from pipeline.storage import lvm
from pipeline.storage.disks import GUEST_TAG
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.lvm import Volume
from pipeline.storage.staged_volume import NEW, OLD, Staged
from pipeline.store.store import BUILDINFO, exchange, publish_folder

JOURNAL = "switch.json"


@dataclass(frozen=True)
class Journal:
    """A switch: the folder that waits beside its place, and the volumes that wait for their names.

    `buildinfo` is the digest of the new folder's buildinfo.json, which tells it from the old one.
    """

    guest: str
    waiting: str
    final: str
    buildinfo: str
    volumes: tuple[tuple[str, str, str], ...]

    @classmethod
    def read(cls, path: Path) -> Journal:
        """From its file."""
        try:
            record = json.loads(path.read_bytes())
            found = cls(**{**record, "volumes": tuple(map(tuple, record["volumes"]))})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise PipelineError(
                f"{path} is damaged: a guest that was being put in its place is not whole",
                hint=f"see lvs and {path.parent}; remove that file and build the guest again",
            ) from error
        if not all(isinstance(text, str) for text in (found.guest, found.waiting, found.final)):
            raise PipelineError(f"{path} is damaged", hint="remove it and build the guest again")
        return found


def publish_guest(
    project: Project, guest: str, scratch: Path, final: Path, staged: Sequence[Staged], log: Path
) -> None:
    """Make a finished folder and its volumes the guest; what was there before is removed.

    Raises InUseError when the old volumes are in use: then nothing has changed.
    """
    if guest in pending_switches(project):
        finish_switches(project, process.run)  # a new cfg must not overtake it
    waiting = [one for one in staged if not _is_in_place(one)]
    if not waiting:
        publish_folder(scratch, final)
        return
    _switch(project, guest, waiting, log, folder=(scratch, final))


def publish_volumes(project: Project, guest: str, staged: Sequence[Staged], log: Path) -> None:
    """The same for volumes alone: the guest's folder stays as it is."""
    _switch(project, guest, staged, log, folder=None)


def _switch(
    project: Project,
    guest: str,
    waiting: Sequence[Staged],
    log: Path,
    *,
    folder: tuple[Path, Path] | None,
) -> None:
    for one in waiting:
        refuse_if_used(Path("/dev", one.group, one.final))
    # the journal decides: an interruption waits for what it says, or comes before it
    with gate("switch", project.artifact(guest)):
        journal = _write_journal(project, guest, folder, waiting)
        program = [sys.executable, "-m", "pipeline.storage.switch", str(journal), str(log)]
        status = process.start_daemon(program, log=log, is_tethered=False).wait()
    if status or journal.exists():
        raise PipelineError(
            f"{guest}: its volumes could not be renamed",
            details=log.read_text(errors="replace")[-2000:],
            hint="mend what the log says; doit doctor carries on where it stopped",
        )


def finish_switches(project: Project, run: lvm.Run) -> list[str]:
    """Carry on every switch that was cut short; returns the guests."""
    finished = []
    for journal in sorted((project.output / "switches").glob(f"*/{JOURNAL}")):
        roll_forward(journal, run)
        finished.append(journal.parent.name)
    return finished


def pending_switches(project: Project) -> list[str]:
    """The guests whose switch was cut short, or is being done now."""
    return [path.parent.name for path in (project.output / "switches").glob(f"*/{JOURNAL}")]


def _is_in_place(staged: Staged) -> bool:
    found = lvm.find_volume(process.run, staged.group, staged.final)
    return found is not None and found.uuid == staged.uuid


def _write_journal(
    project: Project, guest: str, folder: tuple[Path, Path] | None, staged: Sequence[Staged]
) -> Path:
    place = project.output / "switches" / guest
    place.mkdir(parents=True, exist_ok=True)
    waiting = place / "folder"
    if waiting.exists():
        shutil.rmtree(waiting)
    final = buildinfo = ""
    if folder is not None:
        scratch, final = folder[0], str(folder[1])
        sync_folder(scratch)
        scratch.rename(waiting)
        buildinfo = digest_file(waiting / BUILDINFO)
    names = tuple((one.group, one.uuid, one.final) for one in staged)
    record = Journal(guest, str(waiting), final, buildinfo, names)
    write_durably(place / JOURNAL, json.dumps(asdict(record)).encode())
    return place / JOURNAL


def roll_forward(path: Path, run: lvm.Run) -> None:
    """Do what of a journal is not done yet, and remove it."""
    with locked(path.parent / ".lock"), lvm.lvm_lock():
        if not path.is_file():
            return  # another process did it meanwhile
        journal = Journal.read(path)
        moves = [_find_move(run, journal.guest, *volume) for volume in journal.volumes]
        for move in moves:
            _rename(run, move)
        _place_folder(journal)
        for move in moves:
            _remove_old(run, move)
        path.unlink()
        sync_folder(path.parent)


@dataclass(frozen=True)
class _Move:
    """A volume that is to get the name `final`, and the one that has it now."""

    new: Volume
    old: Volume | None
    final: str

    @property
    def aside(self) -> str:
        mark = self.new.name.partition(NEW)[2] or self.new.uuid[:8]
        return f"{self.final}{OLD}{mark}"


def _find_move(run: lvm.Run, guest: str, group: str, identity: str, final: str) -> _Move:
    """Look before anything is renamed; raises InUseError for what must not be touched."""
    volumes = lvm.list_volumes(run, group)
    new = next((found for found in volumes if found.uuid == identity), None)
    if new is None:
        raise PipelineError(f"{group}: the volume that was to become {final} is gone")
    old = next((found for found in volumes if found.name == final), None)
    if old is None or old.uuid == identity:
        return _Move(new, None, final)
    if f"{GUEST_TAG}{guest}" not in old.tags:
        raise InUseError(f"{old.path} was not made for {guest}", hint="rename it: lvrename")
    refuse_if_used(old.path)
    return _Move(new, old, final)


def _rename(run: lvm.Run, move: _Move) -> None:
    if move.old is not None:
        lvm.rename_volume(run, move.new.group, move.final, move.aside)
    if move.new.name != move.final:
        lvm.rename_volume(run, move.new.group, move.new.name, move.final)


def _place_folder(journal: Journal) -> None:
    waiting, final = Path(journal.waiting), Path(journal.final)
    if not waiting.is_dir():
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    if not final.exists():
        waiting.rename(final)
    elif _is_new(waiting, journal):
        exchange(waiting, final)
    sync_folder(final.parent)
    if waiting.exists():
        shutil.rmtree(waiting)


def _is_new(folder: Path, journal: Journal) -> bool:
    path = folder / BUILDINFO
    return path.is_file() and digest_file(path) == journal.buildinfo


def _remove_old(run: lvm.Run, move: _Move) -> None:
    """Whatever was put aside for this name, now or before a kill."""
    for found in lvm.list_volumes(run, move.new.group):
        if found.name.startswith(f"{move.final}{OLD}"):
            lvm.remove_volume(run, found)


def main(journal: str, log: str) -> None:
    """The process that does it; only a kill of itself or of the machine stops it half-way."""

    def run(argv: Sequence[object], **options: object) -> str:
        return process.run(argv, log=Path(log), **options)  # type: ignore[arg-type]

    try:
        roll_forward(Path(journal), run)
    except PipelineError as error:
        print(f"{error.brief}\n{error.details}\n{error.hint}", flush=True)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main(*sys.argv[1:])
