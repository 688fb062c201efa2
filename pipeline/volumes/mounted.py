"""Identity and size in an xfs or btrfs file system: mounted in a namespace that dies with it.

debugfs writes into an ext file system from outside; nothing does so for these two.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.guest.identity import IdentityFile
from pipeline.host.namespace import isolated
from pipeline.volumes.filesystems import require_mounting

Run = Callable[..., str]
_SHADOW_GROUP = 42  # fixed in base-passwd


def make_own_mounted(
    run: Run,
    disk: Path,
    *,
    fs: str,
    uuid: str,
    files: Iterable[IdentityFile],
    work: Path,
    epoch: int,
    size_bytes: int,
) -> None:
    """Give a file or device its UUID, the guest's own files and its size; check it afterwards."""
    require_mounting([fs])
    if disk.is_file():
        with open(disk, "r+b") as stream:
            stream.truncate(size_bytes)
    new_uuid = {
        "xfs": ["xfs_admin", "-U", uuid, disk],
        "btrfs": ["btrfstune", "-f", "-U", uuid, disk],
    }
    run(new_uuid[fs])
    point = work / "mounted"
    point.mkdir(exist_ok=True)
    grow = {
        "xfs": ["xfs_growfs", "-d", point],
        "btrfs": ["btrfs", "filesystem", "resize", "max", point],
    }
    loop = ["-o", "loop"] if disk.is_file() else []
    script = work / "own"
    script.write_text("\n".join(["set -eu", *_writing(files, point, work, epoch)]) + "\n")
    before: list[list[object]] = [
        ["mount", *loop, "-t", fs, disk, point],
        ["sh", script],
        grow[fs],
    ]
    run(isolated(["umount", point], before=before))
    point.rmdir()
    check_mounted(run, disk, fs)


def check_mounted(run: Run, disk: Path, fs: str) -> None:
    """Raises CommandFailed when the file system is not sound; nothing is repaired."""
    check = {
        "xfs": ["xfs_repair", "-n", *(["-f"] if disk.is_file() else []), disk],
        "btrfs": ["btrfs", "check", "--readonly", disk],
    }
    run(check[fs])


def _writing(files: Iterable[IdentityFile], point: Path, work: Path, epoch: int) -> Iterable[str]:
    """Shell lines that write the files as ext.write_files does: owner root, one time for all."""
    for number, file in enumerate(files):
        target = f"{point}{file.path}"
        parent = shlex.quote(target.rpartition("/")[0])
        mode = "0700" if parent.endswith("/.ssh") else "0755"
        yield f"[ -d {parent} ] || install -d -m {mode} {parent}"
        yield f"rm -f {shlex.quote(target)}"
        if file.link:
            yield f"ln -s {shlex.quote(file.link)} {shlex.quote(target)}"
        else:
            source = work / f"own-{number}"
            source.write_bytes(file.content)
            group = _SHADOW_GROUP if file.path == "/etc/shadow" else 0
            words = ["install", "-o", "0", "-g", str(group), "-m", f"{file.mode:04o}"]
            yield shlex.join([*words, str(source), target])
        yield f"touch -h -d @{epoch} {shlex.quote(target)}"
