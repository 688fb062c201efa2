"""Names of files that more than one stage, or a stage and a check, must agree on."""

from __future__ import annotations

KNOWN_HOSTS = "known_hosts"
DISKS = ("disk.*", "disk-*", "swap.img")
