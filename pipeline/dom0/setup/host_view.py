"""A host as its files say: which release, which init, who sets up its network and its boot."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from pipeline.errors import EnvironmentFault
from pipeline.files import read_bytes
from pipeline.suites import SUITES
from pipeline.xen.values import parse_version

_STANZA = re.compile(r"^\s*iface\s+(\S+)", re.MULTILINE)
_LAST_XEND = (4, 4)  # wheezy's 4.1 was Debian's last with xend


@dataclass(frozen=True)
class HostView:
    """What the renderings look at. `root` is / or, for trials and tests, a folder.

    `suite` is Debian's code name, "" where it is none that we know; `loader` is grub-legacy where
    there is a menu.lst and no GRUB 2. `changed` are files that earlier parts of the same change
    have rendered, None for one that goes: the host is seen with them.
    """

    root: Path
    suite: str
    init: Literal["systemd", "sysvinit"]
    network: Literal["ifupdown", "networkd"]
    loader: Literal["grub2", "grub-legacy"]
    toolstack: Literal["xl", "xm"]
    xen_version: str = ""
    changed: Mapping[str, bytes | None] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path) -> HostView:
        """The host below `root`. Raises EnvironmentFault where that is none of Debian's family."""
        blind = cls(root, "", "systemd", "networkd", "grub2", "xl")
        release = blind.read("/etc/debian_version")
        if release is None:
            raise EnvironmentFault(
                f"{root} is no system of Debian's family: it has no /etc/debian_version",
                hint="doit dom0 sets up hosts with Debian, or made of it",
            )
        version = _find_xen(root)
        return replace(
            blind,
            suite=_find_suite(blind.read("/etc/os-release") or "", release),
            init=_find_init(blind),
            network="ifupdown" if _has_ifupdown(blind) else "networkd",
            loader="grub-legacy" if has_legacy_loader(root) else "grub2",
            toolstack="xm" if _has_xend(blind, version) else "xl",
            xen_version=version,
        )

    def read(self, path: str) -> str | None:
        """A text of the host by its absolute path, foreign bytes as surrogates; None without it.

        Raises PipelineError for what is no plain file or cannot be read.
        """
        content = self.read_bytes(path)
        return None if content is None else content.decode(errors="surrogateescape")

    def read_bytes(self, path: str) -> bytes | None:
        """The same as its bytes."""
        if path in self.changed:
            return self.changed[path]
        try:
            return read_bytes(self.root / path.lstrip("/"), follow=True)
        except FileNotFoundError:
            return None

    def require(self, path: str, package: str) -> str:
        """A text that has to be there; raises EnvironmentFault with the package that brings it."""
        text = self.read(path)
        if text is None:
            raise EnvironmentFault(f"{path} is not there", hint=f"apt-get install {package}")
        return text

    def exists(self, path: str) -> bool:
        """Whether there is anything of that name."""
        if path in self.changed:
            return self.changed[path] is not None
        return os.path.lexists(self.root / path.lstrip("/"))

    def find(self, pattern: str) -> list[str]:
        """The host's files of a glob pattern, sorted, each by its absolute path."""
        there = (path for path in self.root.glob(pattern.lstrip("/")) if path.is_file())
        paths = {f"/{path.relative_to(self.root)}" for path in there}
        paths |= {path for path in self.changed if PurePosixPath(path).match(pattern)}
        return sorted(path for path in paths if self.changed.get(path, b"") is not None)

    @property
    def linux(self) -> tuple[int, int]:
        """The version of its release's kernel; of a release that we do not know the newest."""
        versions = {name: suite.kernel_version for name, suite in SUITES.items()}
        return versions.get(self.suite, max(versions.values()))


def _find_suite(os_release: str, debian_version: str) -> str:
    """The code name, by the number where os-release(5) has none or there is no such file yet."""
    name = re.search(r"^VERSION_CODENAME=\"?(\w+)", os_release, re.MULTILINE)
    number = debian_version.strip().partition(".")[0]
    if name is None and number.isdigit():
        debian = (suite for suite in SUITES.values() if suite.distribution == "debian")
        return next((suite.name for suite in debian if suite.version.split(".")[0] == number), "")
    return name[1] if name and name[1] in SUITES else ""


def _find_init(host: HostView) -> Literal["systemd", "sysvinit"]:
    """What /sbin/init is; without it, as in a container, what there is a configuration for."""
    try:
        return "systemd" if "systemd" in os.readlink(host.root / "sbin/init") else "sysvinit"
    except OSError:
        return "sysvinit" if host.exists("/etc/inittab") else "systemd"


def _has_ifupdown(host: HostView) -> bool:
    """Whether ifupdown sets up cards, or nobody does and it is what could."""
    paths = ("/etc/network/interfaces", *host.find("/etc/network/interfaces.d/*"))
    texts = [host.read(path) or "" for path in paths]
    names = {match[1] for text in texts for match in _STANZA.finditer(text)}
    if names - {"lo"}:
        return True
    by_networkd = host.find("/etc/systemd/network/*.network")
    return not by_networkd and any(host.exists(path) for path in ("/sbin/ifup", "/usr/sbin/ifup"))


def has_legacy_loader(root: Path) -> bool:
    """Whether GRUB legacy starts the system below `root`."""
    menu, *grub2 = (
        os.path.lexists(root / path)
        for path in ("boot/grub/menu.lst", "etc/default/grub", "boot/grub/grub.cfg")
    )
    return menu and not any(grub2)


def _find_xen(root: Path) -> str:
    """The newest Xen whose tools are installed: Debian's packages have a folder each."""
    names = [re.match(r"xen-(\d+\.\d+)", path.name) for path in (root / "usr/lib").glob("xen-*")]
    return max((name[1] for name in names if name), key=parse_version, default="")


def _has_xend(host: HostView, version: str) -> bool:
    """xend-config.sxp alone may be a conffile of a release that is long gone."""
    is_old = not version or parse_version(version) < _LAST_XEND
    return is_old and host.exists("/etc/xen/xend-config.sxp")
