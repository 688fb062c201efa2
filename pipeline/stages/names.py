"""Names of files that more than one stage, or a stage and a check, must agree on."""

from __future__ import annotations

from pipeline.spec import Spec

KNOWN_HOSTS = "known_hosts"
DISKS = ("disk.*", "swap.img")


def disk_name(spec: Spec) -> str:
    """disk.img, or disk.qcow2."""
    return "disk.qcow2" if spec.format == "qcow2" else "disk.img"
