"""Device strings: the comma-separated text inside disk=[], vif=[] and vfb=[] of xl and xm."""

import re

from pipeline.xen.devices import DRBD_SCRIPT, Card, Disk, Framebuffer, device_of, resource_of
from pipeline.xen.values import SyntaxFault, Unsupported, parse_rate_kbytes_s

_FORMAT_PREFIXES = ("raw", "qcow2", "vhd")
_PLAIN_PREFIXES = ("phy", "file", "tap", "tap2", "aio", "ioemu", "tapdisk")
DRBD_PREFIX = "drbd:"  # xm's way, which xl still reads
_ACCESS = {"w": "rw", "rw": "rw", "r": "ro", "ro": "ro", "": None}
# xl knows no w!: Xen's own script refuses a disk that another guest has. QEMU asks nobody.
_SHARED = "qdisk"
_POSITIONS = ("target", "format", "vdev", "access")


def write_xl_disk(disk: Disk) -> str:
    """The disk for xl, all keys named and target= last: there it may hold any character."""
    cdrom = "devtype=cdrom, " if disk.devtype == "cdrom" else ""
    if disk.script:
        script = f"script={disk.script}, target={resource_of(disk.target)}"
        return f"format=raw, vdev={disk.vdev}, access={disk.access}, {script}"
    access = f"rw, backendtype={_SHARED}" if disk.is_shared else disk.access
    guard = "," if disk.target.endswith(",") else ""  # xl drops one comma from the end
    return (
        f"format={disk.format}, vdev={disk.vdev}, access={access}, "
        f"{cdrom}target={disk.target}{guard}"
    )


def read_disk_fields(text: str) -> dict[str, str]:
    """The named fields of an xl disk specification (xl-disk-configuration(5)); SyntaxFault."""
    fields: dict[str, str] = {}
    free = list(_POSITIONS)
    rest = text
    while rest:
        rest = rest.lstrip(" \t")
        if rest.startswith("target="):
            fields["target"] = rest.removeprefix("target=").removesuffix(",")
            return fields
        part, _, rest = rest.partition(",")
        key, equals, value = part.partition("=")
        if equals and re.fullmatch(r"[a-z][a-z0-9_-]*", key):
            fields[key] = value
        elif part in ("cdrom", "discard", "no-discard", "direct-io-safe", "trusted", "untrusted"):
            fields["devtype" if part == "cdrom" else part] = part
        else:
            while free and free[0] in fields:
                free.pop(0)
            if not free:
                raise SyntaxFault(f"disk {text!r}: {part!r} is one parameter too many")
            fields[free.pop(0)] = part
    return fields


def read_xl_disk(text: str) -> Disk:
    """A disk specification of xl, named, positional or with the deprecated prefixes of xm."""
    fields = read_disk_fields(_drop_prefixes(text))
    script = fields.pop("script", "").rpartition("/")[2]
    if script not in ("", DRBD_SCRIPT):
        raise Unsupported(f"disk {text!r}: our model has no script but {DRBD_SCRIPT}")
    is_shared = fields.get("backendtype") == _SHARED and _may_be_shared(fields)
    known = {*_POSITIONS, "devtype", *(["backendtype"] if is_shared and not script else [])}
    unread = sorted(set(fields) - known)
    if unread:
        raise Unsupported(f"disk {text!r}: our model has no {', '.join(unread)}")
    vdev, _, mark = fields.get("vdev", "").removeprefix("ioemu:").partition(":")
    cdrom = fields.get("devtype") == "cdrom" or mark == "cdrom"
    access = _read_access(fields.get("access", ""), text)
    target = fields.get("target", "")
    if target and not target.startswith("/"):
        target = device_of(target) if script else f"/dev/{target}"
    return Disk(
        script=script,
        target=target,
        vdev=vdev,
        format=fields.get("format") or "raw",
        access="shared" if is_shared else "ro" if cdrom else (access or "rw"),
        devtype="cdrom" if cdrom else "disk",
    )


def _may_be_shared(fields: dict[str, str]) -> bool:
    """Whether it is a raw disk that is written to: of another one its backend says nothing."""
    is_raw = fields.get("format", "") in ("", "raw") and bool(fields.get("target"))
    is_disk = "devtype" not in fields and ":" not in fields.get("vdev", "")
    return is_raw and is_disk and fields.get("access", "") in ("", "w", "rw")


def _drop_prefixes(text: str) -> str:
    """`tap:aio:/x,xvda,w` and `qcow2:/x,xvda,w` as today's positional form."""
    if text.startswith(DRBD_PREFIX):
        target, _, rest = text.removeprefix(DRBD_PREFIX).partition(",")
        return f"script={DRBD_SCRIPT},{target},,{rest}"
    format_name = ""
    while (match := re.match(r"([a-z0-9]+):", text)) is not None:
        if match[1] in _FORMAT_PREFIXES:
            format_name = match[1]
        elif match[1] not in _PLAIN_PREFIXES:
            raise Unsupported(f"disk {text!r}: {match[1]}: is not a file or a device of the host")
        text = text[match.end() :]
        target, _, rest = text.partition(",")
        if not re.match(r"[a-z0-9]+:", text):
            return f"{target},{format_name},{rest}"
    return text


def _read_access(text: str, whole: str) -> str | None:
    if text not in _ACCESS:
        raise SyntaxFault(f"disk {whole!r}: access {text!r} is not one of r, ro, w, rw")
    return _ACCESS[text]


def write_pairs(pairs: list[tuple[str, str | int | None]]) -> str:
    """key=value, key=value for what is not None, as vif and vfb want it."""
    return ", ".join(f"{key}={value}" for key, value in pairs if value is not None)


def read_pairs(text: str) -> dict[str, str]:
    """The inverse of write_pairs; a word without = is kept with an empty value."""
    pairs: dict[str, str] = {}
    for part in text.split(","):
        key, _, value = part.strip().partition("=")
        if key:
            pairs[key.strip()] = value.strip()
    return pairs


def card_pairs(card: Card) -> list[tuple[str, str | int | None]]:
    """The keys of a vif, bridge and MAC first as people write them."""
    rate = None if card.rate_kbytes_s is None else f"{card.rate_kbytes_s}KB/s"
    return [
        ("bridge", card.bridge),
        ("mac", card.mac),
        ("vifname", card.vifname),
        ("ip", card.ip),
        ("model", card.model),
        ("rate", rate),
        ("mtu", card.mtu),
        ("vlan", card.vlan),
    ]


def read_card(text: str) -> Card:
    """A vif string as a card; Unsupported for keys that the model does not have."""
    pairs = read_pairs(text)
    kind = pairs.pop("type", "vif")
    if pairs.pop("script", "vif-bridge") != "vif-bridge" or kind not in (
        "vif",
        "ioemu",
        "netfront",
    ):
        raise Unsupported(f"vif {text!r}: only bridged cards can be read")
    unread = sorted(set(pairs) - {key for key, _ in card_pairs(Card())})
    if unread:
        raise Unsupported(f"vif {text!r}: our model has no {', '.join(unread)}")
    mac = pairs.get("mac")
    return Card(
        mac=None if mac == "random" else mac,
        bridge=pairs.get("bridge"),
        vifname=pairs.get("vifname"),
        ip=pairs.get("ip"),
        model=pairs.get("model"),
        rate_kbytes_s=None if "rate" not in pairs else parse_rate_kbytes_s(pairs["rate"]),
        mtu=read_number("mtu", pairs.get("mtu")),
        vlan=read_number("vlan", pairs.get("vlan")),
    )


def read_number(field: str, text: str | None) -> int | None:
    """A whole number, or None when there is no text. Raises SyntaxFault."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise SyntaxFault(f"{field}: {text!r} is not a number")
    return int(text)


def screen_pairs(screen: Framebuffer) -> list[tuple[str, str | int | None]]:
    """The keys that vfb= of xl and xm and the top level of an HVM configuration share."""
    return [
        ("vncunused", int(screen.vncunused)),
        ("vncdisplay", screen.vncdisplay),
        ("vnclisten", _listen_ipv4(screen)),
        ("keymap", screen.keymap),
    ]


def _listen_ipv4(screen: Framebuffer) -> str | None:
    if screen.vnclisten is not None and ":" in screen.vnclisten:
        raise Unsupported(
            f"vnclisten: {screen.vnclisten}: xl and xm take what follows a colon for a display",
            "write an IPv4 address",
            key="vnclisten",
        )
    return screen.vnclisten


def read_screen(pairs: dict[str, str]) -> Framebuffer:
    """The framebuffer that vnc keys describe; a display that is named is fixed."""
    listen = pairs.get("vnclisten") or None
    display = read_number("vncdisplay", pairs.get("vncdisplay"))
    if listen is not None and ":" in listen:
        listen, _, number = listen.partition(":")
        display = read_number("vnclisten", number)
    return Framebuffer(vnclisten=listen, vncdisplay=display, keymap=pairs.get("keymap"))
