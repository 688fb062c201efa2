"""A guest as the machine that other hypervisors import: a full PC that starts its whole disk."""

from collections.abc import Callable
from pathlib import Path
from typing import IO

from pipeline.formats.ova_xml import Machine
from pipeline.formats.xva import Source, write_xva
from pipeline.xen.domain import Domain

EPOCH = 946_684_800  # of containers that have a time: where a VHD's begins, 2000-01-01
_MIB = 1 << 20


def xva_name(guest: str) -> str:
    """The file beside a guest's disk."""
    return f"{guest}.xva"


def machine_of(
    name: str, domain: Domain, *, description: str, is_uefi: bool, is_template: bool
) -> Machine:
    """What an importer is told; cards are left out, whose bridges it may not have."""
    return Machine(
        name=name,
        description=description,
        uuid=str(domain.uuid),
        memory=domain.memory_mib * _MIB,
        most_memory=(domain.maxmem_mib or domain.memory_mib) * _MIB,
        vcpus=domain.vcpus,
        most_vcpus=domain.maxvcpus or domain.vcpus,
        firmware="uefi" if is_uefi else "bios",
        is_template=is_template,
    )


def write_guest(
    disk: Path, target: IO[bytes], machine: Machine, *, advance: Callable[[int], None]
) -> None:
    """Its raw whole disk as an XVA: the same bytes for the same disk and machine."""
    write_xva([Source(disk, machine.name)], target, machine, epoch=EPOCH, advance=advance)
