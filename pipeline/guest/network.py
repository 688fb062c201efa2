"""The guest's network files, right whether the card is called eth0 or enX0.

systemd 250 and later name a Xen card enX<n>, the kernel and older ones eth<n>; with ifupdown the
element domu-network keeps the kernel's name. Sources: systemd.network(5), interfaces(5).
"""

from pipeline.guest.interfaces_file import static_lines
from pipeline.spec import GuestCard, Spec


def network_files(spec: Spec) -> dict[str, str]:
    """Path -> text of every network file of this guest."""
    if spec.suite_facts.network_tool(spec.init) == "networkd":
        return {
            f"/etc/systemd/network/10-card{card.index}.network": render_networkd(card)
            for card in spec.cards
        }
    return {"/etc/network/interfaces": render_interfaces(spec), **resolver_files(spec)}


def resolver_files(spec: Spec) -> dict[str, str]:
    """resolv.conf(5) where name servers are given and no service of the guest writes it."""
    nameservers = [str(server) for card in spec.cards for server in card.nameservers]
    if nameservers:
        domain_name = spec.fqdn.partition(".")[2]
        domain = f"search {domain_name}\n" if domain_name else ""
        servers = "".join(f"nameserver {server}\n" for server in dict.fromkeys(nameservers))
        return {"/etc/resolv.conf": domain + servers}
    return {}


def render_networkd(card: GuestCard) -> str:
    """One systemd.network(5) file, matched by both names that the card can have."""
    lines = ["[Match]", f"Name=eth{card.index} enX{card.index}", ""]
    if card.device.mtu:
        lines += ["[Link]", f"MTUBytes={card.device.mtu}", ""]
    lines.append("[Network]")
    if card.dhcp:
        # the guest's name and zone are its own; asking would start hostnamed at every boot
        lines.append("DHCP=yes")
    lines += [f"Address={address}" for address in card.addresses]
    lines += [f"Gateway={gateway}" for gateway in (card.gateway, card.gateway6) if gateway]
    lines += [f"DNS={server}" for server in card.nameservers]
    if card.dhcp:
        lines += ["", "[DHCPv4]", "UseHostname=no", "UseTimezone=no"]
    return "\n".join(lines) + "\n"


def render_interfaces(spec: Spec, *, both_names: bool = False) -> str:
    """/etc/network/interfaces for ifupdown: one stanza an address.

    With `both_names` a card is brought up when it comes, as eth0 or as enX0.
    """
    blocks = ["auto lo\niface lo inet loopback\n"]
    for card in spec.cards:
        names = [f"{kind}{card.index}" for kind in (("eth", "enX") if both_names else ("eth",))]
        word = "allow-hotplug" if both_names else "auto"
        blocks += [f"{word} {name}\n" + "\n".join(_stanzas(name, card)) for name in names]
    return "\n".join(blocks)


def _stanzas(name: str, card: GuestCard) -> list[str]:
    stanzas = [f"iface {name} inet dhcp\n"] if card.dhcp else []
    seen: set[int] = set()
    for address in card.addresses:
        first = address.version not in seen
        seen.add(address.version)
        gateway = card.gateway if address.version == 4 else card.gateway6
        stanzas.append("\n".join([*static_lines(name, address, gateway if first else None), ""]))
    if card.device.mtu and stanzas:
        stanzas[0] += f"    mtu {card.device.mtu}\n"
    return stanzas or [f"iface {name} inet manual\n"]
