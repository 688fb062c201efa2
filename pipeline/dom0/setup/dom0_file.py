"""dom0.toml, beside guests/: read, and refused where its settings do not go together."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from itertools import combinations
from pathlib import Path
from typing import Any

from pipeline.dom0.setup.host_settings import Bridge, HostSettings, Nat
from pipeline.errors import Finding, SpecError, UsageError
from pipeline.spec.table_file import read_table_file, read_tables


def read_dom0_file(path: Path) -> HostSettings:
    """The settings; UsageError where there is no file, SpecError with every mistake in it."""
    if not path.exists():
        raise UsageError(
            f"{path} is not there: it says what this host is to be",
            hint="doit dom0 create=yes writes one of what the host has now",
        )
    settings = read_table_file(path, HostSettings)
    require_sense(settings, source=f"{path.parent.name}/{path.name}")
    return settings


def merge_settings(settings: HostSettings, more: dict[str, Any]) -> HostSettings:
    """The settings with further keys, as {"boot": {"dom0_mem": "1G"}}; SpecError for a clash."""
    table = _merge(settings.model_dump(mode="json", exclude_defaults=True), more)
    merged = read_tables(table, HostSettings, source="dom0.toml")
    require_sense(merged, source="dom0.toml")
    return merged


def require_sense(settings: HostSettings, *, source: str) -> None:
    """Raises SpecError with all that does not go together."""
    problems = [replace(problem, source=source) for problem in find_clashes(settings)]
    if problems:
        raise SpecError(problems)


def find_clashes(settings: HostSettings) -> Iterator[Finding]:
    """What does not go together."""
    for name, bridge in settings.bridge.items():
        for key, message, hint in _find_in_bridge(bridge):
            yield Finding("error", f"bridge.{name}.{key}", message, hint)
    for name, nat in settings.nat.items():
        for key, message, hint in _find_in_nat(name, nat):
            yield Finding("error", f"nat.{name}.{key}", message, hint)
    yield from _find_shared_ports(settings)
    yield from _find_shared_networks(settings)


def _find_in_bridge(bridge: Bridge) -> Iterator[tuple[str, str, str]]:
    if bridge.of_version(4) and bridge.dhcp:
        yield "dhcp", "it has an address too", "keep one of them"
    if bridge.stp and bridge.fd < 2:
        yield "fd", f"{bridge.fd} seconds are too few for stp", "Linux takes 2 to 30 then"
    for key, text in (("gateway", bridge.gateway), ("gateway6", bridge.gateway6)):
        gateway = ip_address(text or "0.0.0.0")
        own = bridge.of_version(gateway.version)
        if text and not own:
            hint = "add address = ..., or take the gateway away: DHCP brings its own"
            yield key, "there is a gateway and no address", hint
        elif text and not gateway.is_link_local:
            nets = [address.network for address in own]
            if gateway in [address.ip for address in own] or not any(
                gateway in net for net in nets
            ):
                hint = "the router's address in the bridge's network"
                yield key, f"{text} is no other address in {', '.join(map(str, nets))}", hint


def _find_in_nat(name: str, nat: Nat) -> Iterator[tuple[str, str, str]]:
    if ":" in nat.address:
        yield "address", f"'{nat.address}' is no IPv4 network", "write it as 10.0.0.1/24"
        return
    own = nat.interface
    if not 8 <= own.network.prefixlen <= 30:
        yield "address", f"{nat.address} leaves no address to guests", "write it as 10.0.0.1/24"
        return
    for key, text in (("first", nat.first), ("last", nat.last)):
        if text and (ip_address(text) not in own.network or ip_address(text) == own.ip):
            yield key, f"{text} is no guest's address in {own.network}", "leave it out: any of them"
    first, last = nat.leases
    if first > last:
        yield "last", f"{last} is before {first}", "exchange them"
    if nat.out == name:
        yield "out", "guests are to go out over another card than their own", "leave it out"


def _find_shared_ports(settings: HostSettings) -> Iterator[Finding]:
    networks = [*settings.bridge, *settings.nat]
    ports = Counter(port for bridge in settings.bridge.values() for port in bridge.ports)
    for name, bridge in settings.bridge.items():
        subject = f"bridge.{name}.ports"
        for port in dict.fromkeys(bridge.ports):
            if port in networks:
                yield Finding("error", subject, f"{port} is a bridge", "name a network card")
            elif ports[port] > 1:
                yield Finding("error", subject, f"{port} is in two bridges", "keep one of them")
    for name in set(settings.bridge) & set(settings.nat):
        yield Finding("error", f"nat.{name}", "there is a bridge of that name", "name it br-nat")


def _find_shared_networks(settings: HostSettings) -> Iterator[Finding]:
    """Two bridges may lie in one network, by different cards; a private one is nobody else's."""
    nets = [
        (f"bridge.{name}", ip_interface(address).network)
        for name, bridge in settings.bridge.items()
        for address in bridge.address
    ]
    nets += [
        (f"nat.{name}", ip_interface(nat.address).network) for name, nat in settings.nat.items()
    ]
    for (above, first), (other, second) in combinations(nets, 2):
        is_nat = other.startswith("nat.")
        if is_nat and first.version == second.version and first.overlaps(second):
            message = f"{second} overlaps {first} of [{above}]"
            yield Finding("error", f"{other}.address", message, "take another: 10.0.0.1/24")


def _merge(table: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for key, value in more.items():
        is_deep = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if is_deep else value
    return merged
