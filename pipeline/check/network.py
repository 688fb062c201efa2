"""The guest's network: the card in every configuration, the files inside (A7, A13)."""

import re
from collections.abc import Iterator

from pipeline.check.configuration import read_domains
from pipeline.check.facts import Facts, compare, judge
from pipeline.check.tree import Tree
from pipeline.errors import Finding
from pipeline.guest.interfaces_file import parse_stanzas, split_line
from pipeline.spec import GuestCard, Spec

_NETWORKD = "/etc/systemd/network"
_INTERFACES = "/etc/network/interfaces"
_RESOLVED = re.compile(r"(\.\.)?/run/systemd/resolve/(stub-)?resolv\.conf")


def check_cards(facts: Facts) -> Iterator[Finding]:
    """A7, A13: MAC and bridge of each card, in every rendering that could be read."""
    expected = [card.mac.lower() for card in facts.spec.cards]
    bridges = [card.device.bridge or "" for card in facts.spec.cards]
    domains = read_domains(facts)
    faults_mac, faults_bridge = [], []
    for name, domain in domains.items():
        macs = [card.mac or "none" for card in domain.cards]
        if macs != expected:
            faults_mac.append(f"{name}: {', '.join(macs)}")
        found = [card.bridge or "none" for card in domain.cards]
        if found != bridges:
            faults_bridge.append(f"{name}: {', '.join(found)}")
    yield judge("A7", "vif", faults_mac, ok=f"mac={', '.join(expected)}", hint="see the vif line")
    yield judge("A13", "bridge", faults_bridge, ok=", ".join(bridges), hint="see the vif line")


def check_network_files(facts: Facts) -> Iterator[Finding]:
    """A7: the guest configures its card by every name it can have, with the spec's addresses."""
    tool = facts.spec.suite_facts.network_tool(facts.spec.init)
    check = check_networkd if tool == "networkd" else check_ifupdown
    yield from check(facts.tree, facts.spec)
    yield _check_resolv_conf(facts.tree, facts.spec, tool)


def check_networkd(tree: Tree, spec: Spec) -> Iterator[Finding]:
    """One .network file a card matches both of its names, and no other file comes before it."""
    paths = tree.glob(f"{_NETWORKD}/*.network")
    for card in spec.cards:
        names = {f"eth{card.index}", f"enX{card.index}"}
        found = [path for path in paths if names & _matched_names(tree, path)]
        sections = read_sections(tree.text(found[0])) if found else {}
        missing = names - (_matched_names(tree, found[0]) if found else set())
        faults = [f"no file covers {' and '.join(sorted(missing))}"] if missing else []
        faults += [f"{path} matches it, too" for path in found[1:]]
        yield judge(
            "A7", f"card {card.index} names", faults, ok=" ".join(sorted(names)), hint=_NETWORKD
        )
        seen = _shown_network(sections)
        yield compare("A7", f"card {card.index} address", expected=_expected(card), seen=seen)
    wanted = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
    faults = [] if tree.has(wanted) else ["systemd-networkd is not enabled"]
    yield judge("A7", "network starts", faults, ok="systemd-networkd")


def check_ifupdown(tree: Tree, spec: Spec) -> Iterator[Finding]:
    """The card keeps the kernel's name, and interfaces(5) brings that one up."""
    stanzas, automatic = read_interfaces(tree.text(_INTERFACES))
    has_link = "NamePolicy=keep kernel" in tree.text(f"{_NETWORKD}/10-domu-network.link")
    for card in spec.cards:
        name = f"eth{card.index}"
        faults = [] if name in automatic else [f"{name} is not brought up at boot"]
        if spec.suite_facts.nic_naming == "enX" and not has_link:
            faults.append("udev will call it enX: 10-domu-network.link is missing")
        yield judge("A7", f"card {card.index} names", faults, ok=name, hint=_INTERFACES)
        seen = sorted(_shown_stanza(words) for words in stanzas.get(name, []))
        expected = "; ".join(sorted(_expected_stanzas(card)))
        yield compare("A7", f"card {card.index} address", expected=expected, seen="; ".join(seen))
    started = tree.glob("/etc/rcS.d/S[0-9][0-9]networking") or tree.glob(
        "/etc/systemd/system/*/networking.service"
    )
    faults = [] if started else ["nothing starts networking"]
    yield judge("A7", "network starts", faults, ok=(started or [""])[0])


def read_sections(text: str) -> dict[str, list[tuple[str, str]]]:
    """Section to its settings, of a systemd unit file; a section may come more than once."""
    sections: dict[str, list[tuple[str, str]]] = {}
    here = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            here = line.strip("[]")
        elif "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            sections.setdefault(here, []).append((key.strip(), value.strip()))
    return sections


def read_interfaces(text: str) -> tuple[dict[str, list[dict[str, str]]], set[str]]:
    """Stanzas of interfaces(5) by card, and the cards that are brought up by themselves."""
    stanzas: dict[str, list[dict[str, str]]] = {}
    automatic: set[str] = set()
    for stanza in parse_stanzas(text):
        if stanza.words[:1] in (["auto"], ["allow-auto"], ["allow-hotplug"]):
            automatic.update(stanza.words[1:])
        elif stanza.iface:
            options = [split_line(line) for line in stanza.options]
            keys = {words[0]: " ".join(words[1:]) for words in options if len(words) > 1}
            here = {"family": stanza.family, "method": stanza.method, **keys}
            stanzas.setdefault(stanza.iface, []).append(here)
    return stanzas, automatic


def network_names(tree: Tree, spec: Spec) -> frozenset[str]:
    """Names of cards that the guest's network set-up covers."""
    if spec.suite_facts.network_tool(spec.init) == "networkd":
        paths = tree.glob(f"{_NETWORKD}/*.network")
        return frozenset(name for path in paths for name in _matched_names(tree, path))
    return frozenset(read_interfaces(tree.text(_INTERFACES))[1]) - {"lo"}


def _matched_names(tree: Tree, path: str) -> set[str]:
    match = read_sections(tree.text(path)).get("Match", [])
    return {name for key, value in match if key == "Name" for name in value.split()}


def _shown_network(sections: dict[str, list[tuple[str, str]]]) -> str:
    settings = sections.get("Network", []) + sections.get("Link", [])
    return " ".join(sorted(f"{key}={value}" for key, value in settings)) or "nothing"


def _expected(card: GuestCard) -> str:
    words = ["DHCP=yes"] if card.dhcp else []
    words += [f"Address={address}" for address in card.addresses]
    words += [f"Gateway={gateway}" for gateway in (card.gateway, card.gateway6) if gateway]
    words += [f"DNS={server}" for server in card.nameservers]
    words += [f"MTUBytes={card.device.mtu}"] if card.device.mtu else []
    return " ".join(sorted(words)) or "nothing"


def _shown_stanza(stanza: dict[str, str]) -> str:
    known = ("family", "method", "address", "netmask", "gateway", "mtu")
    return " ".join(stanza[key] for key in known if key in stanza)


def _expected_stanzas(card: GuestCard) -> Iterator[str]:
    mtu = f" {card.device.mtu}" if card.device.mtu else ""
    if card.dhcp:
        yield f"inet dhcp{mtu}"
        mtu = ""
    with_gateway = {4: card.gateway, 6: card.gateway6}
    for address in card.addresses:
        four = address.version == 4
        gateway = with_gateway.pop(address.version, None)
        mask = address.netmask if four else address.network.prefixlen
        text = f"{'inet' if four else 'inet6'} static {address.ip} {mask}"
        yield text + (f" {gateway}" if gateway else "") + mtu
        mtu = ""
    if not card.dhcp and not card.addresses:
        yield "inet manual"


def _check_resolv_conf(tree: Tree, spec: Spec, tool: str) -> Finding:
    path, target = "/etc/resolv.conf", tree.target("/etc/resolv.conf")
    if tool == "networkd":
        faults = [] if _RESOLVED.fullmatch(target) else [target or "a file of the builder's"]
        return judge("A7", "resolv.conf", faults, ok="systemd-resolved's")
    wanted = list(dict.fromkeys(str(name) for card in spec.cards for name in card.nameservers))
    seen = re.findall(r"^[ \t]*nameserver[ \t]+(\S+)", tree.text(path), re.MULTILINE)
    expected = " ".join(wanted) or "none until DHCP names one"
    return compare(
        "A7", "resolv.conf", expected=expected, seen=" ".join(seen) or "none until DHCP names one"
    )


CHECKS = (check_cards, check_network_files)
