"""A whole disk as it was built: its table, its boot loaders, where its root and its swap lie."""

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import VerificationError
from pipeline.process import run
from pipeline.spec import Spec
from pipeline.spec.devices import Part
from pipeline.storage import gpt
from pipeline.storage.boot_code import EFI_PATH
from pipeline.storage.ext import MOST_FILE
from pipeline.storage.partition_table import Partition, read_partitions
from pipeline.storage.whole_disk import LOADERS, lay_out
from pipeline.walls.beneath import Beneath
from pipeline.walls.cage import caged_reader

SECTOR = 512
_PATIENCE_S = 60


@dataclass(frozen=True)
class WholeDisk:
    """`table` are the faults of its table, `strange` the partitions that are not as they were made.

    `boot` is its first sector, `core` what its first partition holds, `efi` the loader for UEFI,
    b"" where there is none.
    """

    table: tuple[str, ...]
    strange: tuple[str, ...]
    swap: Partition | None
    boot: bytes
    core: bytes
    efi: bytes


def read_whole_disk(raw: Path, spec: Spec, work: Path) -> WholeDisk:
    """Read a raw image."""
    (disk, *_) = spec.disks
    wanted = lay_out(spec, disk)
    with open(raw, "rb") as stream:
        faults = gpt.find_faults(stream)
        at = {part.uuid: part for part in read_partitions(stream)}
        own = zip(disk.inside, wanted[LOADERS:], strict=True)
        swaps = [at.get(entry.uuid) for part, entry in own if part.is_swap]
        bios, esp, *_ = wanted
        return WholeDisk(
            table=tuple(faults),
            strange=tuple(_compare(wanted, at)),
            swap=swaps[0] if swaps else None,
            boot=os.pread(stream.fileno(), SECTOR, 0),
            core=os.pread(stream.fileno(), bios.size, bios.start),
            efi=_read_efi(raw, esp.start, work),
        )


def find_partitions(raw: Path, spec: Spec) -> dict[Part, Partition]:
    """Those with files in them; VerificationError where the table lacks one of this guest."""
    disk = spec.disks[0]
    with open(raw, "rb") as stream:
        at = {partition.uuid: partition for partition in read_partitions(stream)}
    own = zip(disk.inside, lay_out(spec, disk)[LOADERS:], strict=True)
    wanted = {part: entry for part, entry in own if part.has_files}
    for entry in wanted.values():
        if entry.uuid not in at:
            raise VerificationError(
                f"{raw.name}: its partition table has no {entry.name} of this guest",
                hint=f"build it again: doit build name={spec.name} replace=yes",
            )
    return {part: at[entry.uuid] for part, entry in wanted.items()}


def _compare(wanted: list[gpt.Entry], at: dict[str, Partition]) -> list[str]:
    """Partitions that are gone, elsewhere or smaller; the root may have grown."""
    strange = []
    for entry in wanted:
        part = at.get(entry.uuid)
        if part is None:
            strange.append(f"{entry.name} is gone")
        elif part.start != entry.start or part.size < entry.size:
            strange.append(f"{entry.name} is {part.size >> 20} MiB at {part.start >> 20} MiB")
    return strange


def _read_efi(raw: Path, start: int, work: Path) -> bytes:
    """BOOTX64.EFI out of the EFI system partition, by mtools in a cage."""
    room = work / "esp"
    room.mkdir(mode=0o700)
    copy = ["mcopy", "-n", "-i", f"{raw}@@{start}", f"::/{EFI_PATH}", room / "loader"]
    words = caged_reader(
        ["timeout", "-k", "5", _PATIENCE_S, *copy], readable=[raw], writable=[room]
    )
    run(words, accept=tuple(range(256)), env={"MTOOLSRC": os.devnull})
    with Beneath(room, follow=False) as inside:
        return inside.read("loader", limit=MOST_FILE) if inside.exists("loader") else b""
