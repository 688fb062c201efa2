"""dom0.toml: what a host that runs guests is to be. A table that is not there changes nothing.

Facts: bridge-utils-interfaces(5), systemd.netdev(5), xen-command-line(7), xl.conf(5),
xend-config.sxp's own comments, lvm.conf(5), Debian's /etc/default/xendomains.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from pipeline.errors import WrongValueError, show_value
from pipeline.spec import values

_DEVICE = re.compile(r"[A-Za-z0-9_.:-]{1,15}")


def _check_device(text: str) -> str:
    """A name that Linux takes for a network device and no file's reader takes apart."""
    if not _DEVICE.fullmatch(text) or text in (".", "..", "all", "default", "lo"):
        raise WrongValueError(f"{show_value(text)} is no network device", 'write it as "eth0"')
    return text


Device = Annotated[StrictStr, AfterValidator(_check_device)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Bridge(_Table):
    """[bridge.NAME]: guests in the host's own network. No ports: guests among themselves."""

    ports: tuple[Device, ...] = ()
    address: values.Address = ""
    dhcp: StrictBool = False
    gateway: values.Gateway = ""
    dns: tuple[values.IpAddress, ...] = ()
    stp: StrictBool = False
    maxwait: Annotated[StrictInt, Field(ge=0, le=300)] = 0
    fd: Annotated[StrictInt, Field(ge=0, le=30)] = 0


class Nat(_Table):
    """[nat.NAME]: guests with private addresses on a bridge of their own, behind this host's."""

    address: values.Address
    first: values.IpAddress = ""
    last: values.IpAddress = ""
    out: Device | Literal[""] = ""


class Boot(_Table):
    """[boot]: Xen's command line and dom0's, and who can log in over the serial line."""

    dom0_mem: values.MemorySize | None = None
    dom0_max_vcpus: Annotated[StrictInt, Field(ge=1, le=512)] | None = None
    serial: Literal["com1", "com2"] | None = None
    serial_speed: Literal[9600, 19200, 38400, 57600, 115200] = 115200
    xencons: Device | None = None


class Guests(_Table):
    """[guests]: what happens to guests when the host stops (xendomains)."""

    save: StrictBool = False
    migrate_to: values.HostName | None = None


class Lvm(_Table):
    """[lvm]: the groups of guests' volumes, which LVM of this host is not to look into."""

    groups: tuple[values.GroupName, ...] = ()


class Migration(_Table):
    """[migration]: the hosts that guests come from and go to."""

    hosts: tuple[values.HostName | values.IpAddress, ...] = ()


class HostSettings(_Table):
    """The whole file."""

    network: Literal["ifupdown", "networkd"] | None = None
    bridge: dict[Device, Bridge] = {}
    nat: dict[Device, Nat] = {}
    boot: Boot | None = None
    guests: Guests | None = None
    lvm: Lvm | None = None
    migration: Migration | None = None
