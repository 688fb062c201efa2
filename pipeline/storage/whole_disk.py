"""Putting a whole disk together: the table, the boot loaders, and the partitions made before."""

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.spec import Spec
from pipeline.spec.devices import BIOS_MIB, ESP_MIB, Part
from pipeline.storage import gpt
from pipeline.storage.boot_code import EFI_PATH, BootCode
from pipeline.storage.fat import make_fat
from pipeline.storage.gpt import MIB, SECTOR, Entry
from pipeline.storage.root_place import ROOT, copy_extents
from pipeline.walls.privacy import make_private

_UUIDS = uuid.UUID("d7a0f0a4-6a9b-5a3c-8d6e-2b1f5b0c9e77")
LOADERS = 2  # the partitions before the guest's own: GRUB for BIOS, the EFI system partition


def lay_out(spec: Spec, disk: Part) -> list[Entry]:
    """Every partition in its place: GRUB for BIOS, the ESP, then the guest's own, the root last."""
    wanted = [("bios", BIOS_MIB, gpt.BIOS_BOOT), ("esp", ESP_MIB, gpt.ESP)]
    for part in disk.inside:
        name = ROOT if part.is_root else part.name
        wanted.append((name, part.size_mib, gpt.SWAP if part.is_swap else gpt.LINUX))
    entries, start = [], MIB
    for number, (name, size_mib, kind) in enumerate(wanted, 1):
        own, size = _identity(spec, f"partition {number}"), size_mib * MIB
        entries.append(Entry(kind=kind, uuid=own, name=name, start=start, size=size))
        start += size
    return entries


def assemble(
    run: Callable[..., str],
    image: Path,
    *,
    spec: Spec,
    disk: Part,
    code: BootCode,
    made: Mapping[Part, Path],
    epoch: int,
    size: int,
) -> None:
    """Make the raw image of a whole disk of `size` bytes, which may be more than it needs; the
    partitions that were made as files are gone then."""
    bios, esp, *own = lay_out(spec, disk)
    sector_code, core = code.at(bios.start // SECTOR)
    if len(core) > bios.size:
        raise PipelineError(
            f"GRUB for BIOS takes {len(core) >> 10} KiB, its partition has {BIOS_MIB} MiB",
            hint="fewer modules: DIB_WHOLE_DISK_MODULES of the element whole-disk",
        )
    system = image.with_name("esp.part")
    make_fat(
        run,
        system,
        size_bytes=esp.size,
        label="EFI",
        serial=_identity(spec, "esp")[:8],
        files={EFI_PATH: code.efi} if code.efi else {},
        epoch=epoch,
    )
    head, tail = gpt.render_table(
        (bios, esp, *own), disk_uuid=_identity(spec, "disk"), size=size, boot=sector_code
    )
    with open(make_private(image), "r+b", buffering=0) as stream:
        stream.truncate(size)
        for at, content in ((0, head), (bios.start, core), (size - len(tail), tail)):
            os.pwrite(stream.fileno(), content, at)
    _lay(system, image, esp)
    for part, entry in zip(disk.inside, own, strict=True):
        _lay(made[part], image, entry)


def _identity(spec: Spec, what: str) -> str:
    """A UUID of this guest's disk, the same at every build (RFC 9562 version 5)."""
    return str(uuid.uuid5(_UUIDS, f"{spec.name} {what}"))


def _lay(part: Path, image: Path, entry: Entry) -> None:
    copy_extents(part, image, start=0, size=part.stat().st_size, at=entry.start)
    part.unlink()
