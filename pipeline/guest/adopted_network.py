"""The network files of a guest whose tree was adopted, for the tool that its system has.

Sources: netplan(5), nm-settings-keyfile(5), interfaces(5). Every card is known by both names that
it can have under Xen, eth0 and enX0.
"""

from pipeline.guest.adopted_tree import Adopted
from pipeline.guest.network import render_interfaces, render_networkd, resolver_files
from pipeline.spec import GuestCard, Spec

_BY_DHCP = " inet dhcp\n"
CONNECTIONS = "/etc/NetworkManager/system-connections/"


def adopted_network_files(spec: Spec, adopted: Adopted) -> dict[str, str]:
    """Path -> text of every network file."""
    if adopted.network == "ifupdown":
        text = render_interfaces(spec, both_names=adopted.is_systemd)
        if not adopted.is_systemd:  # BusyBox' udhcpc sends a host name where it is told one
            text = text.replace(_BY_DHCP, f"{_BY_DHCP}    hostname {spec.short_hostname}\n")
        return {"/etc/network/interfaces": text, **resolver_files(spec)}
    form, render = {
        "networkd": ("/etc/systemd/network/10-card{}.network", render_networkd),
        "netplan": ("/etc/netplan/10-card{}.yaml", render_netplan),
        "NetworkManager": (f"{CONNECTIONS}card{{}}.nmconnection", render_connection),
    }[adopted.network]
    return {form.format(card.index): render(card) for card in spec.cards}


def render_netplan(card: GuestCard) -> str:
    """One netplan file; JSON's strings are YAML's."""
    lines = ["network:", "  version: 2", "  ethernets:", f"    card{card.index}:"]
    lines += ["      match:", f'        name: "e[tn][hX]{card.index}"']
    lines.append(f"      dhcp4: {'true' if card.dhcp else 'false'}")
    if card.device.mtu:
        lines.append(f"      mtu: {card.device.mtu}")
    if card.addresses:
        lines += ["      addresses:", *(f'        - "{address}"' for address in card.addresses)]
    gateways = [(name, gate) for name, gate in _gateways(card) if gate]
    if gateways:
        lines.append("      routes:")
        for net, gateway in gateways:
            lines += [f'        - to: "{net}"', f'          via: "{gateway}"']
            lines.append("          on-link: true")
    if card.nameservers:
        lines += ["      nameservers:", "        addresses:"]
        lines += [f'          - "{server}"' for server in card.nameservers]
    return "\n".join(lines) + "\n"


def _gateways(card: GuestCard) -> tuple[tuple[str, object], ...]:
    return ("0.0.0.0/0", card.gateway), ("::/0", card.gateway6)


def render_connection(card: GuestCard) -> str:
    """One keyfile of NetworkManager."""
    lines = ["[connection]", f"id=card{card.index}", "type=ethernet", "autoconnect=true", ""]
    lines += ["[match]", f"interface-name=eth{card.index};enX{card.index};", ""]
    if card.device.mtu:
        lines += ["[ethernet]", f"mtu={card.device.mtu}", ""]
    for version, gateway in ((4, card.gateway), (6, card.gateway6)):
        addresses = [str(address) for address in card.addresses if address.version == version]
        servers = [name for name in card.nameservers if (":" in name) == (version == 6)]
        method = "manual" if addresses else "auto" if card.dhcp or version == 6 else "disabled"
        lines += [f"[ipv{version}]", f"method={method}"]
        lines += [f"address{number}={text}" for number, text in enumerate(addresses, start=1)]
        lines += [f"gateway={gateway}"] if gateway else []
        lines += [f"dns={';'.join(servers)};"] if servers else []
        lines.append("")
    return "\n".join(lines)
