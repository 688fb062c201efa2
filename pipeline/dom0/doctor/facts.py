"""What the doctor looks at, read once: command lines, memory settings, consoles, processors."""

import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.dom0.doctor.advisories import Builds, read_builds
from pipeline.dom0.doctor.configured import Configured, read_configured
from pipeline.dom0.layout import Layout
from pipeline.dom0.setup import grub, lvm_filter, sxp
from pipeline.dom0.setup.assignments import read_assignments
from pipeline.dom0.setup.host_view import has_legacy_loader
from pipeline.dom0.setup.serial_login import gettys_of
from pipeline.dom0.toolstack import Toolstack
from pipeline.errors import PipelineError
from pipeline.mirror.apt_sources import installed_version


@dataclass(frozen=True)
class HostFacts:
    """A host as its files say. `is_dom0` is whether Xen runs below it now.

    `xen_line` and `linux_line` are the command lines that the boot loader is set to give, `xen_now`
    Xen's of this boot, where known; `groups` are LVM's, `save_room_mib` what is free where
    xendomains saves guests; `caps` is xl info's xen_caps, `configured` every
    guest's configuration.
    """

    is_dom0: bool = False
    machine: str = "x86_64"
    has_pae: bool = True
    xen_version: str = ""
    caps: tuple[str, ...] = ()
    xen_line: str = ""
    xen_now: str = ""
    linux_line: str = ""
    loader: str = ""
    xend: dict[str, str] = field(default_factory=dict)
    xl: dict[str, str] = field(default_factory=dict)
    cpus: int = 0
    memory_mib: int = 0
    gettys: frozenset[str] = frozenset()
    bridges: frozenset[str] = frozenset()
    libc6_xen: bool = False
    has_vsyscall: bool = True
    lvm_filter: str = ""
    lvm_devices: bool = False
    groups: tuple[str, ...] = ()
    services: frozenset[str] = frozenset()
    ovmf: str = ""
    configured: tuple[Configured, ...] = ()
    xendomains: Mapping[str, str] = field(default_factory=dict)
    save_room_mib: int = 0
    builds: Builds = field(default_factory=Builds)


def read_facts(
    root: Path, toolstack: Toolstack | None, *, is_dom0: bool, has_vsyscall: bool
) -> HostFacts:
    """The facts of the system below `root` (the machine itself is / and what it runs)."""
    loader, xen_line, linux_line = _read_loader(root)
    info = _read_info(toolstack)
    xendomains = read_assignments(_text(root / "etc/default/xendomains"))
    return HostFacts(
        is_dom0=is_dom0,
        machine=platform.machine(),
        has_pae=_has_flag(_text(root / "proc/cpuinfo"), "pae"),
        xen_version=info.get("xen_version", ""),
        caps=tuple(info.get("xen_caps", "").split()),
        xen_line=xen_line,
        xen_now=info.get("xen_commandline", ""),
        linux_line=linux_line,
        loader=loader,
        xend=sxp.read_sxp(_text(root / sxp.PATH[1:])),
        xl=read_assignments(_text(root / "etc/xen/xl.conf")),
        cpus=int(info.get("nr_cpus", "0")),
        memory_mib=int(info.get("total_memory", "0")),
        gettys=frozenset(find_gettys(root)),
        bridges=frozenset(path.parent.name for path in (root / "sys/class/net").glob("*/bridge")),
        libc6_xen=bool(installed_version("libc6-xen", root / "var/lib/dpkg/status")),
        has_vsyscall=has_vsyscall,
        lvm_filter=_read_filter(root),
        lvm_devices=(root / "etc/lvm/devices/system.devices").is_file(),
        groups=tuple(sorted(path.name for path in (root / "etc/lvm/backup").glob("[!.]*"))),
        services=frozenset(_running(root)),
        ovmf=installed_version("ovmf", root / "var/lib/dpkg/status"),
        configured=tuple(read_configured(Layout(root))),
        xendomains=xendomains,
        save_room_mib=_room_mib(root / xendomains.get("XENDOMAINS_SAVE", "").lstrip("/")),
        builds=read_builds(root, info),
    )


def find_gettys(root: Path) -> Iterator[str]:
    """Terminals that get a login: of inittab, and of systemd's links."""
    yield from gettys_of(_text(root / "etc/inittab"))
    for link in (root / "etc/systemd/system").glob("*.wants/*getty@*.service"):
        yield link.stem.partition("@")[2]


def _read_loader(root: Path) -> tuple[str, str, str]:
    """Which boot loader is configured, and the lines it gives to Xen and to dom0's kernel."""
    if has_legacy_loader(root):
        return grub.MENU_LST, *grub.read_menu_lst(_text(root / grub.MENU_LST[1:]))
    files = [root / grub.DEFAULTS[1:], *sorted((root / f"{grub.DEFAULTS[1:]}.d").glob("*.cfg"))]
    made = grub.read_entries(_text(root / grub.GRUB_CFG[1:]))
    lines = made or grub.read_defaults(_text(path) for path in files)
    return grub.DEFAULTS, *lines


def _read_filter(root: Path) -> str:
    """The patterns that LVM obeys, of the file and the key that win."""
    texts = [_text(root / path[1:]) for path in (lvm_filter.LOCAL, lvm_filter.CONF)]
    filters = (lvm_filter.find_filter(text, key) for text in texts for key in lvm_filter.KEYS)
    patterns = next((each.patterns for each in filters if each), ())
    return "" if lvm_filter.find_acceptance(patterns) else " ".join(patterns)


def _read_info(toolstack: Toolstack | None) -> dict[str, str]:
    if toolstack is None:
        return {}
    try:
        return toolstack.host_facts()
    except PipelineError:
        return {}


def _room_mib(path: Path) -> int:
    """Free space where a folder is or would be made."""
    there = next(folder for folder in (path, *path.parents) if folder.is_dir())
    return shutil.disk_usage(there).free >> 20


def _has_flag(cpuinfo: str, flag: str) -> bool:
    lines = [line for line in cpuinfo.splitlines() if line.startswith("flags")]
    return not lines or any(flag in line.split() for line in lines)


def _running(root: Path) -> Iterable[str]:
    for comm in (root / "proc").glob("[0-9]*/comm"):
        try:
            yield comm.read_text().strip()
        except OSError:
            continue


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
