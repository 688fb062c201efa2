"""What LVM2 reports: volume groups, logical volumes and thin pools as records.

The fields are those of `lvs -o help` and `vgs -o help`; the form is lvmreport(7)'s json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentFault

GROUP_FIELDS = "vg_name,vg_uuid,vg_size,vg_free,vg_extent_size,vg_free_count"
VOLUME_FIELDS = (
    "vg_name,lv_name,lv_uuid,lv_size,lv_attr,lv_tags,pool_lv,origin,data_percent,"
    "metadata_percent,lv_kernel_major,lv_kernel_minor,chunk_size,zero"
)
FORM = ("--reportformat", "json", "--units", "b", "--nosuffix")


@dataclass(frozen=True)
class Group:
    """A volume group; sizes in bytes."""

    name: str
    size: int
    free: int
    extent: int
    free_extents: int

    def extents(self, size_bytes: int) -> int:
        """How many extents that many bytes take."""
        return -(-size_bytes // self.extent)


@dataclass(frozen=True)
class Volume:
    """A logical volume. Sizes in bytes, `filled` and `metadata_filled` in percent of a pool.

    `device` is the kernel's (major, minor), None while it is not active; `zeroes` says of a thin
    pool whether it hands out its blocks zeroed.
    """

    group: str
    name: str
    uuid: str
    size: int
    attributes: str
    tags: frozenset[str] = frozenset()
    pool: str = ""
    origin: str = ""
    filled: float = 0.0
    metadata_filled: float = 0.0
    device: tuple[int, int] | None = None
    chunk: int = 0
    zeroes: bool = True

    @property
    def path(self) -> Path:
        """The name by which everybody opens it."""
        return Path("/dev", self.group, self.name)

    @property
    def is_pool(self) -> bool:
        """Whether it is a thin pool."""
        return self.attributes.startswith("t")

    @property
    def is_thin(self) -> bool:
        """Whether it lives in a thin pool."""
        return self.attributes.startswith("V")


def parse_report(text: str, kind: str) -> list[dict[str, Any]]:
    """The rows of a report (`vg`, `lv`); LVM's warnings may stand before and after it.

    Raises EnvironmentFault when there is no report in it.
    """
    found = re.search(r"^\s*\{\s*$", text, re.MULTILINE)
    if found is None:
        raise EnvironmentFault(f"LVM gives no report: {text.strip()[-300:] or 'nothing'}")
    report = json.JSONDecoder().raw_decode(text, text.index("{", found.start()))[0]
    return [row for part in report["report"] for row in part.get(kind, [])]


def make_group(row: Mapping[str, Any]) -> Group:
    """The record of one row of vgs."""
    return Group(
        name=row["vg_name"],
        size=int(row["vg_size"]),
        free=int(row["vg_free"]),
        extent=int(row["vg_extent_size"]),
        free_extents=int(row["vg_free_count"]),
    )


def make_volume(row: Mapping[str, Any]) -> Volume:
    """The record of one row of lvs."""
    major, minor = row["lv_kernel_major"], row["lv_kernel_minor"]
    is_active = major not in ("", "-1")
    return Volume(
        group=row["vg_name"],
        name=row["lv_name"],
        uuid=row["lv_uuid"],
        size=int(row["lv_size"]),
        attributes=row["lv_attr"],
        tags=frozenset(filter(None, row["lv_tags"].split(","))),
        pool=row["pool_lv"],
        origin=row["origin"],
        filled=float(row["data_percent"] or 0),
        metadata_filled=float(row["metadata_percent"] or 0),
        device=(int(major), int(minor)) if is_active else None,
        chunk=int(row["chunk_size"] or 0),
        zeroes=row["zero"] in ("zero", "1"),
    )
