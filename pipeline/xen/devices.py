"""Disks, network cards and the framebuffer of a domain."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self, get_args

from pipeline.errors import WrongValueError
from pipeline.xen.values import (
    DiskFormat,
    check_card_model,
    check_choice,
    check_display,
    check_file_path,
    check_interface,
    check_ip,
    check_key,
    check_keymap,
    check_mac,
    check_mtu,
    check_range,
    check_rate_kbytes_s,
)

DRBD_SCRIPT = "block-drbd"
# udev's name for the only volume of a resource (65-drbd.rules of drbd-utils)
_RESOURCE = re.compile(r"/dev/drbd/by-res/([A-Za-z0-9][A-Za-z0-9_.+-]*)/0")
_VDEV = re.compile(r"(?:xvd[a-z]{1,2}|sd[a-z]{1,2}|hd[a-t])(?:[1-9][0-9]?)?")


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk or partition of the guest. `target` is the host's path, "" for an empty CD drive.

    `vdev` is the guest's name for it (xvda1), `format` raw, qcow2 or vhd, `access` rw, ro or shared
    (other guests write to it at the same time), `devtype` disk or cdrom. xen-vbd-interface(7) has
    the names, xl-disk-configuration(5) the rest.
    `script` is block-drbd where the host makes a DRBD resource primary for the guest, else "".
    """

    target: str
    vdev: str
    format: str = "raw"
    access: str = "rw"
    devtype: str = "disk"
    script: str = ""

    def __post_init__(self) -> None:
        check_choice("disk script", self.script, ("", DRBD_SCRIPT))
        if self.script and (self.devtype != "disk" or not resource_of(self.target)):
            hint = f"write it as {device_of('r0')}"
            raise WrongValueError(f"{self.target} is no DRBD resource", hint, key="disk target")
        check_choice("disk format", self.format, get_args(DiskFormat))
        check_choice("disk access", self.access, ("rw", "ro", "shared"))
        if self.is_shared and (self.format, self.devtype, self.script) != ("raw", "disk", ""):
            hint = "what several guests write to has no notes of its format's own: format = 'raw'"
            raise WrongValueError(f"{self.target} cannot be shared", hint, key="disk access")
        check_choice("disk devtype", self.devtype, ("disk", "cdrom"))
        if not _VDEV.fullmatch(self.vdev):
            raise WrongValueError(f"{self.vdev!r} is not a name such as xvda, xvda1", key="vdev")
        if self.target or self.devtype == "disk":
            check_key("disk target", check_file_path, self.target)
        if self.devtype == "cdrom" and (self.access, self.format) != ("ro", "raw"):
            raise WrongValueError("a CD-ROM is raw and read only", key="disk")
        if self.kind == "block" and self.format != "raw":
            raise WrongValueError(
                f"{self.target} is a device, its format can only be raw", key="disk format"
            )

    def at(self, target: str) -> Self:
        """The same disk at another place; a script belongs to the old one."""
        return self if target == self.target else replace(self, target=target, script="")

    @property
    def is_shared(self) -> bool:
        """Whether other guests write to it too."""
        return self.access == "shared"

    @property
    def kind(self) -> str:
        """block for what lies under /dev (but files in memory, /dev/shm), file for all else."""
        is_device = self.target.startswith("/dev/") and not self.target.startswith("/dev/shm/")
        return "block" if is_device else "file"


def resource_of(path: str) -> str:
    """The DRBD resource that a path names; "" for any other path."""
    match = _RESOURCE.fullmatch(path)
    return match[1] if match else ""


def device_of(resource: str) -> str:
    """The path of a resource's device."""
    return f"/dev/drbd/by-res/{resource}/0"


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
        for key, check in _CARD_CHECKS.items():
            value = getattr(self, key)
            if value is not None:
                object.__setattr__(self, key, check_key(key, check, value))


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
        for key, check in _SCREEN_CHECKS.items():
            value = getattr(self, key)
            if value is not None:
                object.__setattr__(self, key, check_key(key, check, value))

    @property
    def vncunused(self) -> bool:
        """Whether the server looks for a free display."""
        return self.vncdisplay is None


def _canonical_ip(text: str) -> str:
    return str(ipaddress.ip_address(check_ip(text)))


_CARD_CHECKS: dict[str, Callable[[Any], Any]] = {
    "mac": lambda mac: check_mac(mac).lower(),
    "bridge": check_interface,
    "vifname": check_interface,
    "mtu": check_mtu,
    "rate_kbytes_s": check_rate_kbytes_s,
    "vlan": lambda tag: check_range(tag, 1, 4094),
    "ip": _canonical_ip,
    "model": check_card_model,
}
_SCREEN_CHECKS: dict[str, Callable[[Any], Any]] = {
    "vnclisten": _canonical_ip,
    "vncdisplay": check_display,
    "keymap": check_keymap,
}
