"""Published versions of a guest: immutable, the newest under the link `current`.

output/published/NAME/20261124T193000Z-1f2e3d4c/   the artifact as it was proven, read only
output/published/NAME/current -> 20261124T193000Z-1f2e3d4c
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline import command
from pipeline.canonical import sync_folder, write_durably
from pipeline.errors import UsageError, VerificationError
from pipeline.host.in_use import refuse_if_used
from pipeline.host.scratch import remove_tree, scratch_folder
from pipeline.interruption import gate, passing
from pipeline.life.source import Source
from pipeline.progress import progress_bar
from pipeline.project import Project
from pipeline.store import exchange, locked
from pipeline.sums import DISK_SUMS, SUMS, digest_as, read_sums

CURRENT = "current"
FACTS = "published.json"
_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Version:
    """One published version; `fingerprint` is the artifact's."""

    folder: Path
    fingerprint: str
    proof: str

    @property
    def name(self) -> str:
        """Its time and the beginning of its fingerprint: sorts by age."""
        return self.folder.name


def published(project: Project, guest: str) -> Path:
    """Where a guest's versions are."""
    return project.output / "published" / guest


def list_versions(project: Project, guest: str) -> list[Version]:
    """All versions, the oldest first."""
    found = []
    for folder in sorted(published(project, guest).glob("2*")):
        facts = json.loads((folder / FACTS).read_text())
        found.append(Version(folder, facts["fingerprint"], facts["proof"]))
    return found


def current_version(project: Project, guest: str) -> Version | None:
    """What `current` leads to."""
    link = published(project, guest) / CURRENT
    target = os.readlink(link) if link.is_symlink() else ""
    versions = list_versions(project, guest)
    return next((version for version in versions if version.name == target), None)


def publish(project: Project, source: Source, *, proof: str) -> Version:
    """Publish an artifact and make it current; a published one is made current again.

    Raises VerificationError when a disk is not as it was built, InUseError when it is open.
    """
    if source.changed_disks:
        raise VerificationError(
            f"{source.name}: {', '.join(source.changed_disks)} was written to since it was built",
            hint="publish what a guest has not run from: doit build name=... replace=yes",
        )
    root = published(project, source.name)
    with locked(root.parent / ".locks" / source.name):
        fingerprint = source.origin()["config"]
        versions = list_versions(project, source.name)
        same = [version for version in versions if version.fingerprint == fingerprint]
        version = same[-1] if same and _is_same(same[-1], source) else None
        if version is None:
            version = _copy_version(project, source, versions, fingerprint, proof)
        elif proof == "proven" != version.proof:
            version = _note_proof(version, source)
        point_current(root, version)
    return version


def _is_same(version: Version, source: Source) -> bool:
    sums = [(folder / DISK_SUMS).read_text() for folder in (version.folder, source.folder)]
    return sums[0] == sums[1]


def _copy_version(
    project: Project, source: Source, versions: list[Version], fingerprint: str, proof: str
) -> Version:
    for disk in source.disk_sums():
        refuse_if_used(source.folder / disk)
    log = project.log(source.name, "publish")
    log.parent.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    final = published(project, source.name) / f"{stamp}-{fingerprint[:8]}"
    scratch_root = project.output / "scratch"
    scratch_root.mkdir(parents=True, exist_ok=True)
    with scratch_folder(scratch_root, f"publish-{source.name}") as scratch:
        files = sorted(path for path in source.folder.rglob("*") if path.is_file())
        with progress_bar(f"publishing {source.name}", total=len(files), unit="files") as bar:
            for path in files:
                target = scratch / path.relative_to(source.folder)
                target.parent.mkdir(exist_ok=True)
                _take(path, target, versions[-1:], log)
                bar.advance()
        _refuse_other_bytes(scratch, source)
        facts = {"form": 1, "fingerprint": fingerprint, "proof": proof}
        write_durably(scratch / FACTS, f"{json.dumps(facts)}\n".encode())
        _forbid_writing(scratch)
        final.parent.mkdir(parents=True, exist_ok=True)
        with gate("publish", final):
            os.rename(scratch, final)
    sync_folder(final.parent)
    return Version(final, fingerprint, proof)


def _take(path: Path, target: Path, versions: Iterable[Version], log: Path) -> None:
    """A link to the same file of the last version (nobody writes to either), else a copy."""
    name = path.name
    for version in versions:
        older = version.folder / name
        known = _sums_of(version.folder).get(name)
        if known and known == _sums_of(path.parent).get(name) and older.is_file():
            os.link(older, target)
            return
    command.run(["cp", "--sparse=always", "--reflink=auto", path, target], log=log)


def _sums_of(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in (SUMS, DISK_SUMS):
        if (folder / file).is_file():
            found |= read_sums((folder / file).read_text())
    return found


def _refuse_other_bytes(folder: Path, source: Source) -> None:
    for name, recorded in _sums_of(folder).items():
        if digest_as(recorded, folder / name) != recorded:
            raise VerificationError(
                f"{source.name}: {name} changed while it was copied", hint="publish again"
            )


def _forbid_writing(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(path.stat().st_mode & ~_WRITE)
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def _note_proof(version: Version, source: Source) -> Version:
    """The same bytes, proven since: the evidence joins them, in one exchange of folders."""
    aside = version.folder.with_name(f".{version.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(version.folder, aside, copy_function=os.link)
    shutil.rmtree(aside / "proof", ignore_errors=True)
    shutil.copytree(source.folder / "proof", aside / "proof")
    facts = {"form": 1, "fingerprint": version.fingerprint, "proof": "proven"}
    write_durably(aside / FACTS, f"{json.dumps(facts)}\n".encode(), mode=0o444)
    _forbid_writing(aside)
    exchange(aside, version.folder)
    shutil.rmtree(aside)
    return Version(version.folder, version.fingerprint, "proven")


def point_current(root: Path, version: Version) -> None:
    """Switch the link, by one rename."""
    aside = root / f".{CURRENT}.{os.getpid()}"
    aside.unlink(missing_ok=True)
    with passing(aside), gate("point", root / CURRENT):
        aside.symlink_to(version.name)
        os.replace(aside, root / CURRENT)
    sync_folder(root)


def roll_back(project: Project, guest: str) -> Version:
    """Make the version before the current one current; raises UsageError where there is none."""
    root = published(project, guest)
    with locked(root.parent / ".locks" / guest):
        now = current_version(project, guest)
        older = [v for v in list_versions(project, guest) if now and v.name < now.name]
        if not older:
            raise UsageError(
                f"{guest} has no published version before {now.name if now else 'the first'}",
                hint="doit publish keeps as many as keep= says",
            )
        point_current(root, older[-1])
    return older[-1]


def prune(project: Project, guest: str, keep: int) -> list[Version]:
    """Remove the oldest versions but for `keep`, never the current one; returns what went."""
    root = published(project, guest)
    with locked(root.parent / ".locks" / guest):
        now = current_version(project, guest)
        versions = list_versions(project, guest)
        doomed = [v for v in versions[: max(0, len(versions) - keep)] if v != now]
        for version in doomed:
            grave = root / f".{version.name}.gone"
            os.rename(version.folder, grave)
            remove_tree(grave)
    return doomed
