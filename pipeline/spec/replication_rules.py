"""Replicated and shared disks: what does not go together in one of the guests."""

import ipaddress
from collections import Counter
from collections.abc import Iterator

from pipeline.errors import Finding
from pipeline.spec.devices import MOST_PARTS
from pipeline.spec.model import Spec
from pipeline.spec.replication import ReplicatedKeys
from pipeline.xen.devices import resource_of

_SINCE = (3, 8)  # DRBD 8.4, which reads the resource files of today
_TAKEN = ("disk", "swap", "boot")


def check_replicated(spec: Spec) -> Iterator[Finding]:
    """Each replicated disk against the guest's cards and kernel; shared ones against the others."""
    if spec.replicated and spec.linux < _SINCE:
        version = ".".join(map(str, _SINCE))
        message = f"{spec.suite}'s kernel has no DRBD 8.4: it came with Linux {version}"
        yield _clash("replicated", message, "take a suite from jessie on", "suite", "kernel")
    if len(spec.parts) > MOST_PARTS:
        key = "replicated" if spec.replicated else "shared"
        yield _clash(key, f"{len(spec.parts)} disks", f"at most {MOST_PARTS}")
    for index, node in enumerate(spec.replicated):
        yield from _check_node(spec, node, f"replicated[{index}].")
    for key in ("name", "minor", "port"):
        counts = Counter(getattr(node, key) for node in spec.replicated)
        for value, count in counts.items():
            if count > 1:
                yield _clash("replicated", f"{count} of them have {key} = {value}", "one each")
    yield from _check_shared(spec)


def _check_shared(spec: Spec) -> Iterator[Finding]:
    others = {*_TAKEN, *(part.name for part in spec.partitions)}
    others |= {node.name for node in spec.replicated}
    counts = Counter(disk.name for disk in spec.shared)
    for index, disk in enumerate(spec.shared):
        if disk.name in others or counts[disk.name] > 1:
            message = f"'{disk.name}' is another disk's name"
            yield _clash(f"shared[{index}].name", message, "name it else")


def check_host_resources(spec: Spec) -> Iterator[Finding]:
    """Disks that are DRBD resources of the host: there only once the guest is being started."""
    if spec.boot != "pygrub":
        return
    for part in spec.parts:
        if resource_of(part.device):
            message = f"pygrub reads the disk before {resource_of(part.device)} is primary"
            key = "partitions" if spec.partitions else "image_dev"
            yield _clash("boot", message, "write boot = 'direct' or 'grub'", key)


def _check_node(spec: Spec, node: ReplicatedKeys, prefix: str) -> Iterator[Finding]:
    others = {part.name for part in spec.partitions}
    if node.name in {*_TAKEN, *others}:
        yield _clash(f"{prefix}name", f"'{node.name}' is another disk's name", "name it else")
    if bool(node.pair) == bool(node.secret_file):
        hint = "write pair = a name that both nodes give, or secret_file = a file of yours"
        yield _clash(f"{prefix}pair", "the nodes' common secret must come from one place", hint)
    if node.peer.partition(".")[0] == spec.short_hostname:
        yield _clash(f"{prefix}peer", f"'{node.peer}' is this guest", "", "hostname")
    own, other = map(ipaddress.ip_address, (node.address, node.peer_address))
    if own == other:
        yield _clash(f"{prefix}peer_address", f"{other} is this node's own address")
    if own.version != other.version:
        message = f"{other} cannot be reached from {own}"
        yield _clash(f"{prefix}peer_address", message, "write both as IPv4 or as IPv6")
    known = [address.ip for card in spec.cards for address in card.addresses]
    if own not in known:
        message = f"{own} is no fixed address of this guest"
        hint = f"it has {', '.join(map(str, known)) or 'none'}: see address and interfaces"
        yield _clash(f"{prefix}address", message, hint, "address", "interfaces", "dhcp")


def _clash(key: str, message: str, hint: str = "", *others: str) -> Finding:
    return Finding("error", key, message, hint, others=others)
