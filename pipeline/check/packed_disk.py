"""The XVA beside a whole disk, read as an importer reads it."""

from pathlib import Path

from pipeline.errors import CommandFailed, VerificationError
from pipeline.formats.xva_reader import take_out
from pipeline.guest.portable_machine import xva_name
from pipeline.process import run
from pipeline.walls.cage import caged_reader


def find_xva_faults(folder: Path, name: str, disk: Path | None, work: Path) -> tuple[str, ...]:
    """What is wrong with it; `disk` is what it must hold, None where that has changed since."""
    room = work / "xva"
    room.mkdir(mode=0o700)
    path = folder / xva_name(name)
    if not path.is_file():
        return (f"no {path.name}",)
    try:
        xva = take_out(path, room, run)
    except VerificationError as error:
        return (error.brief,)
    if len(xva.disks) != 1:
        return (f"{len(xva.disks)} disks",)
    packed = room / xva.disks[0].file
    compare = ["qemu-img", "compare", "-q", "-f", "raw", "-F", "raw"]
    try:
        if disk is not None:
            run(caged_reader([*compare, packed, disk], readable=[packed, disk]))
    except CommandFailed:
        return (f"its disk is not {disk}",)
    finally:
        packed.unlink()
    return ()
