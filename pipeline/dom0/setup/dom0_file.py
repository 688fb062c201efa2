"""dom0.toml, beside guests/: read, and refused where its settings do not go together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from itertools import combinations
from pathlib import Path
from typing import Any

from pipeline.dom0.setup.host_settings import Bridge, HostSettings, Nat
from pipeline.errors import Finding, SpecError, UsageError
from pipeline.spec.table_file import read_table_file

_PREFIX = "write it with its prefix length: 192.168.1.145/24"


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
    table = _merge(settings.model_dump(mode="json", exclude_none=True), more)
    merged = HostSettings.model_validate(table)
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
    if bridge.address and bridge.dhcp:
        yield "dhcp", "it has an address too", "keep one of them"
    if bridge.address and "/" not in bridge.address:
        yield "address", f"'{bridge.address}' has no prefix length", _PREFIX
        return
    if bridge.gateway and not bridge.address:
        hint = "add address = ..., or take the gateway away: DHCP brings its own"
        yield "gateway", "there is a gateway and no address", hint
    elif bridge.gateway:
        own = ip_interface(bridge.address)
        gateway = ip_address(bridge.gateway)
        if gateway not in own.network or gateway == own.ip:
            hint = "the router's address in the bridge's network"
            yield "gateway", f"{bridge.gateway} is no other address in {own.network}", hint


def _find_in_nat(name: str, nat: Nat) -> Iterator[tuple[str, str, str]]:
    if "/" not in nat.address or ":" in nat.address:
        yield "address", f"'{nat.address}' is no IPv4 network", "write it as 10.0.0.1/24"
        return
    own = ip_interface(nat.address)
    if own.network.prefixlen > 30 or own.ip in (own.network[0], own.network[-1]):
        yield "address", f"{nat.address} leaves no address to guests", "write it as 10.0.0.1/24"
    for key in ("first", "last"):
        text = getattr(nat, key)
        if text and (ip_address(text) not in own.network or ip_address(text) == own.ip):
            yield key, f"{text} is no guest's address in {own.network}", "leave it out: any of them"
    if nat.first and nat.last and int(ip_address(nat.first)) > int(ip_address(nat.last)):
        yield "last", f"{nat.last} is before {nat.first}", "exchange them"
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
    addresses = {f"bridge.{name}": bridge.address for name, bridge in settings.bridge.items()}
    addresses |= {f"nat.{name}": nat.address for name, nat in settings.nat.items()}
    networks = [(key, ip_interface(text).network) for key, text in addresses.items() if "/" in text]
    for (above, first), (other, second) in combinations(networks, 2):
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
