"""Where a guest of this host answers: its address, looked for by the MACs of its cards.

What is read here was said by guests and by others: a host name in a lease is the guest's choice, so
is all of its xenstore. Nothing counts but a MAC of ours beside a text that is an address of the
bridge's networks or a private one; whether the guest is there, its host key says.
"""

import ipaddress
import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import process
from pipeline.dom0.layout import Layout
from pipeline.dom0.toolstack import Toolstack
from pipeline.errors import PipelineError
from pipeline.files import read_bytes
from pipeline.xen.devices import Card

_LEASES = (
    "var/lib/misc/dnsmasq*.leases",
    "var/lib/dnsmasq/*.leases",
    "var/lib/libvirt/dnsmasq/*.leases",
)
_DHCPD = ("var/lib/dhcp/dhcpd.leases", "var/lib/dhcpd/dhcpd.leases")
_NETWORKD = "var/lib/systemd/network/dhcp-server-lease/*"
# xe-guest-utilities: attr/vif/0/ipv4/0, older ones attr/eth0/ip
_ATTRIBUTE = re.compile(
    r'^/local/domain/\d+/attr/\S*/(?:ip|ipv[46]/\d+) = "([^"\\]*)"', re.MULTILINE
)
_BLOCK = re.compile(r"^lease (\S+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_HARDWARE = re.compile(r"^\s+hardware ethernet ([0-9A-Fa-f:]{17});$", re.MULTILINE)
_ACTIVE = re.compile(r"^\s+binding state active;$", re.MULTILINE)
_DEAD = {"FAILED", "INCOMPLETE", "NONE"}
_SSH, _PATIENCE_S = 22, 1.5
_LINK_LOCAL = bytes([0xFE, 0x80, *[0] * 6])

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Look:
    """A place that was looked at: the addresses that it has for the guest, or what was there."""

    place: str
    addresses: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {', '.join(self.addresses) or self.note or 'no card of it'}"


def find_address(
    layout: Layout, name: str, cards: Sequence[Card], toolstack: Toolstack | None
) -> tuple[str, str]:
    """The guest's address and where it was found.

    Raises PipelineError with every place that was looked at.
    """
    bridges = list(dict.fromkeys(card.bridge for card in cards if card.bridge))
    macs = {card.mac.lower() for card in cards if card.mac}
    networks = [network for bridge in bridges for network in _networks_of(bridge)]
    looks: list[Look] = []
    for look in _look(layout, name, macs, bridges, toolstack):
        usable = [text for text in look.addresses if is_plausible(text, networks)]
        if usable:
            return usable[0], look.place
        strange = f"{', '.join(look.addresses)}: neither private nor of {', '.join(bridges)}"
        looks.append(Look(look.place, note=strange) if look.addresses else look)
    raise PipelineError(
        f"{name}: no address of {', '.join(sorted(macs)) or 'its cards'} found",
        details="\n".join(map(str, looks)),
        hint=f"does it run? doit console name={name}; or name its address: address=192.168.1.20",
    )


def is_plausible(text: str, networks: Iterable[Network]) -> bool:
    """Whether it is an address that a guest can have: of these networks, or a private one."""
    address_text, _, scope = text.partition("%")
    try:
        address = ipaddress.ip_address(address_text)
    except ValueError:
        return False
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        return False
    if address.version == 6 and address.ipv4_mapped is not None:
        return False
    if address.version == 6 and address.is_link_local and not scope:
        return False
    return address.is_private or any(address in network for network in networks)


def _look(
    layout: Layout, name: str, macs: set[str], bridges: list[str], toolstack: Toolstack | None
) -> Iterator[Look]:
    yield _ask_xenstore(name, toolstack)
    for patterns, read in (
        (_LEASES, read_dnsmasq),
        (_DHCPD, read_dhcpd),
        ((_NETWORKD,), read_networkd),
    ):
        paths = sorted(path for pattern in patterns for path in layout.root.glob(pattern))
        if not paths:
            yield Look(str(layout.root / patterns[0]), note="no such file")
        for path in paths:
            yield _read_leases(path, read, macs)
    for bridge in bridges:
        yield _ask_neighbours(bridge, macs)
    for bridge in bridges:
        yield _knock(bridge, macs)


def _ask_xenstore(name: str, toolstack: Toolstack | None) -> Look:
    if toolstack is None:
        return Look("xenstore", note="no Xen runs here")
    try:
        number = int(toolstack.run("domid", name))
        said = process.run(["xenstore-ls", "-f", f"/local/domain/{number}/attr"])
    except (PipelineError, ValueError) as error:
        return Look("xenstore", note=f"its guest's attr cannot be read ({error})")
    return Look("xenstore", tuple(read_xenstore(said)), "its guest says no address")


def _read_leases(
    path: Path, read: Callable[[str, set[str]], Iterator[str]], macs: set[str]
) -> Look:
    try:
        text = read_bytes(path, follow=True).decode(errors="replace")
        # the newest comes last
        return Look(str(path), tuple(dict.fromkeys(reversed([*read(text, macs)]))))
    except (PipelineError, OSError, ValueError, RecursionError) as error:
        return Look(str(path), note=f"cannot be read ({error})")


def read_xenstore(text: str) -> list[str]:
    """The addresses in a guest's attr, as `xenstore-ls -f` prints it: `/path = "value"`."""
    return _ATTRIBUTE.findall(text)


def read_dnsmasq(text: str, macs: set[str]) -> Iterator[str]:
    """Lines of end, MAC, address, name, client; 0 is no end (dnsmasq(8), --dhcp-leasefile)."""
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) < 4 or not re.fullmatch(r"[0-9]{1,15}", words[0]):
            continue
        if words[1].lower() in macs and (words[0] == "0" or int(words[0]) > time.time()):
            yield words[2]


def read_dhcpd(text: str, macs: set[str]) -> Iterator[str]:
    """Blocks that are added at the end as they change (dhcpd.leases(5))."""
    active: dict[str, bool] = {}
    for address, body in _BLOCK.findall(text):
        hardware = _HARDWARE.search(body)
        if hardware is not None and hardware[1].lower() in macs:
            active.pop(address, None)
            active[address] = bool(_ACTIVE.search(body))
    yield from (address for address, is_active in active.items() if is_active)


def read_networkd(text: str, macs: set[str]) -> Iterator[str]:
    """systemd-networkd's leases from 257 on: JSON, addresses as lists of bytes."""
    for lease in _tables(_list(json.loads(text), "Leases")):
        try:
            if bytes(_list(lease, "HardwareAddress")[:6]).hex(":") in macs:
                yield str(ipaddress.IPv4Address(bytes(_list(lease, "Address"))))
        except (TypeError, ValueError):
            continue


def _ask_neighbours(bridge: str, macs: set[str]) -> Look:
    place = f"neighbours of {bridge} (ip neigh)"
    try:
        said = json.loads(process.run(["ip", "-json", "neigh", "show", "dev", bridge]) or "[]")
    except (PipelineError, ValueError):
        return Look(place, note="no such bridge here")
    addresses: list[str] = []
    for entry in _tables(said):
        is_dead = any(state in _DEAD for state in _list(entry, "state"))
        if str(entry.get("lladdr")).lower() in macs and not is_dead:
            text = str(entry.get("dst"))
            addresses.append(f"{text}%{bridge}" if text.lower().startswith("fe80:") else text)
    return Look(place, tuple(sorted(addresses, key=lambda text: (":" in text, "%" in text))))


def _knock(bridge: str, macs: set[str]) -> Look:
    """The address that IPv6 derives from a MAC (RFC 4291), if somebody answers there."""
    answering = []
    for mac in sorted(macs):
        parts = [int(part, 16) for part in mac.split(":")]
        low = bytes([parts[0] ^ 2, *parts[1:3], 0xFF, 0xFE, *parts[3:]])
        address = f"{ipaddress.IPv6Address(_LINK_LOCAL + low)}%{bridge}"
        try:
            with closing(socket.create_connection((address, _SSH), timeout=_PATIENCE_S)):
                answering.append(address)
        except OSError:
            continue
    return Look(f"link-local on {bridge}", tuple(answering), "no SSH answers there")


def _networks_of(bridge: str) -> Iterator[Network]:
    try:
        said = json.loads(process.run(["ip", "-json", "addr", "show", "dev", bridge]) or "[]")
    except (PipelineError, ValueError):
        return
    for entry in (inner for link in _tables(said) for inner in _tables(_list(link, "addr_info"))):
        text = f"{entry.get('local')}/{entry.get('prefixlen')}"
        try:
            yield ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue


def _tables(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _list(table: Any, key: str) -> list[Any]:
    value = table.get(key) if isinstance(table, dict) else None
    return value if isinstance(value, list) else []
