"""A host's bridges as files of systemd-networkd: what configured the ports configures the bridge.

Files that others made stay as they are: ours sort before them, and networkd takes the first that
matches (systemd.network(5)). The bridge has its first port's hardware address from the start, so
that DHCP servers and IPv6 know it again; networkd would make up one (systemd.netdev(5)).
"""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from pipeline.check.network import read_sections
from pipeline.dom0.setup.host_file import HostFile
from pipeline.dom0.setup.host_settings import Bridge, HostSettings, Nat
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.nat import UNITS, render_unit, unit_name

FOLDER = "/etc/systemd/network"
_FOLDERS = (FOLDER, "/run/systemd/network", "/usr/lib/systemd/network", "/lib/systemd/network")
# of [Network], what makes devices upon the port and speaks of its cable
_OF_PORT = {"VLAN", "MACVLAN", "MACVTAP", "IPVLAN", "Tunnel", "LLDP", "EmitLLDP", "BindCarrier"}
_HOLDERS = {"Bridge", "Bond", "VRF"}
_FAMILIES = {"yes": ("ipv4", "ipv6"), "true": ("ipv4", "ipv6"), "ipv4": ("ipv4",)}
_FAMILIES |= {"ipv6": ("ipv6",), "both": ("ipv4", "ipv6"), "v4": ("ipv4",), "v6": ("ipv6",)}

Section = tuple[str, list[tuple[str, str]]]


def network_file(name: str, port: str = "") -> str:
    """The .network file of a bridge, or of one of its ports."""
    return f"{FOLDER}/00-domu-{name}{f'-port-{port}' if port else ''}.network"


def list_network_files(settings: HostSettings) -> dict[str, str]:
    """Every bridge and port with the file that is to configure it."""
    files = {name: network_file(name) for name in (*settings.bridge, *settings.nat)}
    for name, bridge in settings.bridge.items():
        files |= {port: network_file(name, port) for port in bridge.ports}
    return files


def netdev_file(name: str) -> str:
    """The file that makes a bridge."""
    return f"{FOLDER}/00-domu-{name}.netdev"


def render_networkd(settings: HostSettings, host: HostView) -> Iterator[HostFile]:
    """The files of every bridge, of its ports, and the units of NAT."""
    for name, bridge in settings.bridge.items():
        sources = {port: _sections(host, find_network_file(host, port)) for port in bridge.ports}
        before = (
            _sections(host, network_file(name))
            if host.exists(network_file(name))
            else [section for sections in sources.values() for section in sections]
        )
        mac = host.read(f"/sys/class/net/{bridge.ports[0]}/address") if bridge.ports else None
        yield _file(netdev_file(name), _netdev(name, bridge, (mac or "").strip()))
        yield _file(network_file(name), _network(host, name, bridge, before))
        for port, sections in sources.items():
            kept = _sections(host, network_file(name, port)) or sections
            yield _file(network_file(name, port), _port(name, port, kept))
    for name, nat in settings.nat.items():
        yield _file(netdev_file(name), _netdev(name, Bridge(), ""))
        yield _file(network_file(name), _nat_network(name, nat))
        unit = f"{UNITS}/{unit_name(name)}"
        yield HostFile(unit, render_unit(name).encode())
        yield HostFile(f"{UNITS}/multi-user.target.wants/{unit_name(name)}", link=unit)


def find_network_file(host: HostView, port: str) -> str:
    """The file that configures a device without us: networkd's own word, else the first match."""
    index = (host.read(f"/sys/class/net/{port}/ifindex") or "").strip()
    state = host.read(f"/run/systemd/netif/links/{index}") if index else None
    said = re.search(r"^NETWORK_FILE=(/\S+)$", state or "", re.MULTILINE)
    if said and not is_ours(said[1]) and host.exists(said[1]):
        return said[1]
    return next((path for path in network_files(host) if _matches(host, path, port)), "")


def network_files(host: HostView) -> list[str]:
    """The .network files of others in networkd's order; of two with a name the first folder's."""
    paths: dict[str, str] = {}
    for folder in _FOLDERS:
        for path in host.find(f"{folder}/*.network"):
            paths.setdefault(PurePosixPath(path).name, path)
    return [paths[name] for name in sorted(paths) if not is_ours(paths[name])]


def is_ours(path: str) -> bool:
    """Whether a file is one that we render."""
    return path.startswith(f"{FOLDER}/00-domu-")


def _matches(host: HostView, path: str, port: str) -> bool:
    mac = (host.read(f"/sys/class/net/{port}/address") or "").strip()
    rules = read_sections(host.read(path) or "").get("Match", [])
    for key, value in rules:
        words = value.lstrip("!").split()
        if key == "Name":
            is_like = any(fnmatchcase(port, word) for word in words)
        elif key in ("MACAddress", "PermanentMACAddress"):
            is_like = mac.lower() in value.lower().split()
        else:  # of drivers, paths, ...: where it matches, networkd itself has said so
            is_like = (key, value) == ("Type", "ether")
        if is_like == value.startswith("!"):  # "!lo" is all others
            return False
    return bool(rules)


def _sections(host: HostView, path: str) -> list[Section]:
    """The sections of a file and of its drop-ins, but [Match]."""
    sections: list[Section] = []
    name = PurePosixPath(path).name
    more = [file for folder in _FOLDERS for file in host.find(f"{folder}/{name}.d/*.conf")]
    for file in [path, *sorted(more, key=lambda file: PurePosixPath(file).name)] if path else []:
        for part in re.split(r"^(?=\s*\[)", host.read(file) or "", flags=re.MULTILINE):
            sections += [section for section in read_sections(part).items() if section[0]]
    return [(name, settings) for name, settings in sections if name != "Match"]


def _netdev(name: str, bridge: Bridge, mac: str) -> str:
    lines = ["[NetDev]", f"Name={name}", "Kind=bridge"] + [f"MACAddress={mac}"] * bool(mac)
    lines += ["", "[Bridge]", f"STP={'yes' if bridge.stp else 'no'}"]
    lines += [f"ForwardDelaySec={bridge.fd}"]
    return _text(lines + [f"HelloTimeSec={bridge.hello}"] * bool(bridge.hello))


def _network(host: HostView, name: str, bridge: Bridge, before: list[Section]) -> str:
    """The bridge's: what dom0.toml says, each family by itself, and what the ports had."""
    said = [f"Address={address}" for address in bridge.address]
    said += [f"Gateway={way}" for way in (bridge.gateway, bridge.gateway6) if way]
    said += [f"DNS={server}" for server in bridge.dns]
    replaced = {version for version in (4, 6) if bridge.of_version(version)}
    replaced |= {4} if bridge.dhcp else set()
    inherited = [pair for section, pairs in before if section == "Network" for pair in pairs]
    inherited = [pair for pair in inherited if pair[0] not in _OF_PORT | _HOLDERS]
    families = [
        kind
        for key, value in inherited
        if key == "DHCP"
        for kind in _FAMILIES.get(value.lower(), ())
        if int(kind[-1]) not in replaced
    ] + ["ipv4"] * bridge.dhcp
    if families:
        said.append(f"DHCP={families[0] if len(set(families)) == 1 else 'yes'}")
    kept = [
        f"{key}={value}"
        for key, value in inherited
        if key != "DHCP" and not _is_replaced(key, value, bridge, replaced)
    ]
    lines = ["[Match]", f"Name={name}", ""]
    # nobody waits for a bridge that has no port before its guests are there
    lines += [] if bridge.ports else ["[Link]", "RequiredForOnline=no", ""]
    alone = [] if bridge.ports else ["ConfigureWithoutCarrier=yes"]
    lines += ["[Network]", *dict.fromkeys(said + kept + alone)]
    for section, pairs in before + _lease_identity(host, bridge, before):
        is_detour = section == "Route" and "Destination" in dict(pairs)
        is_kept = section not in ("Network", "Link") and not any(
            _is_replaced(key, value, bridge, replaced) for key, value in pairs if not is_detour
        )
        if is_kept:
            lines += ["", f"[{section}]", *(f"{key}={value}" for key, value in pairs)]
    return _text(lines)


def _lease_identity(host: HostView, bridge: Bridge, before: list[Section]) -> list[Section]:
    """The number by which DHCP knows the port (RFC 4361), as its lease says: it gets that again."""
    port = next(iter(bridge.ports), "")
    index = (host.read(f"/sys/class/net/{port}/ifindex") or "").strip() if port else ""
    lease = host.read(f"/run/systemd/netif/leases/{index}") if index else None
    said = re.search(r"^CLIENTID=ff([0-9a-f]{8})", lease or "", re.MULTILINE)
    known = any(key == "IAID" for name, pairs in before if name == "DHCPv4" for key, _ in pairs)
    return [("DHCPv4", [("IAID", str(int(said[1], 16)))])] if said and not known else []


def _is_replaced(key: str, value: str, bridge: Bridge, replaced: set[int]) -> bool:
    """Whether dom0.toml says something else in the place of a setting."""
    version = 6 if ":" in value else 4
    if key == "Gateway":
        return version in replaced and bool(bridge.gateway6 if version == 6 else bridge.gateway)
    if key == "DNS":
        return bool(bridge.dns)
    return key == "Address" and version in replaced


def _port(name: str, port: str, sections: list[Section]) -> str:
    lines = ["[Match]", f"Name={port}", ""]
    for section, pairs in sections:
        if section == "Link":
            lines += ["[Link]", *(f"{key}={value}" for key, value in pairs), ""]
    lines += ["[Network]", f"Bridge={name}"]
    kept = [pair for section, pairs in sections if section == "Network" for pair in pairs]
    return _text(lines + [f"{key}={value}" for key, value in kept if key in _OF_PORT])


def _nat_network(name: str, nat: Nat) -> str:
    lines = ["[Match]", f"Name={name}", "", "[Link]", "RequiredForOnline=no", "", "[Network]"]
    return _text(
        [*lines, f"Address={nat.address}", "LinkLocalAddressing=no", "ConfigureWithoutCarrier=yes"]
    )


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _file(path: str, text: str) -> HostFile:
    return HostFile(path, text.encode(errors="surrogateescape"))
