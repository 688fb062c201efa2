"""A FAT file system with files in it, whose bytes depend on what is given alone.

Made by mkfs.fat and mtools, as files: nothing is mounted. The label stands in the boot sector and
in the root folder, for readers look in one of them or the other.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from pipeline.errors import PipelineError
from pipeline.scratch import remove_tree
from pipeline.walls.privacy import make_private

TOOLS = {"mkfs.fat": "dosfstools", "mcopy": "mtools", "mmd": "mtools"}
MIB = 1 << 20
# 65525 clusters make it FAT32 for every reader (Microsoft's FAT specification, 3.5)
_FAT32_BYTES = 64 * MIB
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,11}")
_SERIAL = re.compile(r"[0-9a-f]{8}")


def make_fat(
    run: Callable[..., str],
    image: Path,
    *,
    size_bytes: int,
    label: str,
    serial: str,
    files: Mapping[str, bytes],
    epoch: int,
) -> None:
    """A new image of mode 0600: FAT32 from 64 MiB on, FAT12 or FAT16 below.

    `files` are paths below its root (EFI/BOOT/BOOTX64.EFI), `serial` is eight hexadecimal digits,
    `epoch` the time of everything in it. Raises PipelineError where they do not fit.
    """
    if not _LABEL.fullmatch(label) or not _SERIAL.fullmatch(serial):
        raise ValueError(f"{label!r} with {serial!r} is no label with a serial number")
    if sum(map(len, files.values())) > size_bytes:
        raise PipelineError(f"{image.name}: its files are larger than {size_bytes >> 20} MiB")
    os.truncate(make_private(image), size_bytes)
    kind = ["-F", "32"] if size_bytes >= _FAT32_BYTES else []
    clock = {"SOURCE_DATE_EPOCH": str(epoch), "MTOOLSRC": os.devnull}
    run(["mkfs.fat", "--invariant", *kind, "-i", serial, "-n", label, image], env=clock)
    source = image.with_name(f"{image.name}.files")
    source.mkdir(mode=0o700)
    for path, content in files.items():
        target = source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    # sorted: a folder of FAT has its entries in the order in which they were written
    folders = sorted({str(parent) for path in files for parent in PurePosixPath(path).parents})
    for folder in folders:
        inside = "::" if folder == "." else f"::/{folder}"
        if folder != ".":
            run(["mmd", "-i", image, inside], env=clock)
        own = [source / path for path in sorted(files) if str(PurePosixPath(path).parent) == folder]
        if own:
            run(["mcopy", "-Q", "-i", image, *own, inside], env=clock)
    remove_tree(source)
