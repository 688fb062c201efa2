"""Types of spec values: names and addresses of the network."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, StrictStr

from pipeline.spec.mistakes import WrongValueError

_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")  # IFNAMSIZ is 16 with the final NUL
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}")
_RATE = re.compile(r"[0-9]+(\.[0-9]+)?[GMK]?[Bb]/s(@[0-9]+(us|ms|s))?")


def _without_zone(text: str) -> str:
    """Python takes anything after the % of fe80::1%eth0; a guest's card has no name here."""
    if "%" in text:
        raise ValueError("an address with a zone")
    return text


def check_interface(text: str) -> str:
    """A bridge or interface of the host: at most 15 characters."""
    if not _INTERFACE.fullmatch(text):
        raise WrongValueError(
            f"{text!r} is not an interface name", "at most 15 of A-Z a-z 0-9 _ . -"
        )
    return text


def check_mac(text: str) -> str:
    """A card's MAC address, in capitals with colons: unicast and not all zero."""
    if not _MAC.fullmatch(text):
        raise WrongValueError(f"'{text}' is not a MAC address", "write it as 00:16:3E:59:2A:ED")
    mac = text.upper().replace("-", ":")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise WrongValueError(
            f"'{text}' cannot be a card's MAC address", "the first byte is even, as in 00:16:3E"
        )
    return mac


def check_address(text: str) -> str:
    """An IPv4 or IPv6 address with or without its prefix length."""
    try:
        ipaddress.ip_interface(_without_zone(text))
    except ValueError as error:
        raise WrongValueError(
            f"'{text}' is not an address", "write it as 192.168.1.10/24 or 2001:db8::5/64"
        ) from error
    return text


def _check_ip(text: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> str:
    try:
        kind(_without_zone(text))
    except ValueError as error:
        right = "192.168.1.1" if kind is ipaddress.IPv4Address else "2001:db8::1"
        name = "IPv4" if kind is ipaddress.IPv4Address else "IPv6"
        raise WrongValueError(
            f"'{text}' is not an {name} address", f"write it as {right}"
        ) from error
    return text


def check_gateway(text: str) -> str:
    """An IPv4 address."""
    return _check_ip(text, ipaddress.IPv4Address)


def check_gateway6(text: str) -> str:
    """An IPv6 address; link-local ones are usual here."""
    return _check_ip(text, ipaddress.IPv6Address)


def check_netmask(text: str) -> str:
    """An IPv4 netmask, as in 255.255.255.0."""
    try:
        if str(ipaddress.IPv4Network(f"0.0.0.0/{text}").netmask) != text:
            raise ValueError(text)
    except ValueError as error:
        raise WrongValueError(f"'{text}' is not a netmask", "write it as 255.255.255.0") from error
    return text


def check_nameserver(text: str) -> str:
    """An address of either family, without a prefix."""
    try:
        ipaddress.ip_address(_without_zone(text))
    except ValueError as error:
        raise WrongValueError(f"'{text}' is not an address", "write it as 192.168.1.1") from error
    return text


def check_rate(text: str) -> str:
    """A limit of a card's traffic as xl-network-configuration(5) writes it."""
    if not _RATE.fullmatch(text):
        raise WrongValueError(f"'{text}' is not a rate", "write it as 10Mb/s, 1MB/s@20ms")
    return text


Interface = Annotated[StrictStr, AfterValidator(check_interface)]
MacAddress = Annotated[StrictStr, AfterValidator(check_mac)]
Address = Annotated[StrictStr, AfterValidator(check_address)]
Gateway = Annotated[StrictStr, AfterValidator(check_gateway)]
Gateway6 = Annotated[StrictStr, AfterValidator(check_gateway6)]
Netmask = Annotated[StrictStr, AfterValidator(check_netmask)]
NameServer = Annotated[StrictStr, AfterValidator(check_nameserver)]
Rate = Annotated[StrictStr, AfterValidator(check_rate)]
