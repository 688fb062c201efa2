"""What a host's Xen runs, by its capabilities: xen_caps of `xl info`, the words of sysfs."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pipeline.errors import Finding

# where Linux shows them to whoever runs below Xen (its sysfs-hypervisor-xen)
PATH = "sys/hypervisor/properties/capabilities"


def find_unable(kind: str, arch: str, caps: Collection[str]) -> Iterator[Finding]:
    """Why this Xen starts no guest of a type and architecture; nothing where no caps are known."""
    if not caps:
        return
    if kind != "pv" and not has_hvm(caps):
        yield Finding(
            "error",
            "type",
            f"type {kind} needs VT-x or AMD-V, which Xen does not see here",
            "switch it on in the firmware (Intel VT-x, AMD SVM), or type=pv",
        )
    if kind == "pv" and arch == "i386" and not any(cap.endswith("x86_32p") for cap in caps):
        yield Finding(
            "error",
            "arch",
            "this Xen runs no 32-bit PV guests",
            "arch=amd64, type=pvh, or boot Xen with pv=32 where it was built with it",
        )


def has_hvm(caps: Collection[str]) -> bool:
    """Whether Xen uses the processor's virtualisation: PVH and HVM guests start."""
    return any(cap.startswith("hvm") for cap in caps)
