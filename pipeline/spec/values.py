"""Values of a spec: each check looks at one kind of name, path, address, size or time.

What a toolstack's configuration holds too (cards, screen, processors) is in xen/values.py.
A size is written as 4G, 512M, 1.5G, 2000Mb, a time as 24h.
"""

import ipaddress
import re
import shlex
from collections.abc import Callable
from fractions import Fraction
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, StrictInt, StrictStr

from pipeline.errors import WrongValueError, suggest_nearest
from pipeline.files import find_unusable
from pipeline.suites import SUITES
from pipeline.xen.values import (
    check_boot_order,
    check_cpu_weight,
    check_cpus,
    check_display,
    check_interface,
    check_ip,
    check_keymap,
    check_mac,
    check_mtu,
    check_rate,
    check_uuid,
    check_vcpus,
    matching,
    without_zone,
)

# What xl, LVM and a file name all take; lvm(8) lists the reserved words.
_GUEST_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,62}")
_LVM_PREFIXES = ("snapshot", "pvmove")
_LVM_PARTS = re.compile(
    "_(mimage|mlog|rimage|rmeta|tdata|tmeta|cdata|cmeta|corig|cvol|wcorig|iorig|imeta"
    "|vorigin|vdata|pmspare)"
)
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_PACKAGE = "[a-z0-9][a-z0-9+.-]*[a-z0-9+.]"
_GROUP = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,126}")  # lvm(8), VALID NAMES
_HASH = re.compile(r"\$(y|gy|7|2b|2y|6|5|1)\$[A-Za-z0-9./$=,-]{8,}")
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+:~-]*")
_PATH = re.compile(r"/[A-Za-z0-9_@%+=:.,/-]*")
_MIRROR_HOST = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?"
)
_URL_PATH = re.compile(r"[A-Za-z0-9_.~%+=/@:-]*")
XEN_VERSIONS = ("3.0", "3.1", "3.2", "3.3", "3.4", *(f"4.{minor}" for minor in range(22)))

_SIZE = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,6})?) ?(?P<unit>[MGT])(i?B)?", re.IGNORECASE)
_MIB = {"M": 1, "G": 1024, "T": 1024**2}
_DURATION = re.compile(r"(?P<number>[0-9]{1,7})(?P<unit>[smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

DISK_MIB = (256, 16 * 1024**2)
PART_MIB = (1, 16 * 1024**2)
SWAP_MIB = (1, 1024**2)
MEMORY_MIB = (64, 12 * 1024**2)  # Xen's own limit of a PV guest is 16 TiB less the hypervisor


def check_guest_name(text: str) -> str:
    """A guest's name: also its folder, its volumes and its domain, so nothing may escape."""
    if not _GUEST_NAME.fullmatch(text) or ".." in text:
        raise WrongValueError(
            f"{text!r} cannot be a guest's name",
            "1 to 63 of a-z 0-9 _ . + - beginning with a letter or digit, no '..'",
        )
    reserved = [word for word in _LVM_PREFIXES if text.startswith(word)]
    reserved += [match[0] for match in _LVM_PARTS.finditer(text)]
    if reserved:
        raise WrongValueError(f"'{text}' holds '{reserved[0]}', which LVM keeps for itself")
    if text == "defaults":
        raise WrongValueError("'defaults' is the file of common values, not a guest")
    return text


def check_host_name(text: str) -> str:
    """A host or domain name of RFC 1123: short or with dots, at most 253 characters, no address."""
    labels = text.split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise WrongValueError(
            f"{text!r} is not a host name", "letters, digits and '-' between dots, as in web1"
        )
    if labels[0].lower() == "localhost" or (len(labels) > 1 and labels[-1].isdigit()):
        raise WrongValueError(
            f"'{text}' cannot be a guest's host name", "give it a name of its own"
        )
    return text


def check_hosts_line(text: str) -> str:
    """A line of /etc/hosts: an address and names."""
    address, *names = text.split() or [""]
    try:
        check_ip(address)
        checked = [check_host_name(name) for name in names if name != "localhost"]
    except ValueError as error:
        raise WrongValueError(
            f"{text!r} is not a line of /etc/hosts", "write it as '192.168.1.5 db db.example.org'"
        ) from error
    if not checked or not text.isprintable():
        raise WrongValueError(f"{text!r} names no host", "write it as '192.168.1.5 db'")
    return text


def check_suite(text: str) -> str:
    """A release that the pipeline knows."""
    if text not in SUITES:
        known = ", ".join(SUITES)
        nearest = suggest_nearest(text, SUITES)
        raise WrongValueError(
            f"'{text}' is not a known suite", f"{nearest} (known: {known})" if nearest else known
        )
    return text


def check_mirror(text: str) -> str:
    """host, a URL, host:port, file:/folder, or the name of a file in mirrors/."""
    if "@" in text:  # never quoted: it may be a password
        raise WrongValueError(
            "a mirror's URL holds no user or password", "put them in /etc/apt/auth.conf.d/"
        )
    scheme, _, rest = text.partition("://")
    if scheme in ("http", "https") and rest:
        host, _, path = rest.partition("/")
        good = _MIRROR_HOST.fullmatch(host) and _URL_PATH.fullmatch(path)
    elif text.startswith("file:/"):
        good = _PATH.fullmatch("/" + text.removeprefix("file:").lstrip("/"))
    elif ":" in text or "/" in text:
        host, _, path = text.partition("/")
        good = _MIRROR_HOST.fullmatch(host) and _URL_PATH.fullmatch(path)
    else:
        good = _GUEST_NAME.fullmatch(text)
    if not good or ".." in text:
        raise WrongValueError(
            f"{text!r} is not a mirror",
            "host, http://HOST:PORT/debian, HOST:PORT, file:/FOLDER, or a name in mirrors/",
        )
    return text


# Policy 5.6.1; a final '-' would mean removal to apt
check_package = matching(_PACKAGE, "is not a package name", "lower case, as in openssh-server")
check_timezone = matching(
    "[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}",
    "is not a time zone",
    "write it as Etc/UTC, Europe/Paris",
)
check_locale = matching(
    r"(C|POSIX|[a-z]{2,3}(_[A-Z]{2})?)(\.[A-Za-z0-9-]+)?(@[a-z]+)?",
    "is not a locale",
    "write it as C.UTF-8, fr_FR.UTF-8",
)
check_element = matching(
    "[A-Za-z0-9][A-Za-z0-9_.-]*", "is not an element's name", "letters, digits, '_' and '-'"
)
# what a grub.cfg and a shell take as it is: quotes, '$', '&' and the like would change meaning, a
# word that begins with # would be a comment
check_cmdline = matching(
    r"(?!#)([A-Za-z0-9_.,:/=@%+*!?^~()\[\]#-]| (?!#))*",
    "holds a character that a boot loader would read otherwise",
)


def check_kernel(text: str) -> str:
    """A package, package=version, host, or the absolute path of a vmlinuz."""
    if text.startswith("/"):
        return check_absolute_path(text)
    name, equals, version = text.partition("=")
    if not re.fullmatch(_PACKAGE, name) or (equals and not _VERSION.fullmatch(version)):
        raise WrongValueError(
            f"{text!r} is not a kernel",
            "a package (linux-image-amd64), package=version, host, or an absolute path",
        )
    return text


def check_absolute_path(text: str) -> str:
    """An absolute path without '..', spaces or quotes."""
    if not _PATH.fullmatch(text) or ".." in text.split("/") or text == "/":
        raise WrongValueError(f"{text!r} is not an absolute path", "write it as /boot/vmlinuz-6.1")
    return _check_length(text)


def _check_length(path: str) -> str:
    """What Linux takes as a path (limits.h, NAME_MAX and PATH_MAX)."""
    if len(path.encode()) > 4095 or any(len(part.encode()) > 255 for part in path.split("/")):
        raise WrongValueError(f"{path!r} is longer than any file's name")
    return path


def check_path(text: str) -> str:
    """A path, which the loader has made absolute."""
    if text.startswith("-") or not text or not text.isprintable():
        raise WrongValueError(f"{text!r} is not a path")
    return _check_length(text)


def check_build_path(text: str) -> str:
    """A path that a program is told in a line of text."""
    letter = find_unusable(check_path(text))
    if letter:
        raise WrongValueError(
            f"{text!r} holds {letter}: no configuration can name it", "move it to another folder"
        )
    return text


def check_password_file(text: str) -> str:
    """A path, or '-' for standard input."""
    return text if text == "-" else check_path(text)


def check_group(text: str) -> str:
    """An LVM volume group or thin pool."""
    if not _GROUP.fullmatch(text) or ".." in text or text == ".":
        raise WrongValueError(f"{text!r} is not the name of a volume group", "write it as VG0")
    return text


def check_hash(text: str) -> str:
    """A password as crypt(5) stores it; it is a secret, so no message shows it."""
    if not _HASH.fullmatch(text):
        raise WrongValueError("this is not a crypt(5) hash", "make one with: mkpasswd -m sha-512")
    return text


def check_xen_version(text: str) -> str:
    """A release of Xen, 3.0 to 4.21."""
    if text not in XEN_VERSIONS:
        raise WrongValueError(f"'{text}' is not a version of Xen", "write it as 4.17; 3.0 to 4.21")
    return text


def check_text(text: str) -> str:
    """One line of printable text."""
    if not text.isprintable():
        raise WrongValueError(f"{text!r} is not one line of printable text")
    return text


def check_address(text: str) -> str:
    """An IPv4 or IPv6 address with or without its prefix length."""
    try:
        ipaddress.ip_interface(without_zone(text))
    except ValueError as error:
        raise WrongValueError(
            f"{text!r} is not an address", "write it as 192.168.1.10/24 or 2001:db8::5/64"
        ) from error
    return text


def check_gateway(text: str) -> str:
    """An IPv4 address."""
    return _check_family(text, ipaddress.IPv4Address, "IPv4", "192.168.1.1")


def check_gateway6(text: str) -> str:
    """An IPv6 address; link-local ones are usual here."""
    return _check_family(text, ipaddress.IPv6Address, "IPv6", "2001:db8::1")


def _check_family(text: str, family: Callable[[str], object], name: str, right: str) -> str:
    try:
        family(without_zone(text))
    except ValueError as error:
        raise WrongValueError(
            f"{text!r} is not an {name} address", f"write it as {right}"
        ) from error
    return text


def check_netmask(text: str) -> str:
    """An IPv4 netmask, as in 255.255.255.0."""
    try:
        if str(ipaddress.IPv4Network(f"0.0.0.0/{text}").netmask) != text:
            raise ValueError(text)
    except ValueError as error:
        raise WrongValueError(f"{text!r} is not a netmask", "write it as 255.255.255.0") from error
    return text


def parse_size(text: str) -> int:
    """MiB in a size such as 4G, 512M, 1.5G or 2000Mb; raises WrongValueError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        is_kib = re.fullmatch(r"[0-9]+ ?k(i?b)?", text, re.IGNORECASE)
        what = "is not a number of MiB: disks have whole ones" if is_kib else "is not a size"
        raise WrongValueError(f"'{text}' {what}", "write it as 4G, 512M")
    size_mib = Fraction(match["number"]) * _MIB[match["unit"].upper()]
    if size_mib.denominator != 1:
        raise WrongValueError(f"'{text}' is not a whole number of MiB", "write it as 4G, 512M")
    return int(size_mib)


def check_size(value: object, limits: tuple[int, int]) -> str:
    """The size as it was written, if it lies within `limits` (MiB); raises WrongValueError."""
    if not isinstance(value, str):
        raise WrongValueError(f"{value!r} is not a size", 'write it with a unit: "4G", "512M"')
    least, most = limits
    if not least <= parse_size(value) <= most:
        bounds = f"between {show_size(least)} and {show_size(most)}"
        raise WrongValueError(f"'{value}' is out of range", f"a size {bounds}")
    return value


def check_bound(value: object) -> str:
    """How much may stay of what is kept: a size, or 0."""
    return "0" if value == "0" else check_size(value, (0, DISK_MIB[1]))


def check_disk_size(value: object) -> str:
    """A root disk's size."""
    return check_size(value, DISK_MIB)


def check_part_size(value: object) -> str:
    """A partition's size."""
    return check_size(value, PART_MIB)


def check_swap_size(value: object) -> str:
    """A swap disk's size; "0" or 0 means none."""
    if value in ("0", 0) and not isinstance(value, bool):
        return "0"
    return check_size(value, SWAP_MIB)


def check_memory_size(value: object) -> str:
    """A guest's memory; a plain number is MiB, as in an xl configuration."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    is_digits = isinstance(value, str) and value.isascii() and value.isdigit()
    return check_size(f"{value}M" if is_number or is_digits else value, MEMORY_MIB)


def parse_duration(text: str) -> int:
    """Seconds in a time such as 90s, 30m, 24h, 7d; raises WrongValueError."""
    match = _DURATION.fullmatch(text)
    if text == "0":
        return 0
    if match is None:
        raise WrongValueError(f"'{text}' is not a time", "write it as 30m, 24h, 7d, or 0")
    return int(match["number"]) * _SECONDS[match["unit"]]


def check_duration(value: object) -> str:
    """A time as it was written."""
    if not isinstance(value, str):
        raise WrongValueError(f"{value!r} is not a time", 'write it as "30m", "24h", "7d", or "0"')
    parse_duration(value)
    return value


def show_size(size_mib: int) -> str:
    """The shortest exact way to write so many MiB: 4G, 512M, 16T."""
    for unit in ("T", "G"):
        if size_mib and size_mib % _MIB[unit] == 0:
            return f"{size_mib // _MIB[unit]}{unit}"
    return f"{size_mib}M"


def check_role(text: str) -> str:
    """A role script: its name in a folder of roles_path, or its path."""
    if text.startswith("/"):
        return check_build_path(text)
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", text):
        raise WrongValueError(f"{text!r} is no role", "the name of a script, or its path")
    return text


def check_role_arguments(text: str) -> str:
    """What stands behind the tree's path on a role script's command line."""
    try:
        shlex.split(text)
    except ValueError as error:
        raise WrongValueError(f"{text!r}: {error}", "quote it as for a shell") from None
    return check_text(text)


def check_firmware(text: str) -> str:
    """bios or uefi, or nothing; with the reason why UEFI is no more than that under xl."""
    if text in ("", "bios", "uefi"):
        return text
    if any(word in text.lower() for word in ("secure", "nvram", "vars")):
        raise WrongValueError(
            f"{text!r}: xl keeps no UEFI variables for a guest, and so no keys of Secure Boot",
            "write uefi, which finds \\EFI\\BOOT\\BOOTX64.EFI; XCP-ng and KVM have both",
        )
    raise WrongValueError(f"{text!r} is no firmware", "write bios or uefi")


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


GuestName = Annotated[StrictStr, AfterValidator(check_guest_name)]
HostName = Annotated[StrictStr, AfterValidator(check_host_name)]
HostsLine = Annotated[StrictStr, AfterValidator(check_hosts_line)]
SuiteName = Annotated[StrictStr, AfterValidator(check_suite)]
Mirror = Annotated[StrictStr, AfterValidator(check_mirror)]
PackageName = Annotated[StrictStr, AfterValidator(check_package)]
Kernel = Annotated[StrictStr, AfterValidator(check_kernel)]
AbsolutePath = Annotated[StrictStr, AfterValidator(check_absolute_path)]
FilePath = Annotated[StrictStr, AfterValidator(check_build_path)]
PasswordFile = Annotated[StrictStr, AfterValidator(check_password_file)]
TimeZone = Annotated[StrictStr, AfterValidator(check_timezone)]
Locale = Annotated[StrictStr, AfterValidator(check_locale)]
CommandLine = Annotated[StrictStr, AfterValidator(check_cmdline)]
ElementName = Annotated[StrictStr, AfterValidator(check_element)]
RoleName = Annotated[StrictStr, AfterValidator(check_role)]
RoleArguments = Annotated[StrictStr, AfterValidator(check_role_arguments)]
GroupName = Annotated[StrictStr, AfterValidator(check_group)]
PasswordHash = Annotated[StrictStr, AfterValidator(check_hash)]
XenVersion = Annotated[StrictStr, AfterValidator(check_xen_version)]
Text = Annotated[StrictStr, AfterValidator(check_text)]
DiskSize = Annotated[str, BeforeValidator(check_disk_size)]
SwapSize = Annotated[str, BeforeValidator(check_swap_size)]
MemorySize = Annotated[str, BeforeValidator(check_memory_size)]
Duration = Annotated[str, BeforeValidator(check_duration)]
Interface = Annotated[StrictStr, AfterValidator(check_interface)]
MacAddress = Annotated[StrictStr, AfterValidator(check_mac)]
Address = Annotated[StrictStr, AfterValidator(check_address)]
Gateway = Annotated[StrictStr, AfterValidator(check_gateway)]
Gateway6 = Annotated[StrictStr, AfterValidator(check_gateway6)]
Netmask = Annotated[StrictStr, AfterValidator(check_netmask)]
IpAddress = Annotated[StrictStr, AfterValidator(check_ip)]
Rate = Annotated[StrictStr, AfterValidator(check_rate)]
Mtu = Annotated[StrictInt, AfterValidator(check_mtu)]
Processors = Annotated[StrictInt, AfterValidator(check_vcpus)]
Uuid = Annotated[StrictStr, AfterValidator(check_uuid)]
Cpus = Annotated[StrictStr, AfterValidator(check_cpus)]
CpuWeight = Annotated[StrictInt, AfterValidator(check_cpu_weight)]
Display = Annotated[StrictInt, AfterValidator(check_display)]
Keymap = Annotated[StrictStr, AfterValidator(check_keymap)]
FirmwareKind = Annotated[StrictStr, AfterValidator(check_firmware)]
BootOrder = Annotated[StrictStr, AfterValidator(check_boot_order)]
AsList = BeforeValidator(_listed)  # one string stands for a list of one
