"""A foreign root file system, open: survey and changes by a part of our program in a cage.

Disks are mounted in a namespace that dies with the command, each where its mount point really is
in the tree; a kill leaves no mount. Who reads or writes there has no right but that.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline import process
from pipeline.dom0.guest_root import check_file_system
from pipeline.errors import UsageError
from pipeline.foreign.changes import Change, apply_changes, from_order
from pipeline.foreign.root_tree import RootTree, from_json, survey
from pipeline.scratch import remove_tree
from pipeline.storage.filesystems import EXT, MOUNTED, FileSystemAt, one_at_a_time
from pipeline.walls.beneath import Beneath, Escape, take
from pipeline.walls.errand import carry_out, send
from pipeline.walls.privacy import make_private

Run = Callable[..., str]
_MODULE = "pipeline.foreign.mounted_root"
Packing = Callable[[Path, Path, Sequence[str]], Sequence[object]]
_PACKED = "packed.tar"
_SURVEY, _MOST_SURVEY = "survey.json", 128 << 20
_RIGHTS = (
    *("setpriv", "--no-new-privs", "--inh-caps=-all"),
    *("--bounding-set=-all,+chown,+dac_override,+fowner", "--"),
)


def survey_disks(file_systems: Sequence[FileSystemAt], *, work: Path, run: Run) -> RootTree:
    """The survey of a guest that is shut down; nothing is written, not even a journal.

    `work` is a folder of this command. Raises VerificationError, EnvironmentFault, UsageError.
    """
    return _on_disks(file_systems, [], work=work, run=run)


def change_disks(
    file_systems: Sequence[FileSystemAt],
    changes: Iterable[Change],
    *,
    work: Path,
    run: Run,
    busybox: Path | None = None,
) -> RootTree:
    """Make the changes and survey what it is then. `busybox` is a static one, for an initrd."""
    changed = list(changes)
    return _on_disks(file_systems, changed, work=work, run=run, busybox=busybox, writes=True)


def pack_disks(
    file_systems: Sequence[FileSystemAt], tar: Path, words: Packing, *, work: Path, run: Run
) -> RootTree:
    """The survey, and `tar` made of all of it by the command line that `words` gives for the
    mounted tree, the tar in the room and the mount points in it."""
    return _on_disks(file_systems, [], work=work, run=run, packed=(tar, words))


def survey_folder(tree: Path, *, room: Path, work: Path, run: Run) -> RootTree:
    """The survey of a tree that lies in a cage's room."""
    return change_folder(tree, [], room=room, work=work, run=run)


def change_folder(
    tree: Path,
    changes: Iterable[Change],
    *,
    room: Path,
    work: Path,
    run: Run,
    busybox: Path | None = None,
    time_s: int | None = None,
) -> RootTree:
    """The same for a tree that was unpacked in a cage, below its `room`."""
    order = {**_order(tree, changes, room, busybox), "time_s": time_s}
    file = make_private(work / "order.json")
    try:
        readable = [busybox] if busybox else []
        send(_MODULE, order, file=file, room=room, run=run, readable=readable)
        return _take_survey(room)
    finally:
        file.unlink(missing_ok=True)


def _order(
    tree: Path, changes: Iterable[Change], room: Path, busybox: Path | None
) -> dict[str, Any]:
    told = {"tree": str(tree), "room": str(room), "busybox": str(busybox or ""), "time_s": None}
    return {**told, "changes": [asdict(change) for change in changes]}


def _take_survey(room: Path) -> RootTree:
    with Beneath(room, follow=False) as inside:
        content = inside.read(_SURVEY, limit=_MOST_SURVEY)
        inside.unlink(_SURVEY)
    return from_json(content)


def _on_disks(
    file_systems: Sequence[FileSystemAt],
    changes: list[Change],
    *,
    work: Path,
    run: Run,
    busybox: Path | None = None,
    writes: bool = False,
    packed: tuple[Path, Packing] | None = None,
) -> RootTree:
    parts = sorted(file_systems, key=lambda part: part.mountpoint.count("/") + len(part.mountpoint))
    _require_readable(parts)
    for part in parts:
        if writes:
            check_file_system(part.place, part.fs)
    room, file = work / "room", make_private(work / "order.json")
    point = room / "root"
    for folder in (room, point):
        folder.mkdir(mode=0o700)
    order = _order(point, changes, room, busybox)
    order["mounts"] = [[part.mountpoint, *part.mount_argv(writable=writes)] for part in parts]
    after: list[Sequence[object]] = [["umount", "--recursive", point]]
    if packed:
        after.insert(0, packed[1](point, room / _PACKED, [part.mountpoint for part in parts[1:]]))
    disks = [part.place.disk for part in parts]
    sources = [disk for disk in disks if not disk.is_block_device()]
    try:
        with one_at_a_time([part.fs for part in parts]):
            send(
                *(_MODULE, order),
                file=file,
                room=room,
                run=run,
                readable=[*([busybox] if busybox else []), *([] if writes else sources)],
                writable=sources if writes else [],
                rights=[sys.executable, "-m", _MODULE, str(file), "--", *_RIGHTS],
                after=after,
                mounts_files=True,
            )
        if packed:
            take(room, _PACKED, packed[0])
        return _take_survey(room)
    finally:
        file.unlink(missing_ok=True)
        remove_tree(room)


def _require_readable(parts: Sequence[FileSystemAt]) -> None:
    if not parts or parts[0].mountpoint != "/":
        raise UsageError("none of these disks has the root file system", hint="name its disk too")
    for part in parts:
        if part.fs not in (*EXT, *MOUNTED):
            raise UsageError(
                f"{part.place.disk}: {part.fs} is read by nobody here", hint="ext, xfs, btrfs"
            )


def mount_all(order: dict[str, Any]) -> None:
    """The first step in the cage: each file system where its mount point leads in the tree."""
    root = str(order["tree"])
    for mountpoint, *argv in order["mounts"]:
        target = root
        if mountpoint != "/":
            with Beneath(Path(root), mounts=True) as tree:
                folder = tree.open(mountpoint, os.O_PATH | os.O_DIRECTORY, follow_last=True)
                # nobody else is there: what the kernel says now stays true
                target = os.readlink(f"/proc/self/fd/{folder}")
                os.close(folder)
            if not target.startswith(f"{root}/"):
                raise Escape(f"{mountpoint} leads out of the root file system")
        process.run([*argv, target])


def work_in_tree(order: dict[str, Any]) -> None:
    """The step after it, without the right to mount: changes first, then the survey."""
    room = Path(order["room"])
    busybox = Path(order["busybox"]).read_bytes() if order["busybox"] else b""
    with Beneath(Path(order["tree"]), mounts=True) as tree:
        changes = map(from_order, order["changes"])
        apply_changes(tree, changes, time_s=order["time_s"], busybox=busybox, room=room)
        surveyed = survey(tree)
    (room / _SURVEY).write_text(json.dumps(asdict(surveyed)))


def main(words: list[str]) -> int:
    """`FILE -- COMMAND...` mounts and becomes the command, `FILE` alone works in the tree."""
    if not words[1:]:
        return carry_out(work_in_tree)
    status = carry_out(mount_all)
    if status == 0:
        os.execvp(words[2], words[2:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
