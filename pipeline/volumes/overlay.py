"""A copy-on-write disk: a qcow2 file that holds only what differs from the golden image.

The identity is written through the qcow2 format itself: qemu-storage-daemon(1) shows the overlay as
a plain file (its FUSE export) to debugfs and its kin, in a mount namespace that dies with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.cage import caged_reader
from pipeline.errors import EnvironmentFault
from pipeline.host.namespace import isolated
from pipeline.privacy import make_private

FUSE = Path("/dev/fuse")
SHOWN = "shown"  # in the work folder, the file that the overlay is seen as
TOOLS = {"qemu-storage-daemon": "qemu-system-common", "qemu-img": "qemu-utils"}
_SCRIPT = """set -eu
overlay=$1 shown=$2 ready=$3
qemu-storage-daemon --blockdev driver=file,node-name=file,filename="$overlay" \\
    --blockdev driver=qcow2,node-name=disk,file=file,discard=unmap \\
    --export type=fuse,id=disk,node-name=disk,mountpoint="$shown",writable=on --pidfile "$ready" &
daemon=$!
while [ ! -s "$ready" ]; do
    kill -0 "$daemon" || exit 1
    sleep 0.01
done
status=0
sh -euc "$4" sh "$shown" || status=$?
kill "$daemon"
wait "$daemon" || status=${status#0}
exit "${status:-1}"
"""


def require_fuse() -> None:
    """Raises EnvironmentFault where this user may not show a file by FUSE."""
    if not os.access(FUSE, os.R_OK | os.W_OK):
        raise EnvironmentFault(
            f"clone=cow needs {FUSE}, which {'is not there' if not FUSE.exists() else 'is closed'}",
            hint="load the module fuse, or give this user access; clone=full needs neither",
        )


def make_overlay(run: Callable[..., str], overlay: Path, *, golden: Path, size_bytes: int) -> None:
    """An empty overlay over a golden image, which must stay where it is from now on."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", golden, overlay]
    run([*argv, size_bytes])


def edit_overlay(
    run: Callable[..., str],
    overlay: Path,
    steps: Sequence[str],
    *,
    work: Path,
    env: dict[str, str],
) -> str:
    """Run shell lines on the overlay as a raw file, which they see as "$1"; returns their output.

    Raises EnvironmentFault where FUSE is closed, CommandFailed for the first line that fails.
    """
    require_fuse()
    shown, ready = work / SHOWN, work / "ready"
    shown.touch()
    words = ["sh", "-c", _SCRIPT, "sh", overlay, shown, ready, "\n".join(steps)]
    return run(isolated(words), env=env)


def flatten(run: Callable[..., str], overlay: Path, target: Path) -> None:
    """The same disk as a qcow2 file that needs no other, compared with it afterwards."""
    convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2"]
    run([*convert, overlay, make_private(target)])
    run(["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2", overlay, target])


def find_backing(run: Callable[..., str], disk: Path) -> str:
    """The file that a qcow2 disk rests on, "" for none."""
    # the format is given: probing would take a guest's own words for a header
    ask = ["qemu-img", "info", "-f", "qcow2", disk]
    for line in run(caged_reader(ask, readable=[disk])).splitlines():
        if line.startswith("backing file: "):
            return line.partition(": ")[2].partition(" (actual path")[0]
    return ""
