"""xl.cfg(5): the configuration that xl reads, rendered from the model and parsed back.

`xen` is the version of the host's Xen, 4.2 or later. Keys that this version would ignore are not
written: what needs them raises Unsupported.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from pipeline.xen import specs
from pipeline.xen.boot import Boot, Direct, Firmware, Grub, Pygrub, grub_domain_type, is_firmware
from pipeline.xen.boot import split_command_line as split_root
from pipeline.xen.cfg_syntax import Quoted, Value, quote_string, read_assignments
from pipeline.xen.compatibility import before, case_of, refuse
from pipeline.xen.devices import Framebuffer
from pipeline.xen.domain import Domain
from pipeline.xen.values import SyntaxFault, Unsupported, parse_version

_MODEL_KEYS = """
    name uuid type builder memory maxmem vcpus maxvcpus cpus cpu_weight cap
    kernel ramdisk root extra cmdline
    bootloader bootloader_args bootloader_restrict bootloader_user firmware bios boot hdtype
    bios_path_override
    serial disk vif vfb vnc vncunused vncdisplay vnclisten keymap on_poweroff on_reboot on_crash
"""
_SCREEN_KEYS = ("vncunused", "vncdisplay", "vnclisten", "keymap")


def fields(domain: Domain, *, xen: str) -> dict[str, object]:
    """What the template of an xl.cfg for this version of Xen is filled with. Raises Unsupported."""
    version = parse_version(xen)
    if before("xl", version):
        raise Unsupported(f"xl of Xen {xen}: render for xm instead, xl came with 4.1 and 4.2")
    refuse(case_of(domain, xen))
    screen = domain.framebuffer
    pairs = [] if screen is None else [("vnc", 1), *specs.screen_pairs(screen)]
    root, extra = root_and_extra(domain.boot)
    hvm = domain.type == "hvm"
    old = before("type=", version)
    # xl warns of a file for the firmware of a guest that names it by firmware= alone
    has_path = isinstance(domain.boot, Firmware) and bool(domain.boot.path)
    return {
        "domain": domain,
        "xen": xen,
        "builder": {"pv": "generic", "hvm": "hvm"}[domain.type] if old else None,
        "firmware_key": "bios" if old or has_path else "firmware",
        "firmware": firmware_name(domain.boot, old=old or has_path),
        "boot": domain.boot,
        "boot_kind": type(domain.boot).__name__.lower(),
        "has_loader_user": not before("bootloader_user=", version),
        "root": root,
        "extra": extra,
        "disks": [specs.write_xl_disk(disk) for disk in domain.disks],
        "cards": [specs.write_pairs(specs.card_pairs(card)) for card in domain.cards],
        "screen": specs.write_pairs(pairs) if pairs and not hvm else None,
        "screen_keys": _top_level(pairs) if pairs and hvm else None,
    }


def parse_assignments(text: str) -> dict[str, Value]:
    """Key to value, the last assignment winning as in xl. Raises SyntaxFault."""
    return {entry.key: entry.value for entry in read_assignments(text)}


def parse(text: str, *, strict: bool = True) -> Domain:
    """The domain that an xl.cfg describes.

    Raises SyntaxFault for what xl could not read, ValueError for values that make no domain, and,
    when strict, Unsupported for keys that the model does not carry (else they are left out).
    """
    values = parse_assignments(text)
    unread = sorted(set(values) - set(_MODEL_KEYS.split()))
    if values.get("bootloader_restrict", 0) not in (0, "0") and "bootloader_user" not in values:
        unread.append("bootloader_restrict without bootloader_user")
    if unread and strict:
        raise Unsupported(f"keys that our model does not carry: {', '.join(unread)}")
    return read_domain(values)


def read_domain(values: Mapping[str, Value]) -> Domain:
    """The same of assignments; keys that the model does not carry are left out."""
    kind = _read_type(values)
    cards = tuple(specs.read_card(item) for item in string_list(values, "vif"))
    if kind != "hvm":
        cards = tuple(replace(card, model=None) for card in cards)
    return Domain(
        name=string(values, "name") or "",
        type=kind,
        uuid=string(values, "uuid"),
        memory_mib=number(values, "memory", 128) or 0,
        maxmem_mib=number(values, "maxmem", None),
        vcpus=number(values, "vcpus", 1) or 0,
        maxvcpus=number(values, "maxvcpus", None),
        cpus=read_cpus(values),
        cpu_weight=number(values, "cpu_weight", None),
        cap=number(values, "cap", None),
        boot=_read_boot(values, kind),
        disks=tuple(specs.read_xl_disk(item) for item in string_list(values, "disk")),
        cards=cards,
        framebuffer=_read_screen(values, kind),
        on_poweroff=string(values, "on_poweroff") or "destroy",
        on_reboot=string(values, "on_reboot") or "restart",
        on_crash=string(values, "on_crash") or "destroy",
    )


def root_and_extra(boot: Boot) -> tuple[str | None, str]:
    """root= and extra=, with ro or rw beside the device as its users have always written it."""
    if not isinstance(boot, Direct):
        return None, ""
    first, _, rest = boot.cmdline.partition(" ")
    if boot.root is not None and first in ("ro", "rw"):
        return f"{boot.root} {first}", rest
    return boot.root, boot.cmdline


def firmware_name(boot: Boot, *, old: bool) -> str:
    """The value of firmware=, or of bios= where Xen is older than 4.10."""
    kind = boot.kind if isinstance(boot, Firmware) else "bios"
    return {"bios": "seabios", "uefi": "ovmf"}[kind] if old else kind


def string(values: Mapping[str, Value], key: str) -> str | None:
    """A single value as text, None when the key is not there. Raises SyntaxFault for a list."""
    value = values.get(key)
    if isinstance(value, list):
        raise SyntaxFault(f"{key}: a list where a single value belongs")
    return None if value is None else str(value)


def number(values: Mapping[str, Value], key: str, default: int | None) -> int | None:
    """A number, also when written as a string, or the default. Raises SyntaxFault."""
    text = string(values, key)
    return default if text is None else specs.read_number(key, text)


def string_list(values: Mapping[str, Value], key: str) -> list[str]:
    """A list of strings, empty when the key is not there. Raises SyntaxFault for anything else."""
    value = values.get(key, [])
    if not isinstance(value, list):
        raise SyntaxFault(f"{key}: a single value where a list belongs")
    return value


def read_cpus(values: Mapping[str, Value]) -> str | None:
    """The processors of the host that are named; None for all of them. Raises SyntaxFault."""
    text = "".join((string(values, "cpus") or "").split())
    return None if text in ("", "all") else text


def _top_level(pairs: list[tuple[str, str | int | None]]) -> list[tuple[str, Quoted]]:
    return [
        (key, Quoted(str(value) if isinstance(value, int) else quote_string(value)))
        for key, value in pairs
        if value is not None
    ]


def _read_type(values: Mapping[str, Value]) -> str:
    builder = string(values, "builder")
    named = {"hvm": "hvm", "generic": "pv", "linux": "pv", None: "pv"}
    if builder not in named:
        raise SyntaxFault(f"builder: {builder!r} is not generic or hvm")
    return string(values, "type") or named[builder]


def _read_boot(values: Mapping[str, Value], kind: str) -> Boot:
    kernel = string(values, "kernel")
    loader = string(values, "bootloader")
    if kind == "hvm" and (kernel is None or PurePosixPath(kernel).name == "hvmloader"):
        name = string(values, "firmware") or string(values, "bios") or "bios"
        uefi = name in ("uefi", "ovmf")
        order, hdtype = string(values, "boot") or "c", string(values, "hdtype") or "ide"
        path = string(values, "bios_path_override") if uefi else ""
        return Firmware("uefi" if uefi else "bios", order, hdtype, path or "")
    if loader is not None:
        return _read_pygrub(values, loader)
    if kernel is None:
        raise SyntaxFault("kernel or bootloader: neither is there, nothing would boot")
    if grub_domain_type(kernel) is not None:
        return Grub(kernel)
    if kind == "pvh" and is_firmware(kernel):
        return Firmware("uefi", path=kernel)
    line = string(values, "cmdline")
    if line is None:
        root = string(values, "root")
        line = f"{f'root={root}' if root else ''} {string(values, 'extra') or ''}"
    device, rest = split_root(line)
    return Direct(kernel, string(values, "ramdisk"), device, rest)


def _read_pygrub(values: Mapping[str, Value], path: str) -> Pygrub:
    is_off = string(values, "bootloader_restrict") == "0"
    user = "" if is_off else string(values, "bootloader_user") or ""
    return Pygrub.of_words(path, string_list(values, "bootloader_args"), user)


def _read_screen(values: Mapping[str, Value], kind: str) -> Framebuffer | None:
    if kind == "hvm" or "vfb" not in values:
        top = {key: string(values, key) or "" for key in _SCREEN_KEYS if key in values}
        enabled = string(values, "vnc") not in (None, "0") and kind != "pvh"
        return specs.read_screen(top) if enabled else None
    screens = string_list(values, "vfb")
    if len(screens) > 1:
        raise Unsupported("vfb: more than one framebuffer")
    pairs = specs.read_pairs(screens[0]) if screens else {"vnc": "0"}
    return None if pairs.get("vnc") == "0" else specs.read_screen(pairs)
