"""A machine with one disk as OVA: OVF descriptor, manifest, and the disk as streamOptimized VMDK.

Written in one pass over the disk: the places of the descriptor and the manifest, whose sizes are
known, are left free and filled when the disk's digest is. Source: DSP0243 1.1.0 (DMTF), clause 5
for the order of the files and USTAR, 5.1 for the manifest; its schema wants the elements of
hardware items by alphabet. The same machine gives the same bytes.
"""

import hashlib
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.sax.saxutils import escape, quoteattr

from pipeline.errors import PipelineError
from pipeline.formats.ova_xml import Machine
from pipeline.formats.vmdk import FORMAT_URI, write_vmdk

_BLOCK, _RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
_MOST = 0o77777777777  # what a size of USTAR says
_MIB = 1 << 20
# CIM_OperatingSystem.OSType
_SYSTEMS = {"debian": ("96", "Debian GNU/Linux, 64 bit"), "ubuntu": ("94", "Ubuntu, 64 bit")}
_ENVELOPE = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:rasd="{cim}CIM_ResourceAllocationSettingData"
    xmlns:vssd="{cim}CIM_VirtualSystemSettingData">
  <References>
    <File ovf:id="file1" ovf:href={file} ovf:size="{packed}"/>
  </References>
  <DiskSection>
    <Info>The disk of the machine</Info>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="{capacity}"
        ovf:capacityAllocationUnits="byte" ovf:format="{form}"/>
  </DiskSection>
{networks}  <VirtualSystem ovf:id={name}>
    <Info>A virtual machine</Info>
    <Name>{title}</Name>
    <OperatingSystemSection ovf:id="{system}">
      <Info>The operating system</Info>
      <Description>{described}</Description>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>The hardware</Info>
{items}    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""
_CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
_NETWORKS = """  <NetworkSection>
    <Info>The networks of its cards</Info>
{networks}  </NetworkSection>
"""
_CPU, _MEMORY, _SCSI, _CARD, _DISK = "3", "4", "6", "10", "17"


@dataclass(frozen=True, kw_only=True)
class VirtualSystem(Machine):
    """What an OVF says of a machine: whose system too, and a network's name for each card."""

    distribution: str
    networks: tuple[str, ...]


def write_ova(
    disk: Path, target: IO[bytes], machine: VirtualSystem, *, advance: Callable[[int], object]
) -> None:
    """Write a machine whose one disk is the raw `disk` into an empty file that can be sought in.

    Raises PipelineError for a disk that is too large for the format even when it is packed.
    """
    names = [f"{machine.name}{end}" for end in (".ovf", ".mf", "-disk1.vmdk")]
    with open(disk, "rb") as stream:
        capacity = stream.seek(0, 2)  # of a device too
    room = len(_render(machine, capacity=capacity, packed=_MOST, file=names[2]))
    manifest = len(_render_manifest(names, [b"", b""]))
    start = 3 * _BLOCK + _padded(room) + _padded(manifest)
    target.seek(start)
    digest = hashlib.sha256()

    def write(content: bytes) -> None:
        digest.update(content)
        target.write(content)

    write_vmdk(disk, names[2], write, advance=advance)
    packed = target.tell() - start
    if packed > _MOST:
        raise PipelineError(
            f"{machine.name}: {packed >> 30} GiB when it is packed, more than a file in an OVA has",
            hint="format=xva has no such bound, nor has vmdk",
        )
    target.write(bytes(_padded(packed) - packed + 2 * _BLOCK))
    target.write(bytes(-target.tell() % _RECORD))
    text = _render(machine, capacity=capacity, packed=packed, file=names[2])
    envelope = text + b"\n" * (room - len(text))
    sums = [hashlib.sha256(envelope).digest(), digest.digest()]
    target.seek(0)
    for name, content in ((names[0], envelope), (names[1], _render_manifest(names, sums))):
        target.write(_member(name, len(content)) + content + bytes(-len(content) % _BLOCK))
    target.write(_member(names[2], packed))


def _padded(size: int) -> int:
    return size + -size % _BLOCK


def _member(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


def _render_manifest(names: list[str], sums: list[bytes]) -> bytes:
    pairs = zip((names[0], names[2]), sums, strict=True)
    return "".join(f"SHA256({name})= {digest.hex():0<64}\n" for name, digest in pairs).encode()


def _render(machine: VirtualSystem, *, capacity: int, packed: int, file: str) -> bytes:
    system, described = _SYSTEMS.get(machine.distribution, ("101", "Linux, 64 bit"))
    lines = [
        f"    <Network ovf:name={quoteattr(name)}>\n      <Description>{escape(name)}"
        "</Description>\n    </Network>\n"
        for name in dict.fromkeys(machine.networks)
    ]
    return _ENVELOPE.format(
        cim=_CIM,
        file=quoteattr(file),
        packed=packed,
        capacity=capacity,
        form=FORMAT_URI,
        networks=_NETWORKS.format(networks="".join(lines)) if lines else "",
        name=quoteattr(machine.name),
        title=escape(machine.name),
        system=system,
        described=described,
        items="".join(_items(machine)),
    ).encode()


def _items(machine: VirtualSystem) -> list[str]:
    """Processors, memory, a controller, the disk on it, cards; numbered from 1."""
    rows: list[dict[str, str]] = [
        {
            "ElementName": f"{machine.vcpus} virtual processors",
            "ResourceType": _CPU,
            "VirtualQuantity": str(machine.vcpus),
        },
        {
            "AllocationUnits": "byte * 2^20",
            "ElementName": f"{machine.memory >> 20} MiB of memory",
            "ResourceType": _MEMORY,
            "VirtualQuantity": str(machine.memory >> 20),
        },
        {
            "Address": "0",
            "ElementName": "Controller of the disk",
            "ResourceSubType": "VirtIO",
            "ResourceType": _SCSI,
        },
        {
            "AddressOnParent": "0",
            "ElementName": "Disk 1",
            "HostResource": "ovf:/disk/disk1",
            "Parent": "3",
            "ResourceType": _DISK,
        },
    ]
    for number, network in enumerate(machine.networks):
        rows.append(
            {
                "AddressOnParent": str(7 + number),
                "AutomaticAllocation": "true",
                "Connection": network,
                "ElementName": f"Network card {number + 1}",
                "ResourceSubType": "VirtIO",
                "ResourceType": _CARD,
            }
        )
    return [_item(number, row) for number, row in enumerate(rows, 1)]


def _item(number: int, row: dict[str, str]) -> str:
    told = {**row, "InstanceID": str(number)}
    lines = [f"        <rasd:{key}>{escape(told[key])}</rasd:{key}>\n" for key in sorted(told)]
    return f"      <Item>\n{''.join(lines)}      </Item>\n"
