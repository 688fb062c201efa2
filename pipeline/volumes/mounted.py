"""Identity and size in an xfs or btrfs file system: mounted in a cage that dies with it.

debugfs writes into an ext file system from outside; nothing does so for these two. What is in the
file system was made by elements and packages, so every path is resolved inside it (`Beneath`), by a
process (`python -m ... ORDER`) that has no more rights than that takes.
"""

from __future__ import annotations

import base64
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pipeline.beneath import Beneath, Escape
from pipeline.cage import caged_reader
from pipeline.errand import carry_out, send
from pipeline.guest.identity import IdentityFile
from pipeline.host.namespace import Mount
from pipeline.privacy import make_private
from pipeline.volumes.filesystems import one_at_a_time, require_mounting

Run = Callable[..., str]
_SHADOW_GROUP = 42  # fixed in base-passwd
_WRITER = (
    *("setpriv", "--no-new-privs", "--inh-caps=-all"),
    *("--bounding-set=-all,+chown,+dac_override,+fowner", "--"),
)
_INERT = "nosuid,nodev,noexec"


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
    """Give a file or device its UUID, the guest's own files and its size; check it afterwards.

    Links of the guest are followed inside it. Raises PipelineError for what leads nowhere.
    """
    require_mounting([fs])
    if disk.is_file():
        with open(disk, "r+b") as stream:
            stream.truncate(size_bytes)
    new_uuid: dict[str, list[object]] = {
        "xfs": ["xfs_admin", "-U", uuid, disk],
        "btrfs": ["btrfstune", "-f", "-U", uuid, disk],
    }
    order = [_describe(file, epoch) for file in files]
    room = disk.parent if disk.is_file() else work
    with one_at_a_time([fs]):
        run(caged_reader(new_uuid[fs], writable=[disk]))
        _write_and_grow(run, disk, fs, order, room=room, work=work)
        check_mounted(run, disk, fs)


def _write_and_grow(
    run: Run, disk: Path, fs: str, files: list[dict[str, Any]], *, room: Path, work: Path
) -> None:
    """One mount for both, in a cage that sees `room` and, for a device, the machine's devices."""
    point, file = work / "mounted", make_private(work / "own.json")
    point.mkdir(exist_ok=True)
    grow: dict[str, list[object]] = {
        "xfs": ["xfs_growfs", "-d", point],
        "btrfs": ["btrfs", "filesystem", "resize", "max", point],
    }
    options = f"loop,{_INERT}" if disk.is_file() else _INERT
    send(
        "pipeline.volumes.mounted",
        {"point": str(point), "files": files},
        file=file,
        room=room,
        run=run,
        mounts=[Mount(point, fs, str(disk), options)],
        rights=_WRITER,
        after=[grow[fs], ["umount", point]],
        mounts_files=True,
    )
    file.unlink()
    point.rmdir()


def check_mounted(run: Run, disk: Path, fs: str) -> None:
    """Raises CommandFailed when the file system is not sound; nothing is repaired."""
    check: dict[str, list[object]] = {
        "xfs": ["xfs_repair", "-n", *(["-f"] if disk.is_file() else []), disk],
        "btrfs": ["btrfs", "check", "--readonly", disk],
    }
    run(caged_reader(check[fs], readable=[disk]))


def _describe(file: IdentityFile, epoch: int) -> dict[str, Any]:
    content = base64.b64encode(file.content).decode()
    group = _SHADOW_GROUP if file.path == "/etc/shadow" else 0
    return {
        **{"path": file.path, "content": content, "mode": file.mode},
        **{"link": file.link, "group": group, "epoch": epoch},
    }


def write_own(order: dict[str, Any]) -> None:
    """Write the files as ext.write_files does: owner root, one time for all."""
    with Beneath(Path(order["point"])) as tree:
        for file in order["files"]:
            path = str(file["path"])
            parent = path.rpartition("/")[0]
            if parent.endswith("/.ssh"):
                tree.make_folders(parent.removesuffix("/.ssh"))
                if not tree.exists(parent):
                    tree.make_folder(parent, mode=0o700)
            tree.make_folders(parent)
            if tree.exists(path) and stat.S_ISDIR(tree.stat(path).st_mode):
                raise Escape(f"the guest's {path} is a folder", hint="an element left it so")
            if file["link"]:
                tree.unlink(path, missing_ok=True)
                tree.symlink(file["link"], path, mtime_s=file["epoch"])
            else:
                tree.write(
                    *(path, base64.b64decode(file["content"])),
                    mode=file["mode"],
                    gid=file["group"],
                    mtime_s=file["epoch"],
                    replace=True,
                )


if __name__ == "__main__":
    sys.exit(carry_out(write_own))
