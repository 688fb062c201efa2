"""Network cards: the keys of one card, and a card as it will be."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

from pipeline.spec import addresses, values

AnyInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
_XEN_OUI = "00:16:3E"


class CardKeys(BaseModel):
    """Network: the guest's first card. Further cards are tables of these keys in `interfaces`."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    dhcp: StrictBool = Field(
        True, description="Ask for an address by DHCP. Default: true when no address is given."
    )
    address: Annotated[tuple[addresses.Address, ...], values.AsList] = Field(
        (),
        description="Fixed addresses, IPv4 and IPv6, each with its prefix length.",
        examples=[["192.168.1.10/24"], ["192.168.1.10/24", "2001:db8::5/64"]],
    )
    netmask: addresses.Netmask = Field(
        "",
        description="Netmask of the IPv4 addresses that are given without a prefix length.",
        examples=["255.255.255.0"],
    )
    gateway: addresses.Gateway = Field(
        "", description="IPv4 gateway, in the network of an address.", examples=["192.168.1.1"]
    )
    gateway6: addresses.Gateway6 = Field(
        "", description="IPv6 gateway, in such a network or link-local.", examples=["fe80::1"]
    )
    nameservers: Annotated[tuple[addresses.NameServer, ...], values.AsList] = Field(
        (),
        description="Name servers. With DHCP they are asked besides those of the lease.",
        examples=[["192.168.1.1", "2001:db8::53"]],
    )
    bridge: addresses.Interface = Field(
        "br-xen", description="The host's bridge that the card joins.", examples=["br-xen"]
    )
    mac: addresses.MacAddress = Field(
        "",
        description=(
            "MAC address. Default: 00:16:3E and three bytes of sha256('NAME/INDEX'), NAME being the"
            " guest's name and INDEX the card's number from 0: the same at every build."
        ),
        examples=["00:16:3E:59:2A:ED"],
    )
    vifname: addresses.Interface = Field(
        "", description="Name of the interface in the host.", examples=["vif-web1"]
    )
    mtu: Annotated[StrictInt, Field(ge=68, le=65535)] | None = Field(
        None, description="Largest packet in bytes, set on both sides.", examples=[1500]
    )
    rate: addresses.Rate = Field(
        "", description="Limit of what the guest sends.", examples=["10Mb/s", "1MB/s@20ms"]
    )
    model: Literal["", "e1000", "rtl8139", "virtio-net"] = Field(
        "", description="The card that QEMU shows to an HVM guest; only with type = 'hvm'."
    )

    @model_validator(mode="before")
    @classmethod
    def _choose_dhcp(cls, given: Any) -> Any:
        if isinstance(given, dict) and "dhcp" not in given:
            return {**given, "dhcp": not given.get("address")}
        return given


@dataclass(frozen=True, kw_only=True)
class Card:
    """One card of a guest, with every default filled in; `index` counts from 0."""

    index: int
    dhcp: bool
    addresses: tuple[AnyInterface, ...]
    gateway: ipaddress.IPv4Address | None
    gateway6: ipaddress.IPv6Address | None
    nameservers: tuple[str, ...]
    bridge: str
    mac: str
    vifname: str
    mtu: int | None
    rate: str
    model: str


def derive_mac(name: str, index: int) -> str:
    """The MAC of a guest's card: Xen's prefix and three bytes of sha256('NAME/INDEX')."""
    digest = hashlib.sha256(f"{name}/{index}".encode()).digest()
    return ":".join([_XEN_OUI, *(f"{byte:02X}" for byte in digest[:3])])


def read_addresses(keys: CardKeys) -> tuple[AnyInterface, ...]:
    """The card's addresses, the netmask applied to those IPv4 ones that have no prefix."""
    texts = [
        f"{text}/{keys.netmask}" if keys.netmask and "/" not in text and ":" not in text else text
        for text in keys.address
    ]
    return tuple(ipaddress.ip_interface(text) for text in texts)


def resolve_card(keys: CardKeys, *, name: str, index: int) -> Card:
    """A card with its defaults filled in."""
    return Card(
        index=index,
        dhcp=keys.dhcp,
        addresses=read_addresses(keys),
        gateway=ipaddress.IPv4Address(keys.gateway) if keys.gateway else None,
        gateway6=ipaddress.IPv6Address(keys.gateway6) if keys.gateway6 else None,
        nameservers=keys.nameservers,
        bridge=keys.bridge,
        mac=keys.mac or derive_mac(name, index),
        vifname=keys.vifname,
        mtu=keys.mtu,
        rate=keys.rate,
        model=keys.model,
    )
