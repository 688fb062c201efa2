"""Values that a spec and a toolstack's configuration share, each judged by one function.

A check returns the value in the form that is kept, or raises WrongValueError: what is wrong and,
apart from it, what would be right.
"""

import ipaddress
import re
import uuid
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

from pipeline.errors import WrongValueError

StopAction = Literal["destroy", "restart", "rename-restart", "preserve"]
CrashAction = Literal[
    "destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart"
]
DomainType = Literal["pv", "pvh", "hvm"]
DiskFormat = Literal["raw", "qcow2", "vhd"]
Version = tuple[int, int]
Kept = TypeVar("Kept")
Show = Callable[[int], str]

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\..*)?")
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}")
_WORD = "[A-Za-z0-9][A-Za-z0-9_-]{0,31}"
# libxlu_vif.c; it takes a number that begins with 0 for an octal one
_RATE = re.compile(
    r"(?P<number>[1-9][0-9]{0,9})(?P<scale>[GMK]?)(?P<unit>[Bb])/s(@[1-9][0-9]{0,5}(us|ms|s))?"
)
_BOOT_ORDER = re.compile(r"[acdn]{1,4}")  # a is a floppy, which our model has not
_SCALES = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3}


class Unsupported(WrongValueError):
    """The target cannot express this, or would ignore it; the message says which and why."""

    def __init__(self, message: str, hint: str = "", *, key: str = "") -> None:
        super().__init__(message, hint)
        self.key = key  # which the message names in its own words


class SyntaxFault(ValueError):
    """A configuration text that the target's own parser would refuse; the message has the line."""


def check_key(key: str, check: Callable[[Kept], Kept], value: Kept) -> Kept:
    """The value as `check` keeps it; what is wrong with it names `key`."""
    try:
        return check(value)
    except WrongValueError as mistake:
        raise type(mistake)(mistake.message, mistake.hint, key=key) from None


def check_text(text: str) -> str:
    """Text without control characters, lone surrogates and white space at the ends."""
    for character in text:
        if ord(character) < 32 or ord(character) == 127 or 0xD800 <= ord(character) < 0xE000:
            raise WrongValueError(f"{text!r} holds a character that no target can carry")
        if ord(character) in (0x85, 0x2028, 0x2029, 0xFFFE, 0xFFFF):
            raise WrongValueError(f"{text!r} holds a line separator or non-character")
    if text != text.strip():
        raise WrongValueError(f"{text!r} begins or ends with white space")
    return text


def check_file_path(text: str) -> str:
    """The absolute path of a file or a device, in text that a target can carry."""
    check_text(text)
    if not text.startswith("/"):
        raise WrongValueError(f"{text!r} is not an absolute path", "write it as /boot/vmlinuz-6.1")
    if text.endswith("/"):
        raise WrongValueError(f"{text!r} is a directory, not a file or a device")
    return text


def check_choice(key: str, text: str, choices: tuple[str, ...]) -> None:
    """One of the choices."""
    if text not in choices:
        raise WrongValueError(f"{text!r} is not one of {', '.join(choices)}", key=key)


def check_range(number: int, least: int, most: int, key: str = "") -> int:
    """A number from `least` to `most`, both included."""
    if not least <= number <= most:
        raise WrongValueError(f"{number} is not between {least} and {most}", key=key)
    return number


def check_most(key: str, most: int, least_key: str, least: int, show: Show = str) -> None:
    """What may be reached later is not less than what is there from the beginning."""
    if most < least:
        raise WrongValueError(f"{show(most)} is less than {least_key} = {show(least)}", key=key)


def check_uuid(text: str) -> str:
    """A UUID, in lower case with dashes."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise WrongValueError(f"{text!r} is not a UUID", "write it as uuidgen does") from None


def matching(pattern: str, what: str, hint: str = "") -> Callable[[str], str]:
    """A check that a text has this form whole; `what` is said of any other."""
    form = re.compile(pattern)

    def check(text: str) -> str:
        if not form.fullmatch(text):
            raise WrongValueError(f"{text!r} {what}", hint)
        return text

    return check


check_vcpus = partial(check_range, least=1, most=512)
check_cpu_weight = partial(check_range, least=1, most=65535)
check_mtu = partial(check_range, least=68, most=65535)  # bytes of a card's largest packet
check_display = partial(check_range, least=0, most=65535 - 5900)  # VNC: its port is 5900 more
# processors of the host that a guest may run on, as xl, xm and libvirt write them
check_cpus = matching(
    r"\^?[0-9]{1,4}(-[0-9]{1,4})?(,\^?[0-9]{1,4}(-[0-9]{1,4})?){0,63}",
    "is no list of processors",
    "write it as 0-3,^1",
)
# IFNAMSIZ is 16 with the final NUL
check_interface = matching(
    "[A-Za-z0-9][A-Za-z0-9_.-]{0,14}",
    "is not an interface name",
    "at most 15 of A-Z a-z 0-9 _ . -",
)
check_keymap = matching(_WORD, "is not a keymap", "write it as fr, en-us")
check_card_model = matching(_WORD, "is not a card's model", "write it as e1000")


def check_mac(text: str) -> str:
    """A card's MAC address, in capitals with colons: unicast and not all zero."""
    if not _MAC.fullmatch(text):
        raise WrongValueError(f"{text!r} is not a MAC address", "write it as 00:16:3E:59:2A:ED")
    mac = text.upper().replace("-", ":")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise WrongValueError(
            f"'{text}' cannot be a card's MAC address", "the first byte is even, as in 00:16:3E"
        )
    return mac


def check_ip(text: str) -> str:
    """An address of either family, without a prefix."""
    try:
        ipaddress.ip_address(without_zone(text))
    except ValueError as error:
        raise WrongValueError(f"{text!r} is not an address", "write it as 192.168.1.1") from error
    return text


def without_zone(text: str) -> str:
    """The address; Python takes anything after the % of fe80::1%eth0, a card has no name here."""
    if "%" in text:
        raise ValueError("an address with a zone")
    return text


def parse_rate_kbytes_s(text: str) -> int:
    """10Mb/s or 250KB/s@20ms as 1000 bytes a second (xl-network-configuration(5))."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise WrongValueError(f"{text!r} is not a rate", "write it as 10Mb/s, 1MB/s@20ms")
    size = int(match["number"]) * _SCALES[match["scale"]]
    if int(match["number"]) >= 1 << 32:
        raise WrongValueError(f"{text!r} is more than xl reads", "write it as 10Mb/s, 1GB/s")
    return check_rate_kbytes_s((size // 8 if match["unit"] == "b" else size) // 1000)


def check_rate_kbytes_s(number: int) -> int:
    """A limit of what a card's guest sends, in 1000 bytes a second."""
    if not 1 <= number <= 10**9:
        raise WrongValueError(
            f"{number} KB/s is no limit of a card", "write between 1KB/s and 1000GB/s"
        )
    return number


def check_rate(text: str) -> str:
    """A limit of what a card's guest sends, as it was written."""
    parse_rate_kbytes_s(text)
    return text


def check_boot_order(text: str) -> str:
    """Where an HVM's firmware looks for a system, one letter each: xl.cfg(5), boot=."""
    if not _BOOT_ORDER.fullmatch(text) or len(set(text)) != len(text):
        raise WrongValueError(
            f"{text!r} is no boot order", "letters of c (disk), d (CD), n (network), each once"
        )
    return text


def parse_version(text: str) -> Version:
    """Major and minor of a Xen version: "4.17" and "4.17.5" give (4, 17)."""
    match = _VERSION.fullmatch(text)
    if match is None:
        raise WrongValueError(f"{text!r} is not a version of Xen", "write it as 4.17", key="xen")
    return int(match[1]), int(match[2])
