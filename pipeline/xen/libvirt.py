"""libvirt's domain XML for its Xen (libxl) driver, xen:///system.

The schema is libvirt's own (formatdomain, drvxen); tests/host/test_libvirt_schema.py has it judge
what is rendered here. `virsh autostart NAME` takes the place of /etc/xen/auto.
"""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

from pipeline.xen.boot import Boot, Direct, Firmware, Grub, Pygrub, grub_domain_type, is_firmware
from pipeline.xen.boot import split_command_line as split_root
from pipeline.xen.compatibility import case_of, refuse
from pipeline.xen.devices import Card, Disk, Framebuffer
from pipeline.xen.domain import Domain
from pipeline.xen.specs import read_number
from pipeline.xen.values import SyntaxFault, Unsupported

OS_TYPES = {"pv": "linux", "pvh": "xenpvh", "hvm": "hvm"}
LOADERS = {"bios": "/usr/lib/xen/boot/hvmloader", "uefi": "/usr/share/ovmf/OVMF.fd"}

_BOOT_DEVICES = {"a": "fd", "c": "hd", "d": "cdrom", "n": "network"}
_FORMATS = {"raw": "raw", "qcow2": "qcow2", "vhd": "vpc"}
_BUSES = {"x": "xen", "h": "ide", "s": "scsi"}
_MIB = {"KiB": 1024, "k": 1024, "K": 1024, "MiB": 1, "M": 1, "m": 1}
_VNC_PORT = 5900
_AUTOMATIC = -1


def fields(domain: Domain, *, xen: str) -> dict[str, object]:
    """What the template of the XML for `virsh define` is filled with. Raises Unsupported."""
    refuse(replace(case_of(domain, xen), xl_keys=frozenset()))
    for card in domain.cards:
        _check_card(card)
    for field, value in (("cpu_weight", domain.cpu_weight), ("cap", domain.cap)):
        if value is not None:
            hint = "virsh schedinfo NAME sets it for the guest that is defined"
            raise Unsupported(f"{field}: libvirt's XML has none for Xen", hint)
    boot = domain.boot
    if isinstance(boot, Pygrub) and any(" " in arg for arg in boot.words):
        raise Unsupported("bootloader arguments: libvirt splits them at every space")
    if isinstance(boot, Firmware) and boot.hdtype != "ide":
        raise Unsupported("hdtype: libvirt's Xen driver shows IDE disks only")
    screen = domain.framebuffer
    order = boot.order if isinstance(boot, Firmware) else ""
    return {
        "domain": domain,
        "xen": xen,
        "os_type": OS_TYPES[domain.type],
        "boot": boot,
        "boot_kind": type(boot).__name__.lower(),
        "bootargs": " ".join(boot.words) if isinstance(boot, Pygrub) else "",
        "loader": _loader(boot),
        "boot_devices": [_BOOT_DEVICES[letter] for letter in order],
        "disks": [_disk_context(disk) for disk in domain.disks],
        "console": "serial" if domain.type == "hvm" else "xen",
        "screen": screen,
        "port": _vnc_port(screen),
        "autoport": "yes" if _vnc_port(screen) == _AUTOMATIC else "no",
    }


def _loader(boot: Boot) -> str:
    if not isinstance(boot, Firmware):
        return LOADERS["bios"]
    return boot.path or LOADERS[boot.kind]


def parse(text: str) -> Domain:
    """The domain of an XML that our renderer or `virsh dumpxml` wrote.

    Raises SyntaxFault for what is not such XML (document types included) and ValueError for values
    that make no domain. Elements that the model does not have are left out.
    """
    return read_domain(read_tree(text))


def read_tree(text: str) -> ElementTree.Element:
    """The elements of a domain. Raises SyntaxFault; a document type, and so an entity, is one."""
    if "<!DOCTYPE" in text:
        raise SyntaxFault("a document type has no place in a domain's XML")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as fault:
        raise SyntaxFault(f"not XML: {fault}") from None
    if root.tag != "domain":
        raise SyntaxFault(f"<{root.tag[:80]}> where <domain> was expected")
    return root


def read_domain(root: ElementTree.Element) -> Domain:
    """The domain of such a tree."""
    kinds = {"linux": "pv", "xen": "pv", "xenpvh": "pvh", "hvm": "hvm"}
    kind = kinds.get(root.findtext("os/type", "linux").strip(), "")
    vcpu = root.find("vcpu")
    vcpus = _number_of(root, "vcpu", 1)
    current = None if vcpu is None else read_number("vcpu", vcpu.get("current"))
    memory, present = _mebibytes(root, "memory"), _mebibytes(root, "currentMemory")
    return Domain(
        name=root.findtext("name", ""),
        type=kind,
        uuid=root.findtext("uuid"),
        memory_mib=present or memory or 0,
        maxmem_mib=memory if present is not None else None,
        vcpus=current if current is not None else vcpus,
        maxvcpus=vcpus if current is not None else None,
        cpus=None if vcpu is None else vcpu.get("cpuset"),
        boot=_read_boot(root, kind),
        disks=tuple(read_disk(node) for node in root.iterfind("devices/disk")),
        cards=tuple(read_card(node) for node in root.iterfind("devices/interface")),
        framebuffer=_read_screen(root),
        on_poweroff=root.findtext("on_poweroff", "destroy"),
        on_reboot=root.findtext("on_reboot", "restart"),
        on_crash=root.findtext("on_crash", "destroy"),
    )


def _check_card(card: Card) -> None:
    if card.bridge is None:
        raise Unsupported("card without bridge: libvirt has no default bridge, name one")
    if card.vlan is not None:
        raise Unsupported("vlan: libvirt's Xen driver tags on Open vSwitch only, not on a bridge")
    if card.mtu is not None:
        raise Unsupported("mtu: libvirt's Xen driver does not hand <mtu> to Xen")
    if card.vifname is not None and card.vifname.startswith(("vif", "vnet")):
        raise Unsupported(
            f"vifname {card.vifname}: libvirt drops names that begin with vif or vnet, "
            "it takes them for its own"
        )


def _vnc_port(screen: Framebuffer | None) -> int:
    if screen is None or screen.vncdisplay is None:
        return _AUTOMATIC
    return _VNC_PORT + screen.vncdisplay


def _disk_context(disk: Disk) -> dict[str, object]:
    if disk.script:
        raise Unsupported(
            f"disk {disk.vdev}: libvirt's Xen driver starts no {disk.script}",
            "make the resource primary yourself and name its /dev/drbdN, or start it by xl",
            key="disk target",
        )
    return {
        "kind": disk.kind,
        "device": disk.devtype,
        "driver": "phy" if disk.kind == "block" and not disk.is_shared else "qemu",
        "format": _FORMATS[disk.format],
        "source_key": "dev" if disk.kind == "block" else "file",
        "target": disk.target,
        "vdev": disk.vdev,
        "bus": _BUSES[disk.vdev[0]],
        "readonly": disk.access == "ro",
        "shareable": disk.is_shared,
    }


def _read_boot(root: ElementTree.Element, kind: str) -> Boot:
    loader, kernel = root.findtext("bootloader"), root.findtext("os/kernel")
    if kind == "hvm" and kernel is None:
        letters = {name: letter for letter, name in _BOOT_DEVICES.items()}
        order = "".join(letters[node.get("dev", "")] for node in root.iterfind("os/boot"))
        firmware = root.find("os/loader")
        uefi = firmware is not None and firmware.get("type") == "pflash"
        path = (root.findtext("os/loader") or "").strip() if uefi else ""
        path = "" if path == LOADERS["uefi"] else path
        return Firmware("uefi" if uefi else "bios", order or "c", path=path)
    if loader is not None:
        return Pygrub.of_words(loader, root.findtext("bootloader_args", "").split())
    if kernel is None:
        raise SyntaxFault("<kernel> or <bootloader>: neither is there, nothing would boot")
    if grub_domain_type(kernel) is not None:
        return Grub(kernel)
    if kind == "pvh" and is_firmware(kernel):
        return Firmware("uefi", path=kernel)
    device, rest = split_root(root.findtext("os/cmdline", ""))
    return Direct(kernel, root.findtext("os/initrd"), device, rest)


def read_disk(node: ElementTree.Element) -> Disk:
    """A <disk>. Raises Unsupported for what the model has not, ValueError for what is none."""
    source, driver = node.find("source"), node.find("driver")
    target = "" if source is None else source.get("file") or source.get("dev") or ""
    formats = {name: ours for ours, name in _FORMATS.items()} | {"aio": "raw"}  # blktap's name
    format_name = "raw" if driver is None else driver.get("type", "raw")
    if format_name not in formats:
        raise Unsupported(f"disk {target}: our model has no {format_name} images")
    name = node.find("target")
    cdrom = node.get("device") == "cdrom"
    is_read = cdrom or node.find("readonly") is not None
    is_shared = formats[format_name] == "raw" and node.find("shareable") is not None
    return Disk(
        target=target,
        vdev="" if name is None else name.get("dev", ""),
        format=formats[format_name],
        access="ro" if is_read else "shared" if is_shared else "rw",
        devtype="cdrom" if cdrom else "disk",
    )


def read_card(node: ElementTree.Element) -> Card:
    """An <interface>, as far as it is about a bridge. Raises ValueError for values of none."""
    rate = _attribute(node, "bandwidth/outbound", "average")
    return Card(
        mac=_attribute(node, "mac", "address"),
        bridge=_attribute(node, "source", "bridge"),
        vifname=_attribute(node, "target", "dev"),
        ip=_attribute(node, "ip", "address"),
        model=_attribute(node, "model", "type"),
        rate_kbytes_s=read_number("bandwidth", rate),
    )


def _read_screen(root: ElementTree.Element) -> Framebuffer | None:
    node = root.find("devices/graphics[@type='vnc']")
    if node is None:
        return None
    port = node.get("port", "-1")
    automatic = node.get("autoport") == "yes" or port == "-1"
    display = None if automatic else (read_number("port", port) or 0) - _VNC_PORT
    return Framebuffer(vnclisten=node.get("listen"), vncdisplay=display, keymap=node.get("keymap"))


def _attribute(node: ElementTree.Element, path: str, name: str) -> str | None:
    element = node.find(path)
    return None if element is None else element.get(name)


def _number_of(root: ElementTree.Element, path: str, default: int) -> int:
    text = root.findtext(path)
    return default if text is None else read_number(path, text.strip()) or 0


def _mebibytes(root: ElementTree.Element, path: str) -> int | None:
    node = root.find(path)
    if node is None:
        return None
    unit = node.get("unit", "KiB")
    if unit == "GiB":
        return _number_of(root, path, 0) * 1024
    if unit not in _MIB:
        raise SyntaxFault(f"<{path}>: unit {unit!r} is not KiB, MiB or GiB")
    return _number_of(root, path, 0) // _MIB[unit]
