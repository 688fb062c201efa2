"""Where each disk of a guest ends up: an image file, a logical volume, a device that is given."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.spec.devices import Part
from pipeline.storage import lvm
from pipeline.storage.lvm import Volume

MIB = 1 << 20
GUEST_TAG, PROJECT_TAG, GOLDEN_TAG = "domu:guest=", "domu:project=", "domu:golden="
SUFFIXES = {"raw": "img", "qcow2": "qcow2", "vhd": "vhd"}


@dataclass(frozen=True)
class FileTarget:
    """An image file in the artifact folder."""

    part: Part
    path: Path
    format: str
    is_full: bool = False

    @property
    def kind(self) -> str:
        return "file"


@dataclass(frozen=True)
class LogicalTarget:
    """A logical volume of its own, GUEST-PART; in a thin pool where `pool` is set."""

    part: Part
    guest: str
    group: str
    pool: str
    project: str
    format: str = "raw"

    @property
    def kind(self) -> str:
        return "thin" if self.pool else "volume"

    @property
    def name(self) -> str:
        return f"{self.guest}-{self.part.name}"

    @property
    def path(self) -> Path:
        return Path("/dev", self.group, self.name)

    @property
    def tags(self) -> list[str]:
        """What marks a volume as this guest's, and as made by this project."""
        return [f"{GUEST_TAG}{self.guest}", f"{PROJECT_TAG}{self.project}"]

    def find(self, run: lvm.Run) -> Volume | None:
        """The volume of that name as it is now."""
        return lvm.find_volume(run, self.group, self.name)


@dataclass(frozen=True)
class DeviceTarget:
    """A block device that the spec names: there is no second one, so it is written in place."""

    part: Part
    path: Path
    format: str = "raw"

    @property
    def kind(self) -> str:
        """It was there before us."""
        return "device"


AnyTarget = FileTarget | LogicalTarget | DeviceTarget


def targets_of(spec: Spec, project: Project) -> tuple[AnyTarget, ...]:
    """Where the disks of a guest go, in the order of its parts."""
    return tuple(_target_of(part, spec, project) for part in spec.parts)


def project_mark(project: Project) -> str:
    """What tells the volumes of this project from those of another on the same host."""
    return hashlib.sha256(str(project.output).encode()).hexdigest()[:12]


def file_name(part: Part, disk_format: str) -> str:
    """disk.img, disk.qcow2, swap.img, disk-home.img."""
    if part.is_swap:
        return "swap.img"
    if part.is_loader:
        return "disk-boot.img"
    stem = "disk" if part.is_root else f"disk-{part.name}"
    return f"{stem}.{SUFFIXES[disk_format]}"


def _target_of(part: Part, spec: Spec, project: Project) -> AnyTarget:
    if part.device:
        return DeviceTarget(part, Path(part.device))
    if spec.lvm:
        return LogicalTarget(part, spec.name, spec.lvm, spec.lvm_thin, project_mark(project))
    disk_format = spec.format if part.has_files else "raw"
    path = project.artifact(spec.name) / file_name(part, disk_format)
    return FileTarget(part, path, disk_format, is_full=spec.image == "full")
