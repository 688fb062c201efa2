"""Disks, network cards and the framebuffer of a domain."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from pipeline.xen.text import check_choice, check_path, check_range, check_text

DISK_FORMATS = ("raw", "qcow2", "vhd")

_VDEV = re.compile(r"(?:xvd[a-z]{1,2}|sd[a-z]{1,2}|hd[a-t])(?:[1-9][0-9]?)?")
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_LINK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
MTU_SINCE = (4, 16)  # xl's mtu=


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk or partition of the guest. `target` is the host's path, "" for an empty CD drive.

    `vdev` is the guest's name for it (xvda1), `format` raw, qcow2 or vhd, `access` rw or ro,
    `devtype` disk or cdrom. xen-vbd-interface(7) has the names, xl-disk-configuration(5) the rest.
    """

    target: str
    vdev: str
    format: str = "raw"
    access: str = "rw"
    devtype: str = "disk"

    def __post_init__(self) -> None:
        check_choice("disk format", self.format, DISK_FORMATS)
        check_choice("disk access", self.access, ("rw", "ro"))
        check_choice("disk devtype", self.devtype, ("disk", "cdrom"))
        if not _VDEV.fullmatch(self.vdev):
            raise ValueError(f"vdev: {self.vdev!r} is not a device name such as xvda or xvda1")
        if self.target or self.devtype == "disk":
            check_path("disk target", self.target)
        if self.devtype == "cdrom" and (self.access, self.format) != ("ro", "raw"):
            raise ValueError("disk: a CD-ROM is raw and read only")
        if self.kind == "block" and self.format != "raw":
            raise ValueError(f"disk: {self.target} is a device, its format can only be raw")

    @property
    def kind(self) -> str:
        """block for what lies under /dev (but files in memory, /dev/shm), file for all else."""
        is_device = self.target.startswith("/dev/") and not self.target.startswith("/dev/shm/")
        return "block" if is_device else "file"


@dataclass(frozen=True, kw_only=True)
class Card:
    """A network card. `mac` is stored in lower case; None lets the toolstack choose one.

    `rate_kbytes_s` limits what the guest sends, in 1000 bytes a second. `ip` is the guest's
    address for scripts that want it, `model` an emulated card (hvm only), `vlan` a tag 1-4094.
    """

    mac: str | None = None
    bridge: str | None = None
    vifname: str | None = None
    mtu: int | None = None
    rate_kbytes_s: int | None = None
    ip: str | None = None
    model: str | None = None
    vlan: int | None = None

    def __post_init__(self) -> None:
        if self.mac is not None:
            object.__setattr__(self, "mac", canonical_mac(self.mac))
        for field, value in (("bridge", self.bridge), ("vifname", self.vifname)):
            if value is not None and not _LINK.fullmatch(value):
                raise ValueError(
                    f"{field}: {value!r} must be 1 to 15 letters, digits and . _ -, "
                    "as network devices of Linux are"
                )
        if self.mtu is not None:
            check_range("mtu", self.mtu, 68, 65535)
        if self.rate_kbytes_s is not None:
            check_range("rate_kbytes_s", self.rate_kbytes_s, 1, 10**9)
        if self.vlan is not None:
            check_range("vlan", self.vlan, 1, 4094)
        if self.ip is not None:
            object.__setattr__(self, "ip", _canonical_ip("ip", self.ip))
        if self.model is not None and not _WORD.fullmatch(self.model):
            raise ValueError(f"model: {self.model!r} is not a card model such as e1000")


@dataclass(frozen=True, kw_only=True)
class Framebuffer:
    """A screen served over VNC: on a fixed display, or (None) on the first that is free.

    `vnclisten` is the address the server listens on; the toolstack's default is 127.0.0.1. There
    is no field for a password: it would stand in clear in every rendering.
    """

    vnclisten: str | None = None
    vncdisplay: int | None = None
    keymap: str | None = None

    def __post_init__(self) -> None:
        if self.vnclisten is not None:
            object.__setattr__(self, "vnclisten", _canonical_ip("vnclisten", self.vnclisten))
        if self.vncdisplay is not None:
            check_range("vncdisplay", self.vncdisplay, 0, 59635)
        if self.keymap is not None:
            check_text("keymap", self.keymap)
            if not _WORD.fullmatch(self.keymap):
                raise ValueError(f"keymap: {self.keymap!r} is not a keymap such as fr or en-us")

    @property
    def vncunused(self) -> bool:
        """Whether the server looks for a free display."""
        return self.vncdisplay is None


def canonical_mac(text: str) -> str:
    """The MAC address in lower case; ValueError unless it is a unicast address aa:bb:..:ff."""
    mac = text.lower()
    if not _MAC.fullmatch(mac):
        raise ValueError(f"mac: {text!r} is not an address such as 00:16:3e:59:2a:ed")
    if int(mac[:2], 16) & 1:
        raise ValueError(f"mac: {text!r} is a multicast address, no card can have it")
    if not int(mac.replace(":", ""), 16):
        raise ValueError("mac: toolstacks replace the address of zeros by a random one")
    return mac


def _canonical_ip(field: str, text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{field}: {text!r} is not an IP address") from None
    if "%" in text:
        raise ValueError(f"{field}: {text!r} names a zone of one machine")
    return str(address)
