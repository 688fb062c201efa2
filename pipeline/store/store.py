"""The content-addressed store: fingerprint -> artifact folder with its buildinfo.json.

An artifact is built in a scratch folder on the same file system, its buildinfo.json is written
last, and a rename makes it appear whole. A folder without a readable buildinfo.json, or whose
files have not the recorded sizes, counts as absent.
"""

import ctypes
import json
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from pipeline.files import digest_file, open_plain, sync_folder, write_durably
from pipeline.interruption import gate
from pipeline.locks import locked
from pipeline.project import Project
from pipeline.scratch import remove_or_warn

BUILDINFO = "buildinfo.json"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@dataclass(frozen=True)
class BuildInfo:
    """What an artifact was made from and what it holds.

    `inputs` is everything that changed its bytes, `upstream` the ids of the artifacts below it,
    `taken` what it took of those that it does not depend on as a whole (cutoff.py),
    `files` maps each file to its size in bytes and sha256, `seconds` is the build's wall time.
    """

    stage: str
    fingerprint: str
    revision: int
    inputs: dict[str, Any]
    upstream: dict[str, str]
    identity: str = ""
    seconds: float = 0.0
    built_at: int = 0
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    taken: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Readable JSON, keys sorted."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()


def list_files(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Each file below `folder`: size in bytes and sha256. Raises OSError for what is none.

    buildinfo.json itself and names matching a pattern of `without` are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        if stat.S_ISDIR(path.lstat().st_mode):
            continue
        if any(path.match(pattern) for pattern in (BUILDINFO, *without)):
            continue
        name = path.relative_to(folder).as_posix()
        found[name] = {"size": path.lstat().st_size, "sha256": digest_file(path)}
    return found


def read_buildinfo(folder: Path, name: str = BUILDINFO) -> BuildInfo | None:
    """The buildinfo of a whole artifact; None when absent, unreadable or a file's size is off."""
    try:
        with open(open_plain(folder / name), "rb") as stream:
            content = json.load(stream)
        found = BuildInfo(**content)
        for file, facts in found.files.items():
            state = (folder / file).lstat()
            if not stat.S_ISREG(state.st_mode) or state.st_size != facts["size"]:
                return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return found


def compare_digests(folder: Path, found: BuildInfo) -> str:
    """The first file whose bytes are not the recorded ones, "" when all are."""
    for name, facts in found.files.items():
        try:
            if digest_file(folder / name) != facts["sha256"]:
                return name
        except OSError:  # gone, or no file any more
            return name
    return ""


def _describe_files(folder: Path, found: BuildInfo) -> bytes:
    """What changes with every write to a file of an artifact, without reading it."""
    lines = [f"{found.built_at}"]
    with suppress(OSError):
        for name in sorted(found.files):
            state = (folder / name).lstat()
            times = f"{state.st_mtime_ns} {state.st_ctime_ns}"
            lines.append(f"{state.st_dev} {state.st_ino} {state.st_size} {times}")
    return "\n".join(lines).encode()


def find_missing(folder: Path, outputs: Iterable[str]) -> str:
    """The first name or pattern for which `folder` has no regular file, "" when all are there."""
    for pattern in outputs:
        found = sorted(folder.glob(pattern))
        if not found or not all(stat.S_ISREG(path.lstat().st_mode) for path in found):
            return pattern
    return ""


def exchange(one: Path, other: Path) -> None:
    """Swap two names atomically (renameat2(2), RENAME_EXCHANGE); raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    status = libc.renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
    )
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))


def publish_folder(scratch: Path, final: Path) -> None:
    """Make a finished scratch folder appear at `final`, atomically; an older one is removed."""
    sync_folder(scratch)
    final.parent.mkdir(parents=True, exist_ok=True)
    with gate("publish", final):
        is_replaced = os.path.lexists(final)
        if is_replaced:
            exchange(scratch, final)
        else:
            os.rename(scratch, final)
        sync_folder(final.parent)
    if is_replaced:
        remove_or_warn(scratch)


@dataclass(frozen=True)
class Store:
    """Artifacts below `root`/<stage>/<fingerprint>/; scratch folders below `root`/.scratch/."""

    root: Path

    @classmethod
    def of(cls, project: Project) -> Self:
        """The store of the golden half."""
        return cls(project.store)

    def location(self, stage: str, fingerprint: str) -> Path:
        """Where the artifact of this fingerprint is, or would be."""
        return self.root / stage / fingerprint[:32]

    def read(self, stage: str, fingerprint: str) -> BuildInfo | None:
        """The buildinfo of a whole artifact with exactly this fingerprint, else None."""
        found = read_buildinfo(self.location(stage, fingerprint))
        return found if found and found.fingerprint == fingerprint else None

    @property
    def runs_lock(self) -> Path:
        """The file that every run holds shared while it may need something, and `doit gc` alone."""
        return self.root / ".locks" / "runs"

    def lock_path(self, stage: str, fingerprint: str) -> Path:
        """The file that is locked while an artifact is built, and shared while it is read."""
        return self.root / ".locks" / f"{stage}-{fingerprint[:32]}"

    @contextmanager
    def lock(self, stage: str, fingerprint: str) -> Iterator[None]:
        """One builder at a time for one fingerprint."""
        with locked(self.lock_path(stage, fingerprint)):
            yield

    @contextmanager
    def reading(self, stage: str, fingerprint: str) -> Iterator[None]:
        """While an artifact is read nobody removes it (`doit gc`); counts as its use."""
        with locked(self.lock_path(stage, fingerprint), is_shared=True):
            self.touch(stage, fingerprint)
            yield

    def find_damage(self, stage: str, fingerprint: str) -> str:
        """The first file whose bytes are not the recorded ones, "" when all are.

        Digests are compared once for each start of the machine, and after every change of a file:
        memory and cables may fail, but reading a gigabyte before every build would cost more than
        the build.
        """
        found = self.read(stage, fingerprint)
        if found is None:
            return BUILDINFO
        name = f"{stage}-{fingerprint[:32]}"
        return self.find_damage_in(self.location(stage, fingerprint), found, name)

    def find_damage_in(self, folder: Path, found: BuildInfo, name: str) -> str:
        """The same for a folder outside the store; `name` is that of its stamp."""
        stamp = _describe_files(folder, found)
        with suppress(OSError), open(open_plain(self._stamp(name)), "rb") as stream:
            if stream.read() == stamp:
                return ""
        damaged = compare_digests(folder, found)
        if not damaged:
            self._write_stamp(name, stamp)
        return damaged

    def note_verified(self, name: str, buildinfo: BuildInfo, folder: Path) -> None:
        """Note that an artifact's digests need not be compared again until the next boot."""
        self._write_stamp(name, _describe_files(folder, buildinfo))

    def _write_stamp(self, name: str, content: bytes) -> None:
        stamp = self._stamp(name)
        with suppress(OSError):  # somebody who may only look; a full disk: compared again then
            if self.root.stat().st_uid != os.geteuid():
                return
            for old in stamp.parent.parent.glob("*"):
                if old != stamp.parent:
                    shutil.rmtree(old, ignore_errors=True)  # another process may do the same
            stamp.parent.mkdir(parents=True, exist_ok=True)
            write_durably(stamp, content)

    def _stamp(self, name: str) -> Path:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return self.root / ".verified" / boot / name

    def discard(self, stage: str, fingerprint: str, scratch: Path) -> None:
        """Take an artifact out of the store, by a rename to `scratch`; nothing if there is none."""
        place = self.location(stage, fingerprint)
        with suppress(FileNotFoundError), gate("discard", place):
            os.rename(place, scratch)

    def publish(self, scratch: Path, buildinfo: BuildInfo) -> Path:
        """Write buildinfo.json, then make the scratch folder the artifact."""
        write_durably(scratch / BUILDINFO, buildinfo.to_json())
        final = self.location(buildinfo.stage, buildinfo.fingerprint)
        publish_folder(scratch, final)
        self.note_verified(f"{buildinfo.stage}-{buildinfo.fingerprint[:32]}", buildinfo, final)
        return final

    def touch(self, stage: str, fingerprint: str) -> None:
        """Note that an artifact was used now, for least-recently-used removal."""
        now = time.time()
        os.utime(self.location(stage, fingerprint), (now, now))
