"""Making a guest's disks as files: golden image, identity, size, swap, format."""

import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.errors import CommandFailed, EnvironmentFault, PipelineError
from pipeline.formats.vhd import write_vhd
from pipeline.namespace import isolated
from pipeline.process import require_tools
from pipeline.spec import Spec
from pipeline.spec.devices import Part
from pipeline.storage.ext import (
    IdentityFile,
    fixed_clock,
    plan_writing,
    refuse_complaints,
    write_files,
)
from pipeline.walls.cage import caged_reader
from pipeline.walls.privacy import make_private

FUSE = Path("/dev/fuse")
SHOWN = "shown"  # in the work folder, the file that the overlay is seen as
TOOLS = {"qemu-storage-daemon": "qemu-system-common", "qemu-img": "qemu-utils"}
_SCRIPT = """set -eu
overlay=$1 shown=$2 ready=ready
qemu-storage-daemon --blockdev driver=file,node-name=file,filename="$overlay" \\
    --blockdev driver=qcow2,node-name=disk,file=file,discard=unmap \\
    --export type=fuse,id=disk,node-name=disk,mountpoint="$shown",writable=on --pidfile "$ready" &
daemon=$!
while [ ! -s "$ready" ]; do
    kill -0 "$daemon" || exit 1
    sleep 0.01
done
status=0
sh -euc "$3" sh "$4" || status=$?
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
    run: Callable[..., str], overlay: Path, steps: Sequence[str], *, work: Path, env: dict[str, str]
) -> str:
    """Run shell lines in `work`, on the overlay as a raw file, which they see as "$1".

    Returns their output.

    Raises EnvironmentFault where FUSE is closed, CommandFailed for the first line that fails.
    """
    require_fuse()
    (work / SHOWN).touch()
    # a comma ends an option of QEMU
    places = [str(path).replace(",", ",,") for path in (overlay, work / SHOWN)]
    words = ["sh", "-c", _SCRIPT, "sh", *places, "\n".join(steps), SHOWN]
    return run(isolated(words), env=env, cwd=work)


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


Run = Callable[..., str]
MIB = 1 << 20
_UUIDS = uuid.UUID("9b5b3d6e-4c1c-5b39-9f0e-0a8f1d1f2c11")


def golden_name(mountpoint: str) -> str:
    """golden.img for the root, golden-var-tmp.img for /var/tmp."""
    return "golden.img" if mountpoint == "/" else f"golden{mountpoint.replace('/', '-')}.img"


def identity_uuid(spec: Spec, part: Part) -> str:
    """A UUID of this guest, the same at every build (RFC 9562 version 5)."""
    what = "root" if part.is_root else "swap" if part.is_swap else part.name
    return str(uuid.uuid5(_UUIDS, f"{spec.name} {what}"))


def refuse_too_small(part: Part, golden: Path) -> None:
    """Raises PipelineError when the part is smaller than what must be in it."""
    need = golden.stat().st_size // MIB
    if part.size_mib < need:
        named = "size" if part.is_root else f"partition {part.name}"
        raise PipelineError(
            f"{named}={part.size_mib}M: the guest's files and journal need {need} MiB",
            hint=f"write size={need}M or more, or install less",
        )


def copy_golden(run: Run, golden: Path, image: Path) -> None:
    """A copy of the golden image, sharing its blocks where the file system can."""
    run(["cp", "--sparse=always", "--reflink=auto", golden, make_private(image)])


def share_golden(run: Run, golden: Path, image: Path) -> None:
    """The golden image's blocks under another name (ioctl_ficlonerange(2)).

    Raises EnvironmentFault where the file system cannot share blocks between files.
    """
    try:
        run(["cp", "--sparse=auto", "--reflink=always", golden, make_private(image)])
    except CommandFailed as error:
        raise EnvironmentFault(
            f"{image.parent}: its file system cannot share blocks between files",
            details=error.details,
            hint="put output/ on btrfs or xfs, leave format out (qcow2), or use lvm_thin",
        ) from error


def make_own(
    run: Run,
    disk: Path,
    *,
    part: Part,
    spec: Spec,
    files: list[IdentityFile],
    work: Path,
    epoch: int,
) -> None:
    """Give an ext file system its UUID and the guest's own files; a file or a device."""
    rename = ["tune2fs", "-U", identity_uuid(spec, part), disk]
    run(caged_reader(rename, writable=[disk]), env=fixed_clock(epoch))
    write_files(run, disk, files, work=work, epoch=epoch)


def grow_ext(run: Run, disk: Path, size_bytes: int, epoch: int) -> None:
    """Grow an ext file system with its file, or to the end of its device, and check it."""
    if disk.is_file():
        os.truncate(disk, size_bytes)
    for words in (["resize2fs", disk], ["e2fsck", "-f", "-n", disk]):
        run(caged_reader(words, writable=[disk]), env=fixed_clock(epoch))


def make_overlay_disk(
    run: Run,
    overlay: Path,
    golden: Path,
    *,
    part: Part,
    spec: Spec,
    files: list[IdentityFile],
    work: Path,
    epoch: int,
) -> None:
    """The steps of a full copy, on a qcow2 overlay; one namespace for all of them."""
    require_tools(TOOLS)
    make_overlay(run, make_private(overlay), golden=golden, size_bytes=part.size_mib * MIB)
    script = plan_writing(golden, files, work=work, epoch=epoch)
    said = work / "said"
    steps = [
        f'tune2fs -U {identity_uuid(spec, part)} "$1" >&2',
        f'debugfs -w -f {script.name} "$1" > {said.name} 2>&1',
        'resize2fs "$1"',
        'e2fsck -f -n "$1"',
    ]
    edit_overlay(run, overlay, steps, work=work, env=fixed_clock(epoch))
    refuse_complaints(said.read_text(), overlay.name)


def make_swap(run: Run, image: Path, part: Part, spec: Spec) -> None:
    """A swap area in a sparse file."""
    os.truncate(make_private(image), part.size_mib * MIB)
    run(["mkswap", "-q", "-U", identity_uuid(spec, part), image])


def convert(
    run: Run, raw: Path, target: Path, *, disk_format: str, is_full: bool, identity: str, epoch: int
) -> None:
    """A raw image in another format, or with all its blocks allocated; `raw` is gone afterwards.

    A VHD is one that XenServer takes (formats/vhd.py), with a UUID, the `identity`, and a time. A
    full one is what it takes not; force_size: of exactly this size, not rounded to cylinders
    (qemu-img(1), vpc).
    """
    if disk_format == "raw":
        if is_full:
            _allocate(raw)
        if raw != target:
            raw.rename(target)
        return
    require_tools({"qemu-img": "qemu-utils"})
    kind = {"qcow2": "qcow2", "vhd": "vpc"}[disk_format]
    if disk_format == "vhd" and not is_full:
        with open(make_private(target), "r+b") as stream:
            write_vhd(raw, stream, identity=uuid.UUID(identity), epoch=epoch)
    else:
        options = ["-o", "subformat=fixed,force_size=on"] if disk_format == "vhd" else []
        run(["qemu-img", "convert", "-f", "raw", "-O", kind, *options, raw, make_private(target)])
    run(["qemu-img", "compare", "-q", "-f", "raw", "-F", kind, raw, target])
    if is_full:
        _allocate(target)
    raw.unlink()


def _allocate(path: Path) -> None:
    """Take all blocks of a sparse file now; raises EnvironmentFault when there are too few."""
    with open(path, "rb+") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise EnvironmentFault(
                f"{path.name}: {path.stat().st_size >> 20} MiB: {error.strerror}",
                hint="make room, or write image = 'sparse'",
            ) from error
