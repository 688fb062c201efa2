"""What becomes of the elements of libvirt's domain XML (formatdomain), as Xen's driver has them."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping

from pipeline.errors import WrongValueError
from pipeline.foreign.import_keys import Answer, cannot, needless

_MOST_ELEMENTS, _MOST_LETTERS = 20_000, 120

ASPECTS: Mapping[str, str] = {
    "name": "name",
    "uuid": "uuid",
    "title": "description",
    "description": "description",
    "os/type": "type",
    "os/kernel": "kernel",
    "os/initrd": "ramdisk",
    "os/cmdline": "cmdline",
    "os/root": "root",
    "os/loader": "firmware",
    "os/boot": "boot",
    "bootloader": "bootloader",
    "bootloader_args": "bootloader_args",
    "on_poweroff": "on_poweroff",
    "on_reboot": "on_reboot",
    "on_crash": "on_crash",
    "devices/graphics": "vnc",
}
CARD_ASPECTS: Mapping[str, str] = {
    "mac": "mac",
    "source": "bridge",
    "target": "vifname",
    "ip": "ip",
    "model": "model",
    "bandwidth": "rate",
}
_DISK_PARTS = frozenset({"driver", "source", "target", "readonly"})
_HOST = "add it with virsh edit to the domain that is installed"
ELEMENTS: Mapping[str, Answer] = {
    **needless(
        "features clock devices/emulator devices/console devices/serial devices/parallel "
        "devices/memballoon devices/video devices/input devices/controller",
        "libvirt gives it to every guest, or none of it is the guest's",
    ),
    **cannot(
        "cputune blkiotune memtune numatune iothreads resource",
        "a spec does not tune the host's scheduler",
        "virsh schedinfo",
    ),
    **cannot(
        "devices/hostdev devices/redirdev devices/redirfilter devices/lease devices/hub "
        "devices/smartcard",
        "a device of one host is no part of a guest",
        _HOST,
    ),
    **cannot(
        "devices/filesystem devices/channel devices/tpm devices/rng devices/sound devices/audio "
        "devices/watchdog devices/panic devices/shmem devices/vsock devices/iommu devices/memory "
        "devices/nvram devices/crypto",
        "the guest has disks, cards and a screen, no other devices",
    ),
    **cannot(
        "cpu memoryBacking maxMemory sysinfo perf genid idmap keywrap launchSecurity pm",
        "the machine is as Xen makes it",
        _HOST,
    ),
    **cannot(
        "os/bootmenu os/bios os/smbios os/dtb os/acpi os/firmware os/init",
        "the firmware is as Xen has it",
    ),
    **cannot(
        "os/nvram",
        "under xl UEFI keeps no variables, and so no keys of Secure Boot",
        "the guest's loader has to be \\EFI\\BOOT\\BOOTX64.EFI",
    ),
    **needless("vcpus", "<vcpu> says how many there are"),
    **cannot("seclabel", "labels of a security module are the host's policy"),
    **needless("on_lockfailure", "no lock manager is asked"),
    **needless("metadata", "it is for the programs that wrote it"),
}
_UNKNOWN = Answer("cannot be said", "a spec has nothing like it", _HOST)


def walk(root: ElementTree.Element) -> Iterator[tuple[str, str, str, Answer | None]]:
    """(path, value, aspect, answer) of each element; of a disk and a card each one in it."""
    if sum(1 for _ in root.iter()) > _MOST_ELEMENTS:
        raise WrongValueError("more elements than a domain has", "name one that a person wrote")
    for node in root:
        if node.tag == "os":
            for inner in node:
                yield _look_up(f"os/{inner.tag}", inner)
        elif node.tag == "devices":
            yield from _walk_devices(node)
        elif node.tag in ("memory", "currentMemory", "vcpu"):
            yield from _read_amount(root, node)
        else:
            yield _look_up(str(node.tag), node)


def _read_amount(
    root: ElementTree.Element, node: ElementTree.Element
) -> Iterator[tuple[str, str, str, Answer | None]]:
    """What may be reached and what is there at the start, each in its element."""
    if node.tag == "vcpu":
        current = node.get("current")
        yield "vcpu", show(node), "vcpus" if current is None else "maxvcpus", None
        if current is not None:
            yield "vcpu current", current, "vcpus", None
        if node.get("cpuset"):
            yield "vcpu cpuset", node.get("cpuset", ""), "cpus", None
        return
    is_most = node.tag == "memory" and root.find("currentMemory") is not None
    yield str(node.tag), show(node), "maxmem" if is_most else "memory", None


def _walk_devices(devices: ElementTree.Element) -> Iterator[tuple[str, str, str, Answer | None]]:
    disks = cards = 0
    for node in devices:
        path = f"devices/{node.tag}"
        if node.tag == "disk":
            yield from _walk_disk(f"{path}[{disks}]", node, f"disk{disks}")
            disks += 1
        elif node.tag == "interface":
            yield from _walk_card(f"{path}[{cards}]", node, f"card{cards}")
            cards += 1
        elif node.tag == "graphics" and node.get("type") != "vnc":
            hint = "vnc = true"
            yield path, show(node), "", Answer("cannot be said", "VNC is a spec's screen", hint)
        elif node.tag == "graphics" and node.get("passwd"):
            yield path, "type=vnc", "vnc", None
            hint = "VNC listens on 127.0.0.1: come by ssh -L"
            yield f"{path} passwd", "", "", Answer("cannot be said", "a password in clear", hint)
        else:
            yield _look_up(path, node)


def _walk_disk(
    path: str, disk: ElementTree.Element, aspect: str
) -> Iterator[tuple[str, str, str, Answer | None]]:
    source = disk.find("source")
    shown = "" if source is None else source.get("file") or source.get("dev") or ""
    target = disk.find("target")
    shown += "" if target is None else f",{target.get('dev', '')}"
    yield path, shown, aspect, None
    for node in disk:
        if node.tag not in _DISK_PARTS:
            yield f"{path}/{node.tag}", show(node), "", ELEMENTS.get(str(node.tag), _OF_A_DEVICE)


_OF_A_DEVICE = Answer("not needed", "libvirt numbers its devices itself")
_SCRIPT = Answer("cannot be said", "cards join a bridge", "routed ones are the host's: virsh edit")


def _walk_card(
    path: str, card: ElementTree.Element, aspect: str
) -> Iterator[tuple[str, str, str, Answer | None]]:
    if card.get("type") != "bridge":
        hint = "bridge = says which one the card joins; virsh net-dumpxml shows a network's"
        text = "a network of libvirt's is no bridge that a spec could name"
        yield f"{path} type", card.get("type", ""), "", Answer("cannot be said", text, hint)
    for node in card:
        name = str(node.tag)
        label = f"{path}/{name}"
        if name == "script":
            usual = node.get("path", "").rpartition("/")[2] in ("vif-bridge", "")
            answer = Answer("not needed", "it is the usual one") if usual else _SCRIPT
            yield label, show(node), "", answer
        elif name == "source" and not node.get("bridge"):
            yield label, show(node), "", Answer("cannot be said", "no bridge is named", "bridge =")
        elif name in CARD_ASPECTS:
            yield label, show(node), f"{aspect} {CARD_ASPECTS[name]}", None
        else:
            yield label, show(node), "", _OF_A_DEVICE


def _look_up(path: str, node: ElementTree.Element) -> tuple[str, str, str, Answer | None]:
    aspect = ASPECTS.get(path, "")
    return path, show(node), aspect, None if aspect else ELEMENTS.get(path, _UNKNOWN)


def show(node: ElementTree.Element) -> str:
    """An element's own text, or its attributes."""
    text = " ".join((node.text or "").split())
    text = text or " ".join(f"{key}={value}" for key, value in node.attrib.items())
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 3]}..."
