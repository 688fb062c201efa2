"""The configuration that xm handed to xend, Xen 3.0 to 3.4: a Python file of assignments.

xend ran the file; `parse` does not: it reads literals and refuses anything that computes. Facts
are from xmexample1 and xm's create.py of Xen 3.0 to 3.3, and from what etch and lenny shipped.
"""

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from pipeline.xen import specs
from pipeline.xen.boot import Boot, Direct, Firmware, Grub, Pygrub, grub_domain_type
from pipeline.xen.boot import split_command_line as split_root
from pipeline.xen.cfg_syntax import Quoted, Value
from pipeline.xen.compatibility import case_of, refuse
from pipeline.xen.devices import DRBD_SCRIPT, Card, Disk, Framebuffer, device_of, resource_of
from pipeline.xen.domain import Domain
from pipeline.xen.values import SyntaxFault, Unsupported, parse_version
from pipeline.xen.xl import number, read_cpus, root_and_extra, string, string_list

# blktap's image types: aio, sync, vmdk, ram, qcow in Xen 3.2; vhd and qcow2 by 3.4.
_TAP_SINCE = {"qcow2": (3, 4), "vhd": (3, 4)}


def write_disk(disk: Disk, version: tuple[int, int]) -> str:
    """The disk as xm reads it. Raises Unsupported for formats and characters it cannot carry."""
    shown = ".".join(map(str, version))
    if "," in disk.target:
        raise Unsupported(
            f"disk {disk.target}: xm splits disk strings at every comma", key="disk target"
        )
    if not disk.target:
        raise Unsupported(f"disk {disk.vdev}: xm has no empty CD drive, name an image")
    mode = {"rw": "w", "ro": "r", "shared": "w!"}[disk.access]
    if disk.script:
        return f"{specs.DRBD_PREFIX}{resource_of(disk.target)},{disk.vdev},{mode}"
    since = _TAP_SINCE.get(disk.format)
    if since is not None and version < since:
        raise Unsupported(
            f"disk format {disk.format}: Xen {shown} has no driver for it "
            f"(tap:{disk.format}: came with {since[0]}.{since[1]}); use raw",
            key="disk format",
        )
    scheme = f"tap:{disk.format}" if since else {"block": "phy", "file": "file"}[disk.kind]
    vdev = f"{disk.vdev}:cdrom" if disk.devtype == "cdrom" else disk.vdev
    return f"{scheme}:{disk.target},{vdev},{mode}"


def read_disk(text: str) -> Disk:
    """A disk string of xm. Raises SyntaxFault, or Unsupported for what is no file or device."""
    fields = [field.strip() for field in text.split(",")]
    if len(fields) != 3:
        raise SyntaxFault(f"disk {text!r}: it takes three fields, SOURCE,VDEV,MODE")
    source, vdev, mode = fields
    scheme, colon, path = source.partition(":")
    format_name = "raw"
    script = DRBD_SCRIPT if f"{scheme}{colon}" == specs.DRBD_PREFIX else ""
    if script:
        path = device_of(path)
    elif scheme == "tap" and colon:
        kind, _, path = path.partition(":")
        format_name = {"aio": "raw", "qcow2": "qcow2", "vhd": "vhd"}.get(kind, "")
        if not format_name:
            raise Unsupported(f"disk {text!r}: our model has no {kind} images")
    elif scheme not in ("phy", "file") or not colon:
        raise Unsupported(f"disk {text!r}: {scheme}: is not a file or a device of the host")
    if scheme == "phy" and not path.startswith("/"):
        path = f"/dev/{path}"
    if mode not in ("r", "w", "w!"):
        raise SyntaxFault(f"disk {text!r}: mode {mode!r} is not r or w")
    name, _, mark = vdev.removeprefix("ioemu:").partition(":")
    is_shared = mode == "w!" and format_name == "raw" and not script
    return Disk(
        script=script,
        target=path,
        vdev=name.removeprefix("/dev/"),
        format=format_name,
        access="ro" if mode == "r" or mark == "cdrom" else "shared" if is_shared else "rw",
        devtype="cdrom" if mark == "cdrom" else "disk",
    )


# Where Debian's xen-utils put pygrub and hvmloader.
_LIBRARY = {(3, 0): "/usr/lib/xen-3.0.3-1", (3, 2): "/usr/lib/xen-3.2-1"}
_LIBRARY_ELSEWHERE = "/usr/lib/xen"

MAX_VCPUS = 32
_MOST_LINES = 10

_MODEL_KEYS = """
    name uuid builder memory maxmem vcpus vcpu_avail cpus cpu_weight cpu_cap kernel ramdisk root
    extra bootloader bootargs device_model boot serial disk vif vfb vnc vncunused vncdisplay
    vnclisten keymap on_poweroff on_reboot on_crash
"""
_SCREEN_KEYS = ("vncunused", "vncdisplay", "vnclisten", "keymap")


def fields(domain: Domain, *, xen: str) -> dict[str, object]:
    """What the template for xm of this version of Xen is filled with. Raises Unsupported."""
    version = parse_version(xen)
    library = _LIBRARY.get(version, _LIBRARY_ELSEWHERE)
    _check_domain(domain, version)
    if not repr(domain).isascii():
        raise Unsupported("text outside ASCII: Python of that time refuses it without a coding")
    screen = domain.framebuffer
    pairs = [] if screen is None else specs.screen_pairs(screen)
    root, extra = root_and_extra(domain.boot)
    boot = domain.boot
    return {
        "domain": domain,
        "xen": xen,
        "boot": boot,
        "boot_kind": type(boot).__name__.lower(),
        "root": root,
        "extra": extra,
        "bootloader": _loader_path(boot, library) if isinstance(boot, Pygrub) else "",
        "bootargs": " ".join(boot.args) if isinstance(boot, Pygrub) else "",
        "hvmloader": f"{library}/boot/hvmloader",
        "device_model": f"{library}/bin/qemu-dm",
        "vcpu_avail": (1 << domain.vcpus) - 1,
        "disks": [write_disk(disk, version) for disk in domain.disks],
        "cards": [specs.write_pairs(specs.card_pairs(card)) for card in domain.cards],
        "screen": None
        if screen is None or domain.type == "hvm"
        else specs.write_pairs([("type", "vnc"), *pairs]).replace(", ", ","),
        "screen_keys": _top_level(pairs) if screen and domain.type == "hvm" else None,
    }


def parse_assignments(text: str) -> dict[str, Value]:
    """Key to value of a configuration that assigns literals only.

    Raises SyntaxFault, with every line that Python would have to run.
    """
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        line = getattr(fault, "lineno", None) or 1
        said = str(fault) or "nested too deeply"
        raise SyntaxFault(f"line {line}: Python cannot read this: {said}") from None
    values: dict[str, Value] = {}
    faults: list[str] = []
    for statement in module.body:
        try:
            values |= _read_statement(statement)
        except SyntaxFault as fault:
            faults.append(str(fault))
    if faults:
        more = f"; {len(faults)} such lines in all" if len(faults) > 1 else ""
        lines = ", ".join(fault.partition(":")[0].split()[1] for fault in faults[1:_MOST_LINES])
        raise SyntaxFault(f"{faults[0]}{more}{f' (also {lines})' if lines else ''}")
    return values


def _read_statement(statement: ast.stmt) -> dict[str, Value]:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return {}  # a text that stands alone, as a comment of several lines
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    if not isinstance(statement, ast.Assign) or len(names) != len(targets):
        raise SyntaxFault(
            f"line {statement.lineno}: this is program code; write the values out as "
            "key = 'text', a number or a list, we do not run configuration files"
        )
    return dict.fromkeys(names, _read_literal(statement.value))


def parse(text: str, *, strict: bool = True) -> Domain:
    """The domain that an xm configuration describes; faults as those of xl.parse."""
    values = parse_assignments(text)
    unread = sorted(set(values) - set(_MODEL_KEYS.split()))
    if unread and strict:
        raise Unsupported(f"keys that our model does not carry: {', '.join(unread)}")
    return read_domain(values)


def read_domain(values: Mapping[str, Value]) -> Domain:
    """The same of assignments; keys that the model does not carry are left out."""
    kind = {"hvm": "hvm", "linux": "pv", None: "pv"}.get(string(values, "builder"), "")
    vcpus = number(values, "vcpus", 1) or 0
    available = number(values, "vcpu_avail", None)
    return Domain(
        name=string(values, "name") or "",
        type=kind,
        uuid=string(values, "uuid"),
        memory_mib=number(values, "memory", 128) or 0,
        maxmem_mib=number(values, "maxmem", None),
        vcpus=vcpus if available is None else available.bit_count(),
        maxvcpus=None if available is None else vcpus,
        cpus=read_cpus(values),
        cpu_weight=number(values, "cpu_weight", None),
        cap=number(values, "cpu_cap", None),
        boot=_read_boot(values, kind),
        disks=tuple(read_disk(item) for item in string_list(values, "disk")),
        cards=tuple(specs.read_card(item) for item in string_list(values, "vif")),
        framebuffer=_read_screen(values, kind),
        on_poweroff=string(values, "on_poweroff") or "destroy",
        on_reboot=string(values, "on_reboot") or "restart",
        on_crash=string(values, "on_crash") or "restart",
    )


def _check_domain(domain: Domain, version: tuple[int, int]) -> None:
    shown = ".".join(map(str, version))
    if not (3, 0) <= version <= (4, 4):
        raise Unsupported(f"xm: Xen {shown} has none; xend existed from 3.0 to 4.4")
    if domain.type == "pvh":
        raise Unsupported(
            f"type pvh: xend never had it (Xen {shown}); it needs xl of 4.10", key="type"
        )
    if isinstance(domain.boot, Firmware) and domain.boot.kind == "uefi":
        raise Unsupported("firmware uefi: xend starts hvmloader with a BIOS only", key="boot")
    if isinstance(domain.boot, Firmware) and domain.boot.hdtype != "ide":
        raise Unsupported("hdtype: xend shows IDE disks only", key="boot")
    if domain.type == "hvm" and isinstance(domain.boot, Direct):
        raise Unsupported("hvm with a kernel that is given: xend starts hvmloader only", key="boot")
    refuse(replace(case_of(domain, shown), xl_keys=frozenset()))
    if isinstance(domain.boot, Pygrub):
        _check_pygrub(domain.boot, version)
    if domain.framebuffer and domain.type == "pv" and version < (3, 1):
        raise Unsupported(
            "framebuffer: vfb= came with 3.0.4; say xen=3.1 for that and later", key="vnc"
        )
    if max(domain.vcpus, domain.maxvcpus or 0) > MAX_VCPUS:
        raise Unsupported(f"vcpus: Xen {shown} gives a domain at most {MAX_VCPUS}", key="vcpus")
    for card in domain.cards:
        _check_card(card)


def _check_pygrub(boot: Pygrub, version: tuple[int, int]) -> None:
    if boot.args and version < (3, 1):
        raise Unsupported("bootloader arguments: xm of Xen 3.0 has no bootargs=")
    if boot.user:
        raise Unsupported("pygrub: xend runs it as root, which lets a guest take over the host")
    if any(" " in arg for arg in boot.args):
        raise Unsupported("bootloader arguments: xend splits bootargs= at every space")


def _check_card(card: Card) -> None:
    for field, value in (("mtu", card.mtu), ("vlan", card.vlan)):
        if value is not None:
            raise Unsupported(f"{field}: xend refuses a vif with {field}=", key=field)


def _loader_path(boot: Pygrub, library: str) -> str:
    return f"{library}/bin/pygrub" if boot.path == "pygrub" else boot.path


def _top_level(pairs: list[tuple[str, str | int | None]]) -> list[tuple[str, Quoted]]:
    present = [("vnc", 1), *((key, value) for key, value in pairs if value is not None)]
    return [(key, Quoted(repr(value))) for key, value in present]


def _read_literal(node: ast.expr) -> Value:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise SyntaxFault(
            f"line {node.lineno}: this is computed; write the value out, "
            "we do not run configuration files"
        ) from None
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return list(value)
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    raise SyntaxFault(f"line {node.lineno}: not a string, a whole number or a list of strings")


def _read_boot(values: Mapping[str, Value], kind: str) -> Boot:
    if kind == "hvm":
        return Firmware("bios", string(values, "boot") or "c")
    loader, kernel = string(values, "bootloader"), string(values, "kernel")
    if loader is not None:
        ours = {f"{path}/bin/pygrub" for path in (*_LIBRARY.values(), _LIBRARY_ELSEWHERE)}
        args = tuple((string(values, "bootargs") or "").split())
        name = PurePosixPath(loader).name
        return Pygrub("pygrub" if loader in ours or loader == name else loader, args)
    if kernel is None:
        raise SyntaxFault("kernel or bootloader: neither is there, nothing would boot")
    if grub_domain_type(kernel) is not None:
        return Grub(kernel)
    root = string(values, "root") or ""
    device, rest = split_root(f"root={root.removeprefix('root=')} {string(values, 'extra') or ''}")
    return Direct(kernel, string(values, "ramdisk") or None, device, rest)


def _read_screen(values: Mapping[str, Value], kind: str) -> Framebuffer | None:
    if kind == "hvm":
        top = {key: string(values, key) or "" for key in _SCREEN_KEYS if key in values}
        return specs.read_screen(top) if string(values, "vnc") not in (None, "0") else None
    screens = string_list(values, "vfb")
    if not screens:
        return None
    pairs = specs.read_pairs(screens[0])
    if len(screens) > 1 or pairs.get("type") != "vnc":
        raise Unsupported("vfb: only one framebuffer of type=vnc can be read")
    return specs.read_screen(pairs)
