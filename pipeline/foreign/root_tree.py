"""The survey of a root file system that was not built here: what it is and how it starts.

Everything is read below one folder by openat2 (walls/beneath.py), with bounds, in a cage: nothing
of it is executed, no shell file sourced. Sources: os-release(5), fstab(5), inittab(5),
interfaces(5), systemd.network(5), nm-settings-keyfile(5), netplan(5), and the Boot Loader
Specification for /boot/loader/entries.
"""

import json
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import PipelineError, VerificationError
from pipeline.foreign.installed_kernels import InstalledKernel, read_kernels
from pipeline.foreign.network_setup import NetworkTool, find_names, find_network_tool
from pipeline.foreign.secret_files import find_passwords, find_secrets
from pipeline.walls.beneath import Beneath
from pipeline.xen.grub_menu import GRUB_CFG_PATHS, MENU_LST_PATHS

Init = Literal["systemd", "sysvinit", "openrc", "busybox", "runit", "other"]
MOST_TEXT = 1 << 20
_MOST_TEXTS, _MOST_TEXT_BYTES = 300, 16 << 20
MENUS = (
    *(path for path in (*GRUB_CFG_PATHS, *MENU_LST_PATHS) if path.startswith("/boot/")),
    *("/boot/extlinux/extlinux.conf", "/boot/extlinux.conf", "/boot/syslinux/syslinux.cfg"),
    *("/boot/grub2/grubenv", "/boot/loader/entries/*.conf"),
)
INTERFACES = "/etc/network/interfaces"
# what may have to be changed, or says how the system starts
_TEXTS = (
    *("/etc/os-release", "/etc/hostname", "/etc/fstab", "/etc/inittab", "/etc/securetty"),
    *("/etc/default/grub", "/etc/kernel/cmdline", "/etc/initramfs-tools/modules"),
    "/etc/modules",
    *(INTERFACES, f"{INTERFACES}.d/*", "/etc/netplan/*.yaml", "/etc/systemd/network/*"),
    *("/etc/NetworkManager/system-connections/*", "/etc/sysconfig/network-scripts/ifcfg-*"),
    *("/etc/udev/rules.d/70-persistent-net.rules", "/etc/selinux/config"),
    *("/etc/udev/rules.d/z25_persistent-net.rules", *MENUS),
)
_WANTS = "/etc/systemd/system/getty.target.wants"
_MACHINES = {0x03: "i386", 0x3E: "amd64", 0x28: "armhf", 0xB7: "arm64"}
_MOST_LINKS = 20
# what calls cards by what they are, and how it is told not to (Debian's README of udev)
_NAME_RULES = ("/etc/udev/rules.d/80-net-setup-link.rules", "/etc/systemd/network/99-default.link")
_LIBRARIES = (
    *(f"{folder}/systemd" for folder in ("/usr/lib", "/lib", "/usr/lib64")),
    *(f"/usr/lib/{arch}-linux-gnu/systemd" for arch in ("x86_64", "i386", "aarch64")),
)
_SYSTEMD = re.compile(r"libsystemd-shared-(\d{1,4})")
_NAMES_XEN_CARDS = 250


@dataclass(frozen=True, kw_only=True)
class FstabLine:
    """A line of /etc/fstab that names something to mount; `number` is its place, from 0."""

    node: str
    mountpoint: str
    fs: str
    options: str = "defaults"
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class RootTree:
    """What was found. `texts` are files by path that `mend` may change; `kernels` newest first.

    `interfaces` are the names of cards that its files configure, `card_name` what udev calls the
    first one of Xen's, "" where a file of its own says, `secrets` the paths that make it
    this very machine, `passwords` the accounts with one, `masked` units that never start,
    `folders` those of a few that decide something, `unread` what could not be read, and why.
    """

    os_id: str = ""
    os_version: str = ""
    os_like: tuple[str, ...] = ()
    os_name: str = ""
    init: Init = "other"
    arch: str = ""
    hostname: str = ""
    kernels: tuple[InstalledKernel, ...] = ()
    fstab: tuple[FstabLine, ...] = ()
    network: NetworkTool = "other"
    interfaces: tuple[str, ...] = ()
    card_name: Literal["eth0", "enX0", ""] = ""
    gettys: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    menus: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    passwords: tuple[str, ...] = ()
    selinux: str = ""
    folders: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    has_merged_usr: bool = False
    has_sshd: bool = False
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_debian_family(self) -> bool:
        """Debian, Ubuntu and what calls itself like them."""
        return bool({self.os_id, *self.os_like} & {"debian", "ubuntu"})

    @property
    def has_udev(self) -> bool:
        """Whether something may rename its cards."""
        return self.init == "systemd" or "/etc/udev" in self.folders


def from_json(text: str | bytes) -> RootTree:
    """The survey that a cage wrote; VerificationError for anything else."""
    try:
        return TypeAdapter(RootTree).validate_python(json.loads(text))
    except (ValueError, ValidationError) as error:
        raise VerificationError("the survey of a root file system cannot be read") from error


def survey(tree: Beneath) -> RootTree:
    """Read what a root file system is; `tree` follows links inside it. Raises PipelineError."""
    reader = _Reader(tree)
    texts = reader.read_texts(_TEXTS)
    release = _read_assignments(texts.pop("/etc/os-release", ""))
    network, init = find_network_tool(tree, texts), _find_init(tree)
    kernels = tuple(read_kernels(tree, reader.note))
    passwords = find_passwords(reader.text("/etc/shadow"))
    links = [name for name in ("lib",) if _chase(tree, f"/{name}")[1:]]
    return RootTree(
        os_id=release.get("ID", ""),
        os_version=release.get("VERSION_ID", ""),
        os_like=tuple(release.get("ID_LIKE", "").split()),
        os_name=release.get("PRETTY_NAME", "")[:100],
        init=init,
        arch=_find_arch(tree),
        hostname=_first_word(texts.pop("/etc/hostname", "")),
        kernels=kernels,
        fstab=tuple(read_fstab(texts.get("/etc/fstab", ""))),
        network=network,
        interfaces=find_names(network, texts),
        card_name=_find_card_name(tree, init),
        gettys=tuple(_find_gettys(tree, texts.get("/etc/inittab", ""))),
        masked=tuple(_find_masked(tree)),
        menus=tuple(path for path in texts if _is_like(path, MENUS)),
        secrets=tuple(find_secrets(tree)),
        passwords=passwords,
        selinux=_read_assignments(texts.get("/etc/selinux/config", "")).get("SELINUX", ""),
        folders=tuple(path for path in FOLDERS if tree.is_folder(path)),
        unread=tuple(reader.faults),
        has_merged_usr="lib" in links,
        has_sshd=any(tree.exists(f"/usr/{name}/sshd") for name in ("sbin", "bin")),
        texts=texts,
    )


# whether they are there decides how something is done
_SSHD = "/etc/ssh/sshd_config.d"  # included first of all from OpenSSH 8.2 of Debian on
FOLDERS = (
    *("/etc/udev", "/etc/systemd/network", "/etc/initramfs-tools", "/etc/dracut.conf.d"),
    *"/etc/kernel/postinst.d /etc/mkinitfs /etc/sv/agetty-hvc0 /var/lib/dpkg /boot/grub".split(),
    *("/boot/loader/entries", "/var/lib/cloud", "/etc/network", _SSHD),
)


def read_fstab(text: str) -> Iterator[FstabLine]:
    """The lines that name something, comments left out."""
    for number, line in enumerate(text.splitlines()):
        fields = line.split()
        if len(fields) >= 3 and not fields[0].startswith("#"):
            options = fields[3] if len(fields) > 3 else "defaults"
            yield FstabLine(
                node=fields[0], mountpoint=fields[1], fs=fields[2], options=options, number=number
            )


class _Reader:
    """Texts of the tree with bounds; what could not be read is noted once."""

    def __init__(self, tree: Beneath) -> None:
        self._tree = tree
        self._room = _MOST_TEXT_BYTES
        self.faults: list[str] = []

    def note(self, fault: str) -> None:
        if len(self.faults) < 100:
            self.faults.append(fault)

    def text(self, path: str) -> str:
        """A file's text, "" where there is none."""
        return self._read(path) or ""

    def read_texts(self, patterns: tuple[str, ...]) -> dict[str, str]:
        texts: dict[str, str] = {}
        for pattern in patterns:
            for path in self._paths(pattern):
                if len(texts) >= _MOST_TEXTS:
                    self.note(f"{path}: more than {_MOST_TEXTS} such files")
                    return texts
                text = self._read(path)
                if text is not None:
                    texts[path] = text
        return texts

    def _paths(self, pattern: str) -> list[str]:
        folder, _, name = pattern.rpartition("/")
        if "*" not in name:
            return [pattern]
        return [f"{folder}/{entry}" for entry in list_names(self._tree, folder, name)]

    def _read(self, path: str) -> str | None:
        try:
            limit = min(MOST_TEXT, self._room)
            content = self._tree.read(path, limit=limit, follow_last=True)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (PipelineError, OSError) as error:
            self.note(str(error))
            return None
        self._room -= len(content)
        return content.decode("utf-8", "surrogateescape")


def list_names(tree: Beneath, folder: str, pattern: str = "*") -> list[str]:
    """The names in a folder that are like the pattern; none where there is no folder."""
    with suppress(PipelineError, OSError):
        return [name for name in tree.names(folder, follow_last=True) if fnmatchcase(name, pattern)]
    return []


def _is_like(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _read_assignments(text: str) -> dict[str, str]:
    """NAME=value lines of os-release(5) and its like; quotes are taken off, nothing expanded."""
    table = {}
    for line in text.splitlines():
        name, sign, value = line.strip().partition("=")
        if sign and name.isidentifier():
            try:
                table[name] = " ".join(shlex.split(value))
            except ValueError:
                table[name] = value
    return table


def _first_word(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    return next((line.split()[0] for line in lines if line and line[0] != "#"), "")


def _find_init(tree: Beneath) -> Init:
    """By what /sbin/init leads to, then by what such an init needs."""
    names = _chase(tree, "/sbin/init")
    if any("systemd" in name for name in names):
        return "systemd"
    if any("runit" in name for name in names):
        return "runit"
    if any(tree.exists(path) for path in ("/sbin/openrc", "/usr/sbin/openrc", "/usr/bin/openrc")):
        return "openrc"
    if any("busybox" in name for name in names):
        return "busybox"
    has_inittab, has_file = tree.exists("/etc/inittab"), bool(names)
    return "sysvinit" if has_file and has_inittab else "other"


def _find_card_name(tree: Beneath, init: Init) -> Literal["eth0", "enX0", ""]:
    """By systemd's udev, 250 and later (systemd.net-naming-scheme(7)), and what keeps it from it.

    net.ifnames=0 on the kernel's line does too, which is not the tree's to say.
    """
    for path in _NAME_RULES:
        if tree.exists(path):
            is_masked = stat.S_ISLNK(tree.stat(path).st_mode) and tree.readlink(path) == "/dev/null"
            return "eth0" if is_masked else ""
    if list_names(tree, "/etc/systemd/network", "*.link"):
        return ""
    if list_names(tree, "/etc/udev/rules.d", "*persistent-net.rules"):
        return ""
    names = [name for folder in _LIBRARIES for name in list_names(tree, folder, "libsystemd-s*")]
    versions = [int(match[1]) for match in map(_SYSTEMD.match, names) if match]
    if not versions:
        return "" if init == "systemd" else "eth0"
    return "enX0" if max(versions) >= _NAMES_XEN_CARDS else "eth0"


def _chase(tree: Beneath, path: str) -> list[str]:
    """A path and where its links lead, up to what is no link; [] where there is nothing."""
    names: list[str] = []
    with suppress(PipelineError, OSError):
        while len(names) < _MOST_LINKS:
            status = tree.stat(path)
            names.append(path)
            if not stat.S_ISLNK(status.st_mode):
                return names
            path = str(PurePosixPath(path).parent / tree.readlink(path))
    return []


def _find_arch(tree: Beneath) -> str:
    """Debian's name for the machine that its programs are for; "" where none can be read."""
    for path in ("/sbin/init", "/bin/sh", "/bin/busybox", "/usr/bin/env"):
        with suppress(PipelineError, OSError):
            descriptor = tree.open_file(path, follow_last=True)
            with open(descriptor, "rb") as stream:
                header = stream.read(20)
            if header[:4] == b"\x7fELF" and len(header) == 20:
                return _MACHINES.get(int.from_bytes(header[18:20], "little"), "other")
    return ""


def _find_gettys(tree: Beneath, inittab: str) -> Iterator[str]:
    """inittab's lines with a getty, enabled units, runit's services."""
    for line in inittab.splitlines():
        if "getty" in line and not line.lstrip().startswith("#"):
            yield line.strip()
    yield from list_names(tree, _WANTS)
    yield from list_names(tree, "/etc/runit/runsvdir/default", "agetty-*")


def _find_masked(tree: Beneath) -> Iterator[str]:
    for name in list_names(tree, "/etc/systemd/system"):
        with suppress(PipelineError, OSError):
            if tree.readlink(f"/etc/systemd/system/{name}") == "/dev/null":
                yield name
