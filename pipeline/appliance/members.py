"""An appliance's members as guests: their specs, named APPLIANCE-KEY, out of all the layers.

What an appliance says of a member wins over the file of its spec, and what follows from the
appliance (bridges, replicated and shared disks) is added to it.
"""

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.appliance.appliance_file import ApplianceFile, Replicated, read_appliance_file
from pipeline.errors import Finding, SpecError, UsageError, suggest_nearest
from pipeline.project import Project
from pipeline.spec import Spec, Specs, list_guests, load_all
from pipeline.spec.layers import OWN_KEYS, Layer, read_file_layer
from pipeline.spec.load import Further

_LONGEST_DEVICE = 15
# what says nothing without an address that belongs to one guest alone
_OF_ADDRESS = ("netmask", "gateway", "gateway6")
_NOTHING: Mapping[str, str] = {}


def name_bridge(appliance: str, network: str) -> str:
    """The bridge of a private network that names none: at most 15 letters (ip-link(8))."""
    name = f"{appliance}-{network}"
    if len(name) <= _LONGEST_DEVICE:
        return name
    return f"{name[:8]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


@dataclass(frozen=True)
class Appliance:
    """An appliance with its members' specs, by their keys in the file."""

    name: str
    file: ApplianceFile
    members: Mapping[str, Spec]

    @property
    def description(self) -> str:
        """What it is for."""
        return self.file.description

    @property
    def bridges(self) -> dict[str, str]:
        """The private bridges that the host has to have, by the network's name."""
        return bridges_of(self.name, self.file)

    def start_order(self) -> tuple[str, ...]:
        """The members' keys, each behind those that it waits for."""
        return self.file.start_order()


def bridges_of(name: str, file: ApplianceFile) -> dict[str, str]:
    """The bridge of each network."""
    return {
        network: told.bridge or name_bridge(name, network)
        for network, told in file.networks.items()
    }


@dataclass
class Appliances:
    """The appliances of a site that can be read, their members' layers, and what is wrong."""

    files: dict[str, ApplianceFile] = field(default_factory=dict)
    guests: dict[str, Further] = field(default_factory=dict)
    problems: dict[str, list[Finding]] = field(default_factory=dict)

    def guests_of(self, name: str) -> tuple[str, ...]:
        """The names of an appliance's guests, in the order in which they start.

        Raises SpecError for one that cannot be read, UsageError where there is none of that name.
        """
        if name in self.problems:
            raise SpecError(self.problems[name])
        if name not in self.files:
            known = sorted({*self.files, *self.problems})
            hints = [suggest_nearest(name, known), f"appliances: {', '.join(known) or 'none'}"]
            hint = "; ".join(filter(None, hints))
            raise UsageError(f"there is no appliance '{name}'", hint=hint)
        return tuple(name_guest(name, key) for key in self.files[name].start_order())

    def make(self, name: str, specs: Mapping[str, Spec]) -> Appliance:
        """The appliance, out of the specs of all guests, which hold its members'."""
        keys = self.files[name].members
        return Appliance(
            name, self.files[name], {key: specs[name_guest(name, key)] for key in keys}
        )


def name_guest(appliance: str, key: str) -> str:
    """The name of a member as a guest."""
    return f"{appliance}-{key}"


def read_appliances(project: Project) -> Appliances:
    """Every appliance's file; a mistake in one stops it alone."""
    known = Appliances()
    paths = sorted(project.appliances.glob("*.toml")) if project.appliances.is_dir() else []
    guests = list_guests(project.guests) if paths else []
    for path in paths:
        try:
            file = read_appliance_file(path)
        except SpecError as error:
            known.problems[path.stem] = error.problems
            continue
        known.files[path.stem] = file
        for key in file.members:
            guest = name_guest(path.stem, key)
            known.guests[guest] = _make_guest(path, file, key, project.guests, guests)
    return known


def load_appliance(
    project: Project, name: str, overrides: Mapping[str, str] = _NOTHING
) -> Appliance:
    """An appliance with its members' specs; raises SpecError with every mistake."""
    known = read_appliances(project)
    names = known.guests_of(name)
    specs: Specs = load_all(project.guests, names, overrides, known.guests)
    return known.make(name, specs)


def _make_guest(
    path: Path, file: ApplianceFile, key: str, guests_dir: Path, guests: list[str]
) -> Further:
    """A member's layers: the file of its spec without what is that guest's own, and its table."""
    source = f"{path.parent.name}/{path.name}"
    member, at = file.members[key], f"members.{key}"
    problems: list[Finding] = []
    guest = name_guest(path.stem, key)
    if guest in guests:
        message = f"there is a guest {guest} already: {guests_dir.name}/{guest}.toml"
        problems.append(Finding("error", at, message, "rename one of them", source=source))
    layers = []
    if member.spec in guests:
        layers.append(_read_common(guests_dir / f"{member.spec}.toml", member.keys, problems))
    else:
        hints = (suggest_nearest(member.spec, guests), f"guests: {', '.join(guests) or 'none'}")
        message = f"there is no guest '{member.spec}'"
        hint = "; ".join(filter(None, hints))
        problems.append(Finding("error", f"{at}.spec", message, hint, source=source))
    values = {"description": file.description, **member.keys}
    mistakes = [
        *_place_cards(path.stem, file, values),
        *_add_replicated(path.stem, file, key, values),
        *_add_shared(path.stem, file, key, values),
    ]
    problems += [
        replace(mistake, subject=f"{at}.{mistake.subject}", source=source) for mistake in mistakes
    ]
    layers.append(Layer(f"{source}: {at}", path.parent, values))
    return Further(tuple(layers), tuple(problems))


def _read_common(path: Path, given: Mapping[str, Any], problems: list[Finding]) -> Layer:
    """A guest's file without what belongs to that guest alone."""
    layer = read_file_layer(path, problems)
    gone = set(OWN_KEYS)
    if "address" in layer.values and "address" not in given:
        gone.update(_OF_ADDRESS)
    kept = {key: value for key, value in layer.values.items() if key not in gone}
    return replace(layer, values=kept)


def _place_cards(appliance: str, file: ApplianceFile, values: dict[str, Any]) -> Iterator[Finding]:
    """The bridge in the place of each card's `network`; one that asks nobody needs an address."""
    bridges = bridges_of(appliance, file)
    yield from _place_card(values, bridges, "")
    listed = values.get("interfaces")
    if isinstance(listed, list):
        cards = [dict(card) if isinstance(card, dict) else card for card in listed]
        values["interfaces"] = cards
        for number, card in enumerate(cards):
            if isinstance(card, dict):
                yield from _place_card(card, bridges, f"interfaces[{number}].")


def _place_card(card: dict[str, Any], bridges: Mapping[str, str], prefix: str) -> Iterator[Finding]:
    if "network" not in card:
        return
    network = card.pop("network")
    if network not in bridges:
        hint = suggest_nearest(str(network), bridges) or "write [networks.NAME]"
        yield Finding("error", f"{prefix}network", f"there is no network {network!r}", hint)
    elif "bridge" in card:
        message = f"{network} is a bridge already"
        yield Finding("error", f"{prefix}bridge", message, "leave bridge out, or network")
    else:
        card["bridge"] = bridges[network]
        if "address" not in card and "dhcp" not in card:
            message = f"nobody gives addresses in {network}"
            hint = 'write address = "10.77.0.1/24", or dhcp = true where a member does'
            yield Finding("error", f"{prefix}address", message, hint)


def find_address(file: ApplianceFile, key: str, network: str) -> str:
    """A member's first address in a network, without its prefix; "" where it has none there."""
    keys = file.members[key].keys
    listed = keys.get("interfaces", [])
    cards = [keys, *(listed if isinstance(listed, list) else [])]
    for card in cards:
        given = card.get("address", []) if isinstance(card, dict) else []
        addresses = [given] if isinstance(given, str) else given
        if isinstance(card, dict) and card.get("network") == network and addresses:
            try:
                return str(ipaddress.ip_interface(str(addresses[0])).ip)
            except ValueError:
                return ""  # its own key is reported
    return ""


def _add_replicated(
    appliance: str, file: ApplianceFile, key: str, values: dict[str, Any]
) -> Iterator[Finding]:
    """What a node of each replicated resource has to know: the spec's tables `replicated`."""
    mine = {name: each for name, each in file.replicated.items() if key in each.members}
    if not mine:
        return
    if "replicated" in values:
        yield Finding("error", "replicated", "the appliance says it", "leave it out")
    tables = []
    for name, resource in mine.items():
        own = find_address(file, key, resource.network)
        if not own:
            message = f"{name} is replicated over {resource.network}: it has no address there"
            hint = f'interfaces = [{{ network = "{resource.network}", address = "10.77.0.1/29" }}]'
            yield Finding("error", "interfaces", message, hint)
        node = _describe_node(appliance, file, key, name, resource)
        if own and node["peer_address"]:  # else the peer's own table is told
            tables.append(node)
    values["replicated"] = tables


def _add_shared(
    appliance: str, file: ApplianceFile, key: str, values: dict[str, Any]
) -> Iterator[Finding]:
    """The spec's tables `shared`: each disk lies with the first of its members."""
    mine = {name: each for name, each in file.shared.items() if key in each.members}
    if mine and "shared" in values:
        yield Finding("error", "shared", "the appliance says it", "leave it out")
    if mine:
        values["shared"] = [
            {"name": name, "size": disk.size, "owner": name_guest(appliance, disk.members[0])}
            for name, disk in mine.items()
        ]


def _describe_node(
    appliance: str, file: ApplianceFile, key: str, name: str, resource: Replicated
) -> dict[str, Any]:
    peer = next(other for other in resource.members if other != key)
    return {
        "name": name,
        "pair": appliance,
        "size": resource.size,
        "port": resource.port,
        "minor": resource.minor,
        "protocol": resource.protocol,
        "address": find_address(file, key, resource.network),
        "peer": str(file.members[peer].keys.get("hostname", name_guest(appliance, peer))),
        "peer_address": find_address(file, peer, resource.network),
        "after_0pri": resource.split_brain.after_0pri,
        "after_1pri": resource.split_brain.after_1pri,
        "after_2pri": resource.split_brain.after_2pri,
    }
