"""ClashError among the keys of the network cards."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.spec.clashes import Clash
from pipeline.spec.network import AnyInterface, CardKeys, derive_mac, read_addresses

if TYPE_CHECKING:
    from pipeline.spec.model import Spec


def find_card_clashes(spec: Spec) -> Iterator[Clash]:
    """Every clash in every card, then what two cards may not share."""
    cards: list[tuple[str, CardKeys]] = [("", spec)]
    cards += [(f"interfaces[{index}].", card) for index, card in enumerate(spec.interfaces)]
    for prefix, card in cards:
        for clash in _check_card(card, is_hvm=spec.type == "hvm"):
            yield Clash(prefix + clash.key, clash.message, clash.hint, clash.others)
    yield from _find_repeated(spec, cards)


def _check_card(card: CardKeys, *, is_hvm: bool) -> Iterator[Clash]:
    yield from _check_dhcp(card)
    if card.model and not is_hvm:
        yield Clash("model", "only an HVM guest has an emulated card", "leave it out", ("type",))
    if bare := _without_prefix(card):
        yield bare
        return
    if _needs_no_netmask(card):
        yield Clash(
            "netmask", "no IPv4 address without a prefix length", "leave it out", ("address",)
        )
    addresses = read_addresses(card)
    yield from _check_gateway("gateway", card.gateway, addresses)
    yield from _check_gateway("gateway6", card.gateway6, addresses)
    for address in addresses:
        if _is_unusable(address):
            yield Clash("address", f"{address} is not an address that a host can have")
    if card.mtu is not None and card.mtu < 1280 and any(one.version == 6 for one in addresses):
        yield Clash("mtu", f"IPv6 needs at least 1280, not {card.mtu}", "", ("address",))


def _check_dhcp(card: CardKeys) -> Iterator[Clash]:
    if card.dhcp:
        for key in ("address", "netmask", "gateway", "gateway6"):
            if getattr(card, key):
                yield Clash(
                    key,
                    "given although dhcp is on",
                    "leave it out, or write dhcp = false",
                    ("dhcp",),
                )


def _without_prefix(card: CardKeys) -> Clash | None:
    for text in card.address:
        if "/" not in text and (":" in text or not card.netmask):
            right = f"{text}/64" if ":" in text else f"{text}/24"
            return Clash("address", f"'{text}' has no prefix length", f"write it as {right}")
    return None


def _needs_no_netmask(card: CardKeys) -> bool:
    bare = [text for text in card.address if "/" not in text and ":" not in text]
    return bool(card.netmask and card.address and not bare)


def _is_unusable(address: AnyInterface) -> bool:
    ip, network = address.ip, address.network
    if ip.is_multicast or ip.is_unspecified or ip.is_loopback:
        return True
    edges = (network.network_address, network.broadcast_address)
    return address.version == 4 and network.prefixlen < 31 and ip in edges


def _check_gateway(key: str, text: str, addresses: tuple[AnyInterface, ...]) -> Iterator[Clash]:
    if not text:
        return
    gateway = ipaddress.ip_address(text)
    own = [address for address in addresses if address.version == gateway.version]
    if any(address.ip == gateway for address in own):
        yield Clash(key, f"{text} is the guest's own address", "", ("address",))
    # a /32 or /128 has its gateway on the link: the usual thing at hosting companies
    reached = [one for one in own if gateway in one.network or one.network.num_addresses == 1]
    if not reached and not gateway.is_link_local:
        networks = ", ".join(str(address.network) for address in own) or "no address of its kind"
        yield Clash(
            key,
            f"{text} cannot be reached from {networks}",
            "write a gateway in the network of address",
            ("address", "netmask", "dhcp"),
        )


def _find_repeated(spec: Spec, cards: list[tuple[str, CardKeys]]) -> Iterator[Clash]:
    seen: dict[tuple[str, str], str] = {}
    for index, (prefix, card) in enumerate(cards):
        shared = {"mac": card.mac or derive_mac(spec.name, index), "vifname": card.vifname}
        for key, value in shared.items():
            if value and (key, value) in seen:
                yield Clash(
                    prefix + key, f"{value} is already that of {seen[key, value]}", "", (key,)
                )
            seen.setdefault((key, value), f"card {index}")
        for text in card.address:
            ip = text.partition("/")[0]
            if ("address", ip) in seen:
                yield Clash(prefix + "address", f"{ip} is already that of {seen['address', ip]}")
            seen.setdefault(("address", ip), f"card {index}")
