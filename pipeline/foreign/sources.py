"""Where an adopted guest comes from: a tar, a folder, a disk or a machine, brought here as one tar.

Each way ends in the same errand (`tar_writer`): what a stranger packed is read in a cage that holds
nothing but the open file, and the same tree gives the same bytes.
"""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.console.progress import progress_bar
from pipeline.diagnosis import explained_ssh
from pipeline.errors import CommandFailed, EnvironmentFault, PipelineError, UsageError
from pipeline.files import digest_file
from pipeline.foreign.disk_image import find_format, pack_disk
from pipeline.foreign.machine_url import Machine, read_machine
from pipeline.foreign.tar_command import (
    CHANGED,
    LIMIT,
    STEP_MIB,
    TOO_LONG,
    find_unsteady,
    is_step,
    pack_words,
)
from pipeline.foreign.tar_writer import MODULE, SAID, STEP, TAR
from pipeline.formats import ova_reader
from pipeline.guest.login import ssh_agent, ssh_option
from pipeline.namespace import is_root, isolated
from pipeline.process import require_tools
from pipeline.walls.beneath import Beneath, take
from pipeline.walls.cage import TOOLS as CAGE
from pipeline.walls.cage import first_id, make_room
from pipeline.walls.errand import send
from pipeline.walls.privacy import make_private

Run = Callable[..., str]
Kind = Literal["tar", "folder", "disk", "machine image", "machine"]
_RAW = "raw.tar"
_MOST_SAID = 16 << 20
# file systems of a machine's own disks, proc(5); what else is mounted is told and left there
_OF_DISKS = frozenset("ext2 ext3 ext4 xfs btrfs f2fs jfs reiserfs zfs".split())
# what comes and goes
_PASSING = ("/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp")
_BORROWED = ("/mnt", "/media", "/snap", "/cdrom")
_POINT = re.compile(r"/[A-Za-z0-9._@+/-]*")
_BEGIN, _TABLE = "domu: begin", "domu: mounts"
_ASK = (
    f"echo '{_BEGIN}'; id -u; tar --version | head -n 1; echo '{_TABLE}'; cat /proc/self/mountinfo"
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What to fetch: a path or ssh://[user@]HOST[:port].

    `without` are paths that stay there; with `mounts` what is mounted in a folder comes along;
    `part` is the partition with the root file system where there are several.
    """

    place: Path | str
    without: tuple[str, ...] = ()
    mounts: bool = False
    part: int = 0
    key: Path | None = None
    known_hosts: Path | None = None


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Something of the source that the guest does not get; `count` is 0 where nobody counted."""

    path: str
    count: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A tar as it came. `merged` were file systems of their own and are folders of the root's now;
    `notes` say what else a person has to know."""

    kind: Kind
    tar: Path
    merged: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    unsteady: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Fetched(Packed):
    """A root file system as one tar that depends on the tree alone."""

    sha256: str
    count: int
    size_bytes: int
    attributes: dict[str, int]


def fetch(source: Source, scratch: Path, *, own: Path, run: Run) -> Fetched:
    """Bring a root file system into `scratch`; `own` is the output folder, never part of it.

    Raises UsageError for what is no source, EnvironmentFault, VerificationError, InUseError.
    """
    require_tools({**CAGE, "tar": "tar"})
    packed = _pack(source, scratch, own=own, run=run)
    said = _write_again(packed.tar, scratch, source.without, run)
    if packed.tar.parent == scratch:
        packed.tar.unlink()
    left = (*packed.left_out, *(LeftOut(**told) for told in said["left_out"]))
    return Fetched(
        **{**vars(packed), "tar": scratch / TAR, "left_out": left},
        sha256=digest_file(scratch / TAR),
        count=sum(said["kinds"].values()),
        size_bytes=said["bytes"],
        attributes=said["attributes"],
    )


def _pack(source: Source, scratch: Path, *, own: Path, run: Run) -> Packed:
    place = source.place
    if isinstance(place, str):
        return _pack_machine(source, place, scratch, run)
    if not place.exists():
        raise UsageError(f"{place}: there is nothing of that name", hint="from=TAR, FOLDER, DISK")
    if place.is_dir():
        return _pack_folder(source, place, scratch, own=own, run=run)
    form = find_format(place)
    if form == "tar":
        return Packed(kind="tar", tar=place)
    if form == "ova":
        return _pack_ova(source, place, scratch, run)
    return _pack_disk(source, place, form, scratch, run)


def _pack_disk(source: Source, place: Path, form: str, scratch: Path, run: Run) -> Packed:
    tar = scratch / _RAW
    options: dict[str, Any] = {"part": source.part, "without": source.without, "run": run}
    image = pack_disk(place, form, tar, scratch=scratch, **options)
    left = tuple(LeftOut(path=path, count=0, why=why) for path, why in image.left_out)
    return Packed(
        kind="disk", tar=tar, merged=tuple(image.merged), left_out=left, notes=tuple(image.notes)
    )


def _pack_ova(source: Source, place: Path, scratch: Path, run: Run) -> Packed:
    """The disk that an OVA's machine starts from; other disks of it stay there."""
    room, disk = scratch / "ova", scratch / "ova.disk"
    said = _in_cage(place, room, f"reading {place.name}", ova_reader.MODULE, ova_reader.STEP, run)
    take(room, ova_reader.DISK, disk)
    form = find_format(disk)
    if form in ("tar", "ova"):
        raise UsageError(
            f"{place}: {said['disk']} is no disk", hint="from=TAR takes a tar by itself"
        )
    packed = _pack_disk(source, disk, form, scratch, run)
    disk.unlink()
    state = "as its manifest says" if said["summed"] else "which no manifest vouches for"
    notes = (f"the disk is {said['disk']} of {said['name'] or 'a machine'}, {state}", *packed.notes)
    left = (LeftOut(path=other, count=0, why="a further disk") for other in said["others"])
    return replace(packed, kind="machine image", notes=notes, left_out=(*packed.left_out, *left))


def _pack_folder(source: Source, folder: Path, scratch: Path, *, own: Path, run: Run) -> Packed:
    tar, root = scratch / _RAW, folder.resolve()
    points: list[str] = []
    left: list[LeftOut] = []
    for point, why in _read_mounts(Path("/proc/self/mountinfo").read_text(), root):
        if why or not source.mounts:
            left.append(LeftOut(path=point, count=0, why=why or "a mount; mounts=yes takes it"))
        else:
            points.append(point)
    inner = [f"/{own.resolve().relative_to(root)}"] if own.resolve().is_relative_to(root) else []
    left += [LeftOut(path=path, count=0, why="this pipeline's own output") for path in inner]
    words = pack_words(root, tar, below=points, without=[*source.without, *inner])
    make_private(tar)
    said = _follow(run, isolated(["sh", "-c", f'{LIMIT}exec "$@"', "sh", *words]), folder)
    return Packed(
        kind="folder",
        tar=tar,
        merged=tuple(points),
        left_out=(*left, *_told(source.without)),
        unsteady=tuple(find_unsteady(said)),
    )


def _told(without: Iterable[str]) -> Iterator[LeftOut]:
    return (LeftOut(path=path, count=0, why="without=") for path in without)


def _read_mounts(table: str, root: Path) -> Iterator[tuple[str, str]]:
    """(mount point below `root`, why it is left out, "" to take it), of proc_pid_mountinfo(5).

    A file system that is mounted twice counts once; a part of one elsewhere is no disk's.
    """
    seen = set()
    for line in table.splitlines():
        head, _, tail = line.partition(" - ")
        fields, kind = head.split(), tail.partition(" ")[0]
        if len(fields) < 6:
            continue
        device, inner, point = fields[2:5]
        place = (device, inner)
        is_again = place in seen
        seen.add(place)
        if not Path(point).is_relative_to(root) or Path(point) == root:
            continue
        path = f"/{Path(point).relative_to(root)}"
        if _is_below(path, _PASSING):
            continue
        if _is_below(path, _BORROWED):
            yield path, "what is mounted there comes and goes"
        elif not _POINT.fullmatch(path):
            yield ascii(path)[1:-1], "a mount point of this name is not taken"
        elif kind not in _OF_DISKS:
            yield path, f"a mount of {kind if kind.isidentifier() else 'another kind'}"
        elif is_again or (inner != "/" and kind != "btrfs"):
            yield path, "the same file system is mounted elsewhere"
        else:
            yield path, ""


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _pack_machine(source: Source, url: str, scratch: Path, run: Run) -> Packed:
    """By tar over ssh, one file system after the other; no password is ever asked for."""
    require_tools({"ssh": "openssh-client"})
    machine = read_machine(url)
    words, host = _ssh_words(source, machine), machine.host
    with _explained(host):
        told = run([*words, _ASK], env=ssh_agent())
    user, version, table = _read_answer(told, host)
    if "GNU tar" not in version:
        raise EnvironmentFault(
            f"{host}: it has no GNU tar, which alone keeps owners, links and attributes",
            hint=f"install it there (apk add tar); or copy a tar or its disk here ({version[:60]})",
        )
    mounts = list(_read_mounts(table, Path("/")))
    points = [point for point, why in mounts if not why]
    tar = make_private(scratch / _RAW)
    remote = pack_words("/", "-", below=points, without=source.without)
    command = shlex.join([*([] if user == "0" else ["sudo", "-n"]), *map(str, remote)])
    into = ["sh", "-c", f'{LIMIT}exec "$@" >"$0"', tar, *words, command]
    with _explained(host):
        said = _follow(run, into, host)
    left = [LeftOut(path=point, count=0, why=why) for point, why in mounts if why]
    return Packed(
        kind="machine",
        tar=tar,
        merged=tuple(points),
        left_out=(*left, *_told(source.without)),
        unsteady=tuple(find_unsteady(said)),
        notes=(f"{host} ran while it was read: what its databases wrote meanwhile may be torn",),
    )


def _ssh_words(source: Source, machine: Machine) -> list[object]:
    """ssh without a terminal, which asks nothing and trusts no key that it does not know."""
    words: list[object] = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    words += ["-o", "ClearAllForwardings=yes", "-o", "ConnectTimeout=20"]
    words += ["-o", "ServerAliveInterval=30", "-o", "Compression=yes"]
    if source.known_hosts:
        words += ["-o", ssh_option("UserKnownHostsFile", source.known_hosts)]
        words += ["-o", "GlobalKnownHostsFile=/dev/null"]
    words += ["-i", source.key, "-o", "IdentitiesOnly=yes"] if source.key else []
    words += ["-p", machine.port] if machine.port else []
    words += ["-l", machine.user] if machine.user else []
    return [*words, "--", machine.host]


def _read_answer(told: str, host: str) -> tuple[str, str, str]:
    """User number, tar's version, mounts; a login shell may have talked before."""
    said, _, table = told.partition(f"{_BEGIN}\n")[2].partition(f"{_TABLE}\n")
    lines = said.splitlines()
    if not table or not lines:
        raise PipelineError(f"{host} does not answer as a Linux machine does", details=told[-2000:])
    return lines[0], lines[1] if lines[1:] else "no tar", table


def _explained(host: str) -> AbstractContextManager[None]:
    return explained_ssh(host, key="key=FILE, or ssh-agent", known="; or known_hosts=FILE")


def _follow(run: Run, words: Sequence[object], place: object) -> str:
    """Run a tar with a bar; its words about what changed are no failure."""
    with progress_bar(f"reading {place}", unit=" MiB") as bar:

        def count(line: str) -> None:
            if is_step(line):
                bar.advance(STEP_MIB)

        try:
            return run(words, env=ssh_agent(), on_line=count, accept=(0, CHANGED))
        except CommandFailed as error:
            if error.status in TOO_LONG:
                raise PipelineError(
                    f"{place}: more than a guest's tree may have",
                    hint="without=PATH,PATH leaves out what the guest does not need",
                ) from error
            if "Permission denied" in error.details:
                raise EnvironmentFault(
                    f"{place}: not all of it may be read",
                    details=error.details,
                    hint="read it as root",
                ) from error
            raise


def _write_again(tar: Path, scratch: Path, without: Sequence[str], run: Run) -> dict[str, Any]:
    """The tar as it depends on the tree alone, made in a cage; what the errand said of it."""
    room = scratch / "room"
    said = _in_cage(tar, room, "sorting", MODULE, STEP, run, without=list(without))
    made = take(room, TAR, scratch / TAR, mode=0o640)
    if is_root():  # a cage reads it, and nobody else
        os.chown(made, -1, first_id())
    return said


def _in_cage(
    file: Path, room: Path, told: str, module: str, step: str, run: Run, **order: object
) -> dict[str, Any]:
    """What an errand says of a file that a stranger packed, which it has open; with a bar."""
    make_room(room)
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with progress_bar(told, unit=" MiB") as bar:

            def count(line: str) -> None:
                if line.startswith(step):
                    bar.advance(int(line.split()[-1]))

            send(
                *(module, {**order, "file": descriptor, "room": str(room)}),
                file=room.with_name(f"{room.name}.order"),
                room=room,
                run=run,
                keep_open=[descriptor],
                on_line=count,
            )
    finally:
        os.close(descriptor)
    with Beneath(room, follow=False) as inside:
        said: dict[str, Any] = json.loads(inside.read(SAID, limit=_MOST_SAID))
    return said
