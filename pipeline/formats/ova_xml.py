"""ova.xml of an XVA: the machine and its disks as one value of XML-RPC.

Fields are those of XenServer's own data model (xapi's ocaml/idl/datamodel_vm.ml and its neighbours,
and what Xen Orchestra's writer lists): integers are strings there. References between objects are
`Ref:000`, of one length: an importer reads disks in the order of these strings, and takes one that
begins with another for it.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from pipeline.errors import PipelineError

NOTHING = "OpaqueRef:NULL"
VERSION: "_Fields" = {
    "hostname": "localhost",
    "date": "1970-01-01",
    "product_version": "8.2.1",
    "product_brand": "XCP-ng",
    "build_number": "release/yangtze/master/58",
    "xapi_major": 1,
    "xapi_minor": 20,
    "export_vsn": 2,
}
_UUIDS = uuid.UUID("5e1c0b77-8f0e-5b0b-9d52-0d0d6f0a1f27")
_VM_REF, _SR_REF, _FIRST_DISK, _MOST_DISKS = 0, 1, 2, 16
_Value = bool | int | str | float | dict[str, "_Value"] | list["_Value"]
_Fields = dict[str, _Value]
_NO_TIME = "19700101T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The imported machine: a full PC; memory in bytes.

    `firmware` is bios or uefi; `uuid` is what xapi keeps if it restores a backup.
    """

    name: str
    description: str
    uuid: str
    memory: int
    most_memory: int
    vcpus: int
    most_vcpus: int
    firmware: str = "bios"
    is_template: bool = False


@dataclass(frozen=True)
class Disk:
    """A disk in bytes, and its name."""

    size: int
    label: str


def vdi_ref(number: int) -> str:
    """The reference of a disk, and the folder of its blocks; they rise with the number."""
    return _ref(_FIRST_DISK + 2 * number)


def render_ova(machine: Machine, disks: Sequence[Disk]) -> str:
    """The XML text; the machine boots from the first disk. Raises PipelineError for too many."""
    if len(disks) > _MOST_DISKS:
        raise PipelineError(f"{len(disks)} disks: a machine of XenServer has {_MOST_DISKS} at most")
    objects: list[_Value] = [
        _object("VM", _ref(_VM_REF), _describe_machine(machine, len(disks))),
        _object("SR", _ref(_SR_REF), _describe_repository(machine, len(disks))),
    ]
    for number, disk in enumerate(disks):
        objects.append(_object("VDI", vdi_ref(number), _describe_disk(machine, number, disk)))
        objects.append(_object("VBD", _vbd_ref(number), _describe_drive(machine, number)))
    whole: _Fields = {"version": VERSION, "objects": objects}
    return f"<?xml version='1.0' encoding='utf-8'?>\n{_render(whole)}\n"


def _ref(number: int) -> str:
    return f"Ref:{number:03d}"


def _vbd_ref(number: int) -> str:
    return _ref(_FIRST_DISK + 2 * number + 1)


def _object(kind: str, ref: str, fields: _Fields) -> _Fields:
    return {"class": kind, "id": ref, "snapshot": fields}


def _uuid(machine: Machine, what: str) -> str:
    return str(uuid.uuid5(_UUIDS, f"{machine.uuid} {what}"))


def _render(value: _Value) -> str:
    if isinstance(value, dict):
        members = "".join(
            f"<member><name>{escape(name)}</name>{_render(inner)}</member>"
            for name, inner in value.items()
        )
        return f"<value><struct>{members}</struct></value>"
    if isinstance(value, list):
        return f"<value><array><data>{''.join(map(_render, value))}</data></array></value>"
    if isinstance(value, bool):
        return f"<value><boolean>{value:d}</boolean></value>"
    if isinstance(value, float):
        return f"<value><double>{value:g}</double></value>"
    if value is _NO_TIME:
        return f"<value><dateTime.iso8601>{value}</dateTime.iso8601></value>"
    return f"<value>{escape(str(value))}</value>"


def _describe_platform(machine: Machine) -> _Fields:
    """The emulated PC, as XenServer's templates have it since 7.5."""
    return {
        "timeoffset": "0",
        "device-model": f"qemu-upstream-{'uefi' if machine.firmware == 'uefi' else 'compat'}",
        "secureboot": "false",
        "hpet": "true",
        "nx": "true",
        "pae": "true",
        "apic": "true",
        "viridian": "false",
        "acpi": "1",
    }


def _describe_machine(machine: Machine, disks: int) -> _Fields:
    firmware: _Fields = {"firmware": machine.firmware, "order": "cd"}
    return {
        "uuid": machine.uuid,
        "name_label": machine.name,
        "name_description": machine.description,
        "is_a_template": machine.is_template,
        "is_default_template": False,
        "memory_static_max": machine.most_memory,
        "memory_dynamic_max": machine.memory,
        "memory_dynamic_min": machine.memory,
        "memory_static_min": machine.memory,
        "memory_target": machine.memory,
        "memory_overhead": 11 << 20,
        "VCPUs_params": {},
        "VCPUs_max": machine.most_vcpus,
        "VCPUs_at_startup": machine.vcpus,
        "actions_after_softreboot": "soft_reboot",
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        "domain_type": "hvm",
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": firmware,
        "HVM_shadow_multiplier": 1.0,
        "NVRAM": {},
        **dict.fromkeys(_EMPTY_TEXTS, ""),
        "platform": _describe_platform(machine),
        "other_config": {
            "base_template_name": "Other install media",
            "mac_seed": _uuid(machine, "mac"),
        },
        "VBDs": [_vbd_ref(number) for number in range(disks)],
        **{name: [] for name in _EMPTY_LISTS},
        **{name: {} for name in _EMPTY_TABLES},
        **dict.fromkeys(_NOBODY, NOTHING),
        **dict.fromkeys(_NEVER, False),
        **dict.fromkeys(_ZERO, 0),
        "domid": -1,
        "user_version": 1,
        "power_state": "Halted",
        "snapshot_time": _NO_TIME,
        "reference_label": "other-install-media",
    }


_EMPTY_TEXTS = (
    "PV_kernel PV_ramdisk PV_args PV_bootloader PV_bootloader_args PV_legacy_args PCI_bus domarch "
    "last_booted_record recommendations ha_restart_priority transportable_snapshot_id "
    "snapshot_metadata generation_id"
).split()
_EMPTY_LISTS = (
    "allowed_operations consoles VIFs VUSBs crash_dumps VTPMs snapshots tags children VGPUs "
    "attached_PCIs"
).split()
_EMPTY_TABLES = (
    "current_operations last_boot_CPU_flags xenstore_data blobs blocked_operations snapshot_info "
    "bios_strings"
).split()
_NOBODY = (
    "suspend_VDI resident_on scheduled_to_be_resident_on affinity metrics guest_metrics "
    "snapshot_of parent protection_policy snapshot_schedule appliance suspend_SR"
).split()
_NEVER = (
    "is_control_domain ha_always_run is_a_snapshot is_snapshot_from_vmpp is_vmss_snapshot "
    "has_vendor_device requires_reboot"
).split()
_ZERO = ("start_delay", "shutdown_delay", "order", "version", "hardware_platform_version")


def _describe_repository(machine: Machine, disks: int) -> _Fields:
    """Where the disks are said to lie; an importer takes the one that it is told."""
    return {
        "uuid": _uuid(machine, "repository"),
        "name_label": "exported",
        "name_description": "",
        "allowed_operations": [],
        "current_operations": {},
        "VDIs": [vdi_ref(number) for number in range(disks)],
        "PBDs": [],
        "virtual_allocation": 0,
        "physical_utilisation": 0,
        "physical_size": 0,
        "type": "ext",
        "content_type": "user",
        "shared": False,
        "other_config": {},
        "tags": [],
        "sm_config": {},
        "blobs": {},
        "local_cache_enabled": False,
        "introduced_by": NOTHING,
        "clustered": False,
        "is_tools_sr": False,
    }


def _describe_disk(machine: Machine, number: int, disk: Disk) -> _Fields:
    own = _uuid(machine, f"disk {number}")
    return {
        "uuid": own,
        "name_label": disk.label,
        "name_description": "",
        "allowed_operations": [],
        "current_operations": {},
        "SR": _ref(_SR_REF),
        "VBDs": [_vbd_ref(number)],
        "crash_dumps": [],
        "virtual_size": disk.size,
        "physical_utilisation": 0,
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        "storage_lock": False,
        "location": own,
        "managed": True,
        "missing": False,
        "parent": NOTHING,
        "xenstore_data": {},
        "sm_config": {},
        "is_a_snapshot": False,
        "snapshot_of": NOTHING,
        "snapshots": [],
        "snapshot_time": _NO_TIME,
        "tags": [],
        "allow_caching": False,
        "on_boot": "persist",
        "metadata_of_pool": NOTHING,
        "metadata_latest": False,
        "is_tools_iso": False,
        "cbt_enabled": False,
    }


def _describe_drive(machine: Machine, number: int) -> _Fields:
    return {
        "uuid": _uuid(machine, f"drive {number}"),
        "allowed_operations": [],
        "current_operations": {},
        "VM": _ref(_VM_REF),
        "VDI": vdi_ref(number),
        "device": f"xvd{chr(ord('a') + number)}",
        "userdevice": number,
        "bootable": number == 0,
        "mode": "RW",
        "type": "Disk",
        "unpluggable": number > 0,
        "storage_lock": False,
        "empty": False,
        "other_config": {"owner": ""},
        "currently_attached": False,
        "status_code": 0,
        "status_detail": "",
        "runtime_properties": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
        "qos_supported_algorithms": [],
        "metrics": NOTHING,
    }
