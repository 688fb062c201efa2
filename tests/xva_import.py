"""What an importer of XVA demands, as xapi's own reader does, and what every host has to get.

Written from the rules of xapi's ocaml/xapi/stream_vdi.ml (receiving) and import.ml, not from our
writer: Python's tarfile and xmlrpc read. Each refusal has a name.
"""

import hashlib
import io
import re
import tarfile
import xmlrpc.client
from dataclasses import dataclass
from typing import Any

import xxhash

CHUNK = 1 << 20
# what Xen Orchestra's writer lists of each (@xen-orchestra/xva/templates), spelt as xapi does
FIELDS = {
    "VM": (
        "actions_after_crash actions_after_reboot actions_after_shutdown affinity "
        "allowed_operations attached_PCIs blobs blocked_operations children consoles crash_dumps "
        "current_operations domain_type domarch domid generation_id guest_metrics ha_always_run "
        "ha_restart_priority hardware_platform_version has_vendor_device HVM_boot_params "
        "HVM_boot_policy HVM_shadow_multiplier is_a_template is_control_domain is_default_template "
        "is_snapshot_from_vmpp is_vmss_snapshot last_booted_record last_boot_CPU_flags "
        "memory_dynamic_max memory_dynamic_min memory_overhead memory_static_max memory_static_min "
        "memory_target metrics name_label NVRAM name_description order other_config parent PCI_bus "
        "platform power_state PV_args PV_bootloader_args PV_bootloader PV_kernel PV_legacy_args "
        "PV_ramdisk recommendations reference_label requires_reboot resident_on shutdown_delay "
        "snapshot_info snapshot_metadata snapshot_of snapshot_time snapshots start_delay "
        "suspend_VDI suspend_SR tags transportable_snapshot_id uuid user_version VBDs "
        "VCPUs_at_startup VCPUs_max VCPUs_params version VGPUs VIFs VTPMs VUSBs xenstore_data"
    ).split(),
    "VBD": (
        "allowed_operations bootable current_operations currently_attached device empty metrics "
        "mode other_config qos_algorithm_params qos_algorithm_type qos_supported_algorithms "
        "runtime_properties status_code status_detail storage_lock type unpluggable userdevice "
        "uuid VDI VM"
    ).split(),
    "VDI": (
        "allow_caching cbt_enabled is_a_snapshot managed metadata_of_pool missing name_label "
        "name_description on_boot other_config parent physical_utilisation read_only sharable "
        "snapshot_of snapshots SR storage_lock tags type uuid VBDs virtual_size xenstore_data"
    ).split(),
    "SR": "content_type name_label name_description other_config tags type uuid VDIs".split(),
}
VERSION = (
    "build_number date export_vsn hostname product_brand product_version xapi_major xapi_minor"
).split()
NOTHING = "OpaqueRef:NULL"


class Refused(Exception):
    """The name of the rule, and where it was broken."""

    def __init__(self, rule: str, where: object = "") -> None:
        super().__init__(f"{rule}: {where}")
        self.rule = rule


@dataclass
class Imported:
    """The machine's fields, and its disks by their reference, whole."""

    machine: dict[str, Any]
    disks: dict[str, bytes]


def import_xva(content: bytes) -> Imported:
    """Read an XVA to its end; raises Refused."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            files = [(entry, _read(tar, entry)) for entry in tar]
    except tarfile.ReadError as error:
        raise Refused("cut short", error) from error
    for entry, data in files:
        if len(data) != entry.size:
            raise Refused("cut short", entry.name)
    if len(content) % 512 or not content.endswith(bytes(1024)):
        raise Refused("cut short", "no end of the tar")
    if not files or files[0][0].name != "ova.xml":
        raise Refused("ova.xml is not first", files[0][0].name if files else "")
    objects = _read_description(files[0][1])
    _judge(objects)
    vdis = {ref: int(fields["virtual_size"]) for ref, fields in objects["VDI"].items()}
    blocks = [(entry.name, data) for entry, data in files[1:]]
    disks = {}
    unit = -1
    for ref in sorted(vdis):
        disks[ref], unit = _receive(ref, vdis[ref], blocks, unit)
    if blocks:
        raise Refused("belongs to no disk", blocks[0][0])
    (machine,) = objects["VM"].values()
    return Imported(machine, disks)


def _read(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(entry) if entry.isreg() else None
    if stream is None:
        raise Refused("no plain file", entry.name)
    return stream.read()


def _read_description(text: bytes) -> dict[str, dict[str, dict[str, Any]]]:
    call = b"<methodResponse><params><param>%s</param></params></methodResponse>"
    inner = re.sub(rb"^<\?xml[^>]*\?>\s*", b"", text)
    try:
        (value,), _ = xmlrpc.client.loads(call % inner, use_builtin_types=False)
    except Exception as error:
        raise Refused("no value of XML-RPC", error) from error
    if not isinstance(value, dict) or set(value) != {"version", "objects"}:
        raise Refused("no value of XML-RPC")
    missing = set(VERSION) - set(value["version"])
    if missing or value["version"]["export_vsn"] != "2":
        raise Refused("version", missing)
    objects: dict[str, dict[str, dict[str, Any]]] = {}
    for one in value["objects"]:
        if set(one) != {"class", "id", "snapshot"}:
            raise Refused("no object", one)
        known = objects.setdefault(one["class"], {})
        if any(one["id"] in kind for kind in objects.values()):
            raise Refused("reference twice", one["id"])
        known[one["id"]] = one["snapshot"]
    return objects


def _judge(objects: dict[str, dict[str, dict[str, Any]]]) -> None:
    """What an import resolves, and what makes it fail on some hosts."""
    # an unknown bridge fails the whole import (xapi-project/xen-api #6040)
    if set(objects) - set(FIELDS):
        raise Refused("a network or card", set(objects) - set(FIELDS))
    for kind, needed in FIELDS.items():
        for ref, fields in objects.get(kind, {}).items():
            if lacks := set(needed) - set(fields):
                raise Refused("field missing", f"{kind} {ref}: {sorted(lacks)}")
    refs = sorted(ref for kind in objects.values() for ref in kind)
    for shorter, longer in zip(refs, refs[1:], strict=False):
        if longer.startswith(shorter):
            raise Refused("reference begins with another", longer)
    if len(objects.get("VM", {})) != 1:
        raise Refused("not one machine", len(objects.get("VM", {})))
    ((ref, machine),) = objects["VM"].items()
    if machine["VIFs"]:
        raise Refused("a network or card", machine["VIFs"])
    if sorted(machine["VBDs"]) != sorted(objects["VBD"]):
        raise Refused("reference leads nowhere", machine["VBDs"])
    for drive in objects["VBD"].values():
        if drive["type"] != "Disk":
            raise Refused("a CD drive", drive["type"])
        if drive["VM"] != ref or drive["VDI"] not in objects["VDI"]:
            raise Refused("reference leads nowhere", drive["VDI"])
    for image in objects["VDI"].values():
        if image["SR"] not in objects.get("SR", {}):
            raise Refused("reference leads nowhere", image["SR"])
    _judge_machine(machine, objects["VBD"])


def _judge_machine(machine: dict[str, Any], drives: dict[str, dict[str, Any]]) -> None:
    places = [int(drive["userdevice"]) for drive in drives.values()]
    if places != list(range(len(places))):
        raise Refused("userdevice", places)
    is_pc = machine["HVM_boot_policy"] == "BIOS order" and machine["domain_type"] == "hvm"
    if not is_pc or machine["PV_bootloader"] or machine["PV_kernel"]:
        raise Refused("no HVM")
    order = [int(machine[f"memory_{name}"]) for name in _MEMORY]
    if order != sorted(order) or order[0] < 1 << 20:
        raise Refused("memory", order)
    if not 1 <= int(machine["VCPUs_at_startup"]) <= int(machine["VCPUs_max"]):
        raise Refused("processors", machine["VCPUs_max"])


_MEMORY = ("static_min", "dynamic_min", "dynamic_max", "static_max")


def _receive(
    prefix: str, size: int, blocks: list[tuple[str, bytes]], unit: int
) -> tuple[bytes, int]:
    """A disk out of the blocks that follow, as recv_one does; `unit` is that of all disks."""
    disk, last, offset = bytearray(size), "-1", 0
    while offset < size:
        if len(blocks) < 2:
            raise Refused("last block missing", prefix)
        name, data = blocks.pop(0)
        if not name.startswith(prefix):
            raise Refused("block of another disk", name)
        suffix = name[len(prefix) + 1 :]
        if not re.fullmatch("[0-9]{8}", suffix):
            raise Refused("name of a block", name)
        if unit < 0:
            unit = len(data)
            if unit != CHUNK:
                raise Refused("first block is no MiB", unit)
        if suffix <= last:
            raise Refused("numbers do not rise", name)
        if last == "-1" and int(suffix) != 0:
            raise Refused("first block missing", name)
        offset += unit * (int(suffix) - int(last) - 1)
        if offset + len(data) > size:
            raise Refused("behind the end", name)
        disk[offset : offset + len(data)] = data
        _verify(name, data, *blocks.pop(0))
        last, offset = suffix, offset + len(data)
    return bytes(disk), unit


def _verify(name: str, data: bytes, told_name: str, told: bytes) -> None:
    sums = {
        ".xxhash": f"{xxhash.xxh64_intdigest(data):016X}",
        ".checksum": hashlib.sha1(data, usedforsecurity=False).hexdigest(),
    }
    stem, dot, ending = told_name.rpartition(".")
    if stem != name or dot + ending not in sums:
        raise Refused("checksum missing", told_name)
    if told.decode("latin-1") != sums[dot + ending]:
        raise Refused("checksum", name)
