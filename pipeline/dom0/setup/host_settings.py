"""dom0.toml: what a host that runs guests is to be. A table that is not there changes nothing.

Facts: bridge-utils-interfaces(5), systemd.netdev(5), xen-command-line(7), xl.conf(5),
xend-config.sxp's own comments, lvm.conf(5), Debian's /etc/default/xendomains.
"""

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from pipeline.errors import WrongValueError, show_value
from pipeline.spec import values

_DEVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")


def _check_device(text: str) -> str:
    """A name that Linux takes for a network device and no file's reader takes apart."""
    if not _DEVICE.fullmatch(text) or text in ("all", "default", "lo", "none"):
        raise WrongValueError(f"{show_value(text)} is no network device", 'write it as "eth0"')
    return text


def _check_net(text: str) -> str:
    """An address with the length of its network's prefix: a host's own says who its neighbours are.

    Neither the network's own nor its broadcast address, but where there are none (RFC 3021).
    """
    own = ipaddress.ip_interface(values.check_address(text))
    if "/" not in text:
        raise WrongValueError(f"{text} has no prefix length", f'write it as "{text}/24"')
    ends = (own.network.network_address, own.network.broadcast_address)
    if own.version == 4 and own.network.prefixlen < 31 and own.ip in ends:
        raise WrongValueError(f"{text} is no host's address", "its network's first or last one")
    return text


Device = Annotated[StrictStr, AfterValidator(_check_device)]
Net = Annotated[StrictStr, AfterValidator(_check_net)]
Port = Annotated[StrictInt, Field(ge=1, le=65535)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Bridge(_Table):
    """[bridge.NAME]: guests in the host's own network. No ports: guests among themselves.

    Without address and dhcp it has those that the host's files give its ports, or the bridge itself
    already; each of IPv4 and IPv6 by itself.
    """

    ports: tuple[Device, ...] = ()
    address: Annotated[tuple[Net, ...], values.AsList] = ()
    dhcp: StrictBool = False
    gateway: values.Gateway = ""
    gateway6: values.Gateway6 = ""
    dns: tuple[values.IpAddress, ...] = ()
    stp: StrictBool = False
    maxwait: Annotated[StrictInt, Field(ge=0, le=300)] = 0
    fd: Annotated[StrictInt, Field(ge=0, le=30)] = 0
    hello: Annotated[StrictInt, Field(ge=1, le=10)] | None = None

    def of_version(self, version: int) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
        """Its addresses of IPv4 or IPv6."""
        every = map(ipaddress.ip_interface, self.address)
        return [address for address in every if address.version == version]


class Nat(_Table):
    """[nat.NAME]: guests with private addresses on a bridge of their own, behind this host's.

    DHCP gives them `first` to `last`, else any of the network. Of the host's own services they
    reach DHCP, DNS and what listens on `host_ports` (TCP). `out` is the only device that they leave
    the host by, else any.
    """

    address: Net
    first: values.Gateway = ""
    last: values.Gateway = ""
    out: Device | Literal[""] = ""
    host_ports: tuple[Port, ...] = ()

    @property
    def interface(self) -> ipaddress.IPv4Interface:
        """The host's address on it, with the network."""
        return ipaddress.IPv4Interface(self.address)

    @property
    def leases(self) -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]:
        """The first and the last address that guests are given."""
        own, net = self.interface.ip, self.interface.network
        low, high = net.network_address + 1, net.broadcast_address - 1
        return (
            ipaddress.IPv4Address(self.first or low + (low == own)),
            ipaddress.IPv4Address(self.last or high - (high == own)),
        )


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
