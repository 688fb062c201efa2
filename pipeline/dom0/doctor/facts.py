"""What the doctor looks at, read once: command lines, memory settings, consoles, processors."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.dom0.doctor.advisories import Builds, read_builds
from pipeline.dom0.doctor.configured import Configured, read_configured
from pipeline.dom0.layout import Layout
from pipeline.dom0.toolstack import Toolstack
from pipeline.errors import PipelineError
from pipeline.mirror.apt_sources import installed_version

_SXP = re.compile(r"^\s*\(\s*([a-z0-9-]+)\s+(?:'([^']*)'|([^)\s]*))\s*\)", re.MULTILINE)
_ASSIGN = re.compile(r"^\s*([A-Za-z0-9_]+)\s*\+?=\s*(?:\"([^\"]*)\"|'([^']*)'|(\S*))", re.MULTILINE)
# menu.lst of GRUB legacy keeps update-grub's settings in comments: "# xenhopt=dom0_mem=256M"
_LEGACY = re.compile(r"^#\s*(xenhopt|xenkopt|kopt)=(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class HostFacts:
    """A host as its files say. `is_dom0` is whether Xen runs below it now.

    `xen_line` and `linux_line` are the command lines that the boot loader is set to give, `xen_now`
    Xen's of this boot, where known; `caps` is xl info's xen_caps, `configured` every
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
    gettys: frozenset[str] = frozenset()
    bridges: frozenset[str] = frozenset()
    libc6_xen: bool = False
    has_vsyscall: bool = True
    lvm_filter: str = ""
    lvm_devices: bool = False
    has_groups: bool = False
    services: frozenset[str] = frozenset()
    ovmf: str = ""
    configured: tuple[Configured, ...] = ()
    builds: Builds = field(default_factory=Builds)


def read_facts(
    root: Path, toolstack: Toolstack | None, *, is_dom0: bool, has_vsyscall: bool
) -> HostFacts:
    """The facts of the system below `root` (the machine itself is / and what it runs)."""
    loader, xen_line, linux_line = _read_loader(root)
    info = _read_info(toolstack)
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
        xend=read_sxp(_text(root / "etc/xen/xend-config.sxp")),
        xl=read_assignments(_text(root / "etc/xen/xl.conf")),
        cpus=int(info.get("nr_cpus", "0")),
        gettys=frozenset(find_gettys(root)),
        bridges=frozenset(path.parent.name for path in (root / "sys/class/net").glob("*/bridge")),
        libc6_xen=bool(installed_version("libc6-xen", root / "var/lib/dpkg/status")),
        has_vsyscall=has_vsyscall,
        lvm_filter=read_assignments(_text(root / "etc/lvm/lvm.conf")).get("global_filter", ""),
        lvm_devices=(root / "etc/lvm/devices/system.devices").is_file(),
        has_groups=any((root / "etc/lvm/backup").glob("*")),
        services=frozenset(_running(root)),
        ovmf=installed_version("ovmf", root / "var/lib/dpkg/status"),
        configured=tuple(read_configured(Layout(root))),
        builds=read_builds(root, info),
    )


def read_sxp(text: str) -> dict[str, str]:
    """xend-config.sxp: the last value of each setting that is not a comment."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {key: quoted or plain for key, quoted, plain in _SXP.findall(lines)}


def read_assignments(text: str) -> dict[str, str]:
    """KEY="value" lines of shell or xl.conf; `+=` and a second `=` win over what was before."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {key: double or single or plain for key, double, single, plain in _ASSIGN.findall(lines)}


def find_gettys(root: Path) -> Iterator[str]:
    """Terminals that get a login: of inittab, and of systemd's links."""
    for line in _text(root / "etc/inittab").splitlines():
        if line.lstrip().startswith("#") or "getty" not in line:
            continue
        found = re.search(r"\b(hvc\d+|ttyS\d+|xvc\d+|tty\d+)\b", line.partition("getty")[2])
        if found:
            yield found[1]
    for link in (root / "etc/systemd/system").glob("*.wants/*getty@*.service"):
        yield link.stem.partition("@")[2]


def _read_loader(root: Path) -> tuple[str, str, str]:
    """Which boot loader is configured, and the lines it gives to Xen and to dom0's kernel."""
    legacy = _text(root / "boot/grub/menu.lst")
    if legacy:
        values = dict(_LEGACY.findall(legacy))
        linux = f"{values.get('kopt', '')} {values.get('xenkopt', '')}".strip()
        return "/boot/grub/menu.lst", values.get("xenhopt", "").strip(), linux
    folder = root / "etc/default/grub.d"
    files = [root / "etc/default/grub", *sorted(folder.glob("*.cfg"))]
    values = read_assignments("\n".join(_text(path) for path in files))
    xen = [values.get(f"GRUB_CMDLINE_XEN{tail}", "") for tail in ("", "_DEFAULT")]
    keys = ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT")
    linux = " ".join(
        values.get(f"{key}_XEN_REPLACE") or values.get(key, "") for key in keys
    ).strip()
    return "/etc/default/grub", " ".join(xen).strip(), linux


def _read_info(toolstack: Toolstack | None) -> dict[str, str]:
    if toolstack is None:
        return {}
    try:
        return toolstack.host_facts()
    except PipelineError:
        return {}


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
