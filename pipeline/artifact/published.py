"""Published versions of a guest: immutable, each channel a link to one of them.

output/published/NAME/20261124T193000Z-1f2e3d4c/   the artifact as it was proven, read only
output/published/NAME/current -> 20261124T193000Z-1f2e3d4c
output/published/NAME/stable -> 20261121T033000Z-9d8c7b6a
"""

import itertools
import json
import os
import shutil
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifact.channels import (
    LINKS,
    NIGHTLY,
    NOTES,
    STABLE,
    Channel,
    point_link,
    read_link,
    read_notes,
    write_notes,
)
from pipeline.artifact.folder import Source, read_source
from pipeline.artifact.sums import DISK_SUMS, SUMS, copy_disk, is_as_summed, read_sum_file
from pipeline.console.progress import print_line, progress_bar
from pipeline.errors import PipelineError, UsageError, VerificationError
from pipeline.files import read_bytes, read_table, sync_file, sync_folder, write_durably
from pipeline.interruption import gate
from pipeline.locks import locked
from pipeline.project import Project
from pipeline.scratch import remove_abandoned, remove_tree, scratch_folder
from pipeline.storage.in_use import refuse_if_used
from pipeline.store.store import BUILDINFO, exchange, read_buildinfo
from pipeline.walls.privacy import PRIVATE_FILE, PRIVATE_FOLDER, make_private_folder

FACTS = "published.json"
MOST_STATEMENT_BYTES = 64 << 20
NOTHING: Mapping[str, bytes] = {}
_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Version:
    """One published version; `fingerprint` is the artifact's, `note` says what is wrong with it."""

    folder: Path
    fingerprint: str
    proof: str
    note: str = ""

    @property
    def name(self) -> str:
        """Its time and the beginning of its fingerprint: sorts by age."""
        return self.folder.name


def published(project: Project, guest: str) -> Path:
    """Where a guest's versions are."""
    return project.published / guest


def list_versions(project: Project, guest: str) -> list[Version]:
    """All versions, the oldest first; one whose facts are damaged is known by its buildinfo."""
    folders = sorted(published(project, guest).glob("2*"))
    return [_read_version(folder) for folder in folders if not folder.is_symlink()]


def _read_version(folder: Path) -> Version:
    try:
        facts = read_table(folder / FACTS, "a published version's facts")
        return Version(folder, str(facts["fingerprint"]), str(facts["proof"]))
    except (PipelineError, OSError, KeyError) as error:
        state = (folder / BUILDINFO).lstat().st_mode if (folder / BUILDINFO).exists() else 0
        made = read_buildinfo(folder) if stat.S_ISREG(state) else None
        why = f"{FACTS}: {error}" if isinstance(error, PipelineError) else f"{FACTS} is missing"
        return Version(folder, made.fingerprint if made else "", "not known", why)


def channels(project: Project, guest: str) -> dict[Channel, Version]:
    """Where each channel leads that leads to a version."""
    root = published(project, guest)
    versions = {version.name: version for version in list_versions(project, guest)}
    targets = {channel: read_link(root, channel) for channel in LINKS}
    return {channel: versions[name] for channel, name in targets.items() if name in versions}


def require_version(project: Project, guest: str, wanted: str | None = None) -> Version:
    """A version by its name or a channel's, else the current one; UsageError where none is so."""
    known = {version.name: version for version in list_versions(project, guest)}
    known |= {str(channel): version for channel, version in channels(project, guest).items()}
    version = known.get(wanted or NIGHTLY)
    if version is None:
        raise UsageError(
            f"{guest} has no published version{f' {wanted}' if wanted else ''}",
            hint=f"it has: {', '.join(sorted(known))}" if known else f"doit publish name={guest}",
        )
    return version


def current_version(project: Project, guest: str) -> Version | None:
    """What `current` leads to."""
    return channels(project, guest).get(NIGHTLY)


@contextmanager
def _alone(project: Project, guest: str) -> Iterator[Path]:
    """Its published folder, which nobody else changes meanwhile."""
    root = published(project, guest)
    with locked(root.parent / ".locks" / guest):
        _clear(root)
        yield root


def publish(
    project: Project,
    source: Source,
    *,
    proof: str,
    statements: Mapping[str, bytes] = NOTHING,
    is_current: bool = True,
) -> Version:
    """Publish an artifact and, unless not `is_current`, make it current, again if it was before.

    `statements` are files that speak of it, by name; they are written beside the artifact's own.
    Raises VerificationError for other bytes than were built, InUseError when a disk is open.
    """
    make_private_folder(published(project, source.name))
    with _alone(project, source.name) as root:
        project.scratch.mkdir(parents=True, exist_ok=True)
        remove_abandoned(project.scratch)
        fingerprint = source.origin()["config"]
        versions = list_versions(project, source.name)
        for older in versions:
            older.folder.chmod(PRIVATE_FOLDER)
            if older.note:
                print_line(f"  {older.name}: {older.note}")
        same = [version for version in versions if version.fingerprint == fingerprint]
        version = same[-1] if same and _is_same(same[-1], source) else None
        if version is None:
            version = _copy_version(project, source, versions, fingerprint, proof, statements)
        elif _is_to_renew(version, proof, statements):
            version = _renew(version, source, proof, statements)
        if is_current:
            _point(root, NIGHTLY, version)
    return version


def _clear(root: Path) -> None:
    """What killed commands left, under their lock."""
    files = (f".{name}.*" for name in (*LINKS.values(), NOTES))
    for pattern in (".2*.new", ".2*.gone", *files):
        for path in root.glob(pattern):
            if path.is_symlink() or path.is_file():
                path.unlink()
            else:
                remove_tree(path)


def _is_same(version: Version, source: Source) -> bool:
    """Whether it holds these very bytes; one that is damaged does not."""
    with suppress(PipelineError, OSError):
        is_same = read_sum_file(version.folder / DISK_SUMS) == source.disks
        return is_same and not _find_damage(version.folder, _sums_of(version.folder))
    return False


def _is_to_renew(version: Version, proof: str, statements: Mapping[str, bytes]) -> bool:
    """Whether it is proven since, or what is said of it is not what was said; it stays proven."""
    if "proven" in (proof, version.proof) and proof != version.proof:
        return proof == "proven"
    with suppress(FileNotFoundError):
        return any(
            read_bytes(version.folder / name, limit=MOST_STATEMENT_BYTES) != content
            for name, content in statements.items()
        )
    return True


def _copy_version(
    project: Project,
    source: Source,
    versions: list[Version],
    fingerprint: str,
    proof: str,
    statements: Mapping[str, bytes],
) -> Version:
    for disk in source.disks:
        refuse_if_used(source.folder / disk)
    log = project.log(source.name, "publish")
    log.parent.mkdir(parents=True, exist_ok=True)
    final = _find_free_name(published(project, source.name), fingerprint)
    sums = _sums_of(source.folder)
    with scratch_folder(project.scratch, f"publish-{source.name}") as scratch:
        scratch.chmod(PRIVATE_FOLDER)
        with progress_bar(f"publishing {source.name}", total=len(sums), unit="files") as bar:
            for name, recorded in sums.items():
                _take(source.folder / name, scratch / name, recorded, versions[-1:], log)
                bar.advance()
        for name in (SUMS, DISK_SUMS, BUILDINFO):
            if (source.folder / name).exists():
                shutil.copyfile(source.folder / name, scratch / name, follow_symlinks=False)
        if (source.folder / "proof").is_dir():
            shutil.copytree(source.folder / "proof", scratch / "proof", symlinks=True)
        if damaged := _find_damage(scratch, sums):
            raise VerificationError(
                f"{source.name}: {damaged} changed while it was copied", hint="publish again"
            )
        _write_facts(scratch, fingerprint, proof, statements)
        _forbid_writing(scratch, source.disks)
        with gate("publish", final):
            os.rename(scratch, final)
    sync_folder(final.parent)
    return Version(final, fingerprint, proof)


def _find_free_name(root: Path, fingerprint: str) -> Path:
    """Its time and the beginning of its fingerprint: of now, or of the next second that is free."""
    seconds = itertools.count(int(time.time()))
    stamps = (time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second)) for second in seconds)
    names = (root / f"{stamp}-{fingerprint[:8]}" for stamp in stamps)
    return next(name for name in names if not os.path.lexists(name))


def _take(path: Path, target: Path, recorded: str, versions: list[Version], log: Path) -> None:
    """A link to the same file of the last version (nobody writes to either), else a copy.

    An older file is measured before it is trusted: one flipped bit would be published for ever.
    """
    for version in versions:
        older = version.folder / path.name
        with suppress(PipelineError, OSError):
            if _sums_of(version.folder).get(path.name) != recorded:
                continue
            if is_as_summed(older, recorded):
                os.link(older, target, follow_symlinks=False)
                return
            print_line(f"  {older} is damaged: {path.name} is copied anew")
    copy_disk(path, target, log=log)


def _sums_of(folder: Path) -> Mapping[str, str]:
    return {**read_sum_file(folder / SUMS), **read_sum_file(folder / DISK_SUMS)}


def _find_damage(folder: Path, sums: Mapping[str, str]) -> str:
    """The first file that is not what its sum says, "" when all are."""
    damaged = (name for name, recorded in sums.items() if not is_as_summed(folder / name, recorded))
    return next(damaged, "")


def _forbid_writing(folder: Path, disks: Mapping[str, str]) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            mode = PRIVATE_FILE if path.name in disks else 0o644
            path.chmod(mode & ~_WRITE)
            sync_file(path)


def _write_facts(
    folder: Path, fingerprint: str, proof: str, statements: Mapping[str, bytes]
) -> None:
    for name, content in statements.items():
        write_durably(folder / name, content)
    write_durably(folder / FACTS, render_facts(fingerprint, proof))


def render_facts(fingerprint: str, proof: str) -> bytes:
    """What published.json says of a version."""
    return f"{json.dumps({'form': 1, 'fingerprint': fingerprint, 'proof': proof})}\n".encode()


def _renew(
    version: Version, source: Source, proof: str, statements: Mapping[str, bytes]
) -> Version:
    """The same bytes, and what is known of them now, evidence too, in one exchange of folders."""
    aside = version.folder.with_name(f".{version.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    make_private_folder(aside)
    shutil.copytree(version.folder, aside, copy_function=os.link, dirs_exist_ok=True)
    aside.chmod(PRIVATE_FOLDER)
    own = {*_sums_of(version.folder), SUMS, DISK_SUMS, BUILDINFO, "proof"}
    for path in aside.iterdir():
        if path.name not in own:
            path.unlink()
    shutil.rmtree(aside / "proof", ignore_errors=True)
    if (source.folder / "proof").is_dir():
        shutil.copytree(source.folder / "proof", aside / "proof")
    _write_facts(aside, version.fingerprint, proof, statements)
    _forbid_writing(aside, source.disks)
    exchange(aside, version.folder)
    shutil.rmtree(aside)
    return Version(version.folder, version.fingerprint, proof)


def _point(root: Path, channel: Channel, version: Version) -> None:
    """Switch a channel: what is chosen by hand or built anew is not withdrawn any more."""
    write_notes(root, read_notes(root).restore(channel, version.name))
    point_link(root, channel, version.name)


def promote(
    project: Project,
    guest: str,
    *,
    channel: Channel = STABLE,
    wanted: str = "",
    unproven: bool = False,
) -> Version:
    """Move a channel to a version, without a name to that of `nightly`.

    Raises UsageError where there is no such version, VerificationError for one that is not proven
    or not whole.
    """
    with _alone(project, guest) as root:
        known = {version.name: version for version in list_versions(project, guest)}
        name = wanted or read_link(root, NIGHTLY)
        if name not in known:
            raise UsageError(
                f"{guest} has no published version {wanted}".rstrip(),
                hint=f"there are: {', '.join(known)}" if known else f"doit publish name={guest}",
            )
        version = known[name]
        if version.proof != "proven" and not unproven:
            raise VerificationError(
                f"{guest}: {name} is not proven: {version.proof}",
                hint="promote one that is, or go on without: unproven=yes",
            )
        if why := _find_fault(version, guest):
            raise VerificationError(f"{guest}: {why}", hint="promote another: version=")
        _point(root, channel, version)
    return version


def note_night(project: Project, guest: str, night: str, *, stable_after: int) -> Version | None:
    """Count a good night for what `nightly` leads to; returns where `stable` was moved, if it was.

    `stable` goes to the newest proven version that came into `nightly` so many good nights ago,
    this one included, and was not rolled back; never to an older one than it is at; 0: not by
    itself.
    """
    with _alone(project, guest) as root:
        name = read_link(root, NIGHTLY)
        notes = read_notes(root).add_night(night, name)
        write_notes(root, notes)
        ages, stable = notes.ages(), read_link(root, STABLE)
        fit = [
            version
            for version in list_versions(project, guest)
            if 0 < stable_after <= ages.get(version.name, 0)
            and version.proof == "proven"
            and version.name > stable
            and not notes.is_withdrawn(STABLE, version.name)
        ]
        if not fit:
            return None
        point_link(root, STABLE, fit[-1].name)
    return fit[-1]


def roll_back(project: Project, guest: str, channel: Channel = NIGHTLY) -> Version:
    """Move a channel to the version before; raises UsageError where there is none.

    The channel goes to the one that it led to neither by itself nor by another rollback any more.
    """
    with _alone(project, guest) as root:
        versions, now = list_versions(project, guest), read_link(root, channel)
        notes = read_notes(root)
        older = [
            version
            for version in versions
            if version.name < now and not notes.is_withdrawn(channel, version.name)
        ]
        while older and (why := _find_fault(older[-1], guest)):
            print_line(f"  {older.pop().name} is passed over: {why}")
        if not older:
            raise UsageError(
                f"{guest} has no published version before {now or 'the first'}",
                hint="doit publish keeps as many as keep= says",
            )
        write_notes(root, notes.withdraw(channel, now))
        point_link(root, channel, older[-1].name)
    return older[-1]


def _find_fault(version: Version, guest: str) -> str:
    """Why a version cannot be gone back to, "" where it is whole."""
    try:
        read_source(version.folder, name=guest)
    except PipelineError as error:
        return error.brief
    return version.note


def prune(
    project: Project,
    guest: str,
    *,
    keep: int,
    keep_bytes: int = 0,
    stable_after: int = 0,
    needed: Collection[str] = (),
) -> list[Version]:
    """Remove the oldest versions but for `keep`, then while they take more than `keep_bytes`.

    0 bytes is no bound. What a channel leads to stays, what is on its way to `stable`, and those
    with one of the fingerprints `needed`. Returns what went.
    """
    with _alone(project, guest) as root:
        versions = list_versions(project, guest)
        kept_names = {read_link(root, channel) for channel in LINKS}
        ages = read_notes(root).ages().items()
        kept_names.update(name for name, nights in ages if nights < stable_after)
        removable = [
            version
            for version in versions
            if version.name not in kept_names and version.fingerprint not in needed
        ]
        doomed = [version for version in removable if version in versions[: -keep or None]]
        left = [version for version in versions if version not in doomed]
        while keep_bytes and measure(left) > keep_bytes:
            spare = [version for version in left if version in removable]
            if not spare:
                break
            left.remove(spare[0])
            doomed.append(spare[0])
        for version in doomed:
            grave = root / f".{version.name}.gone"
            os.rename(version.folder, grave)
            remove_tree(grave)
    return doomed


def measure(versions: Sequence[Version]) -> int:
    """Bytes that versions take on disk together; a file that several share counts once."""
    states = {}
    for version in versions:
        for path in version.folder.rglob("*"):
            state = path.lstat()
            states[state.st_dev, state.st_ino] = state.st_blocks * 512
    return sum(states.values())
