"""The first dom0.toml of a host: its network of this moment as a bridge; the rest as comments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import process
from pipeline.errors import PipelineError

_HEAD = """\
# What this machine is to be as a host of guests: doit dom0 dry=yes shows what that changes.
# Every table and key: docs/reference/dom0-toml.md. A table that is not here changes nothing.
"""
_BRIDGE = "br-xen"
_MORE = """
# [nat.br-nat]              # guests with private addresses, behind this host's
# address = "10.0.0.1/24"

# [boot]                    # this machine has {memory} MiB of memory, {cpus} processors
# dom0_mem = "1G"           # the same for Xen's command line and the toolstack
# dom0_max_vcpus = {some}
# serial = "com1"           # {serial}

# [guests]                  # when the host stops
# save = true

# [lvm]                     # LVM here does not look into guests' volumes
# groups = {groups}

# [migration]
# hosts = ["xen2.example.org"]
"""


def draft_dom0_file(root: Path) -> str:
    """The text; what was found of memory, serial lines and volume groups stands in comments."""
    return "".join([_HEAD, *_draft_bridge(), _describe(root)])


def _draft_bridge() -> Iterator[str]:
    """The bridge with the card of the default route as its port, or one that there is already."""
    route = next(iter(_ask("-4", "route", "show", "default")), {})
    device = str(route.get("dev", ""))
    if not device:
        yield f"\n# there is no default route now\n# [bridge.{_BRIDGE}]\n# ports = []\n"
        return
    members = Path("/sys/class/net", device, "brif")
    ports = sorted(path.name for path in members.iterdir()) if members.is_dir() else [device]
    name = device if members.is_dir() else _BRIDGE
    yield f"\n[bridge.{name}]\nports = {json.dumps(ports)}\n"
    own = [
        entry
        for found in _ask("address", "show", "dev", device, "scope", "global")
        for entry in found.get("addr_info", ())
        if entry  # iproute2 leaves an empty one where an address is of another scope
    ]
    is_dynamic = any(entry.get("dynamic") for entry in own if entry.get("family") == "inet")
    fixed = [f"{entry['local']}/{entry['prefixlen']}" for entry in own if not entry.get("dynamic")]
    if is_dynamic or route.get("protocol") == "dhcp":
        yield "dhcp = true\n"
        return
    if fixed:
        yield f"address = {json.dumps(fixed if len(fixed) > 1 else fixed[0])}\n"
    if route.get("gateway"):
        yield f"gateway = {json.dumps(route['gateway'])}\n"
    for six in _ask("-6", "route", "show", "default", "dev", device):
        if six.get("gateway") and six.get("protocol") != "ra":
            yield f"gateway6 = {json.dumps(six['gateway'])}\n"


def _describe(root: Path) -> str:
    lines = Path("/proc/meminfo").read_text().split()
    cpus = len(list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*")))
    groups = sorted(path.name for path in (root / "etc/lvm/backup").glob("*"))
    lines_found = [
        path.parent.name
        for path in sorted(Path("/sys/class/tty").glob("ttyS*/type"))
        if path.read_text().strip() != "0"  # of no chip: serial_core's PORT_UNKNOWN
    ]
    return _MORE.format(
        memory=int(lines[lines.index("MemTotal:") + 1]) // 1024,
        cpus=cpus,
        some=min(2, cpus),
        serial=f"found: {', '.join(lines_found)}" if lines_found else "no serial line was found",
        groups=json.dumps(groups or ["VG0"]),
    )


def _ask(*words: str) -> list[dict[str, Any]]:
    """ip(8)'s JSON; raises PipelineError where it is none."""
    text = process.run(["ip", "-json", *words])
    try:
        return [dict(entry) for entry in json.loads(text or "[]")]
    except (ValueError, TypeError) as error:
        raise PipelineError(f"ip {' '.join(words)} gave no JSON", details=text) from error
