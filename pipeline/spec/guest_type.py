"""The type of a guest whose spec names none: PVH wherever its kernel and its Xen are sure to."""

import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import WrongValueError
from pipeline.suites import Suite
from pipeline.xen.boot import grub_domain_type
from pipeline.xen.values import DomainType, parse_version

PVH_XEN = (4, 14)  # bullseye's own; `doit prove` has no test host with an older one
_PVH_LINUX = (5, 4)  # focal's; buster's 4.19 was not proven


def linux_of(kernel: str) -> tuple[int, ...]:
    """The version in the name of a kernel package or file; empty where it has none."""
    version = re.search(r"-(\d+)\.(\d+)(?:\.(\d+))?", kernel.rpartition("/")[2])
    return tuple(int(part) for part in version.groups() if part) if version else ()


def choose_type(suite: Suite, keys: Mapping[str, Any]) -> tuple[DomainType, str]:
    """The default for these keys, and why it is PV where it is; the host is never asked."""
    kernel, xen = str(keys.get("kernel") or ""), keys.get("xen", "4.17")
    loader = str(keys.get("bootloader") or "")
    reasons = (
        (str(keys.get("arch", "amd64")) != "amd64", "32-bit guests stay PV"),
        (suite.kernel_version < _PVH_LINUX, f"{suite.name}'s kernel is older than Linux 5.4"),
        (_is_older(xen), f"Xen {xen} is older than 4.14"),
        (
            kernel.startswith("/") or kernel == "host",
            f"a spec cannot know what kernel={kernel} can",
        ),
        (() < linux_of(kernel) < _PVH_LINUX, f"{kernel} is older than Linux 5.4"),
        (grub_domain_type(loader) == "pv", f"{loader} is a GRUB for PV"),
    )
    why = next((reason for holds, reason in reasons if holds), "")
    return ("pv" if why else "pvh"), why


def _is_older(xen: object) -> bool:
    try:
        return parse_version(str(xen)) < PVH_XEN
    except WrongValueError:
        return False  # the key's own check reports it
