"""Where each disk of a guest ends up: an image file, a logical volume, a device that is given.

And the names by which our volumes are known: their own, those that they have until a guest is whole
(NEW), those of volumes that another took the place of (OLD), and tags: GUEST_TAG and PROJECT_TAG of
what a build made, INSTALLED_TAG of what was copied onto this host, GOLDEN_TAG of golden images.
"""

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.spec.devices import Part

MIB = 1 << 20
GUEST_TAG, PROJECT_TAG, GOLDEN_TAG = "domu:guest=", "domu:project=", "domu:golden="
INSTALLED_TAG = "domu:installed="
NEW, OLD = ".new-", ".old-"
SUFFIXES = {"raw": "img", "qcow2": "qcow2", "vhd": "vhd"}


@dataclass(frozen=True)
class Target:
    """One disk's place: `kind` is file, volume, thin, device, or elsewhere: another guest's.

    `path` is what the domain configuration names; a `device` that is given is written in place. A
    volume has its thin pool, "" for none, and its tags; `is_full` is for files alone.
    """

    part: Part
    kind: str
    path: Path
    format: str = "raw"
    is_full: bool = False
    pool: str = ""
    tags: tuple[str, ...] = ()

    @property
    def is_volume(self) -> bool:
        """Whether it is a logical volume, thick or thin."""
        return self.kind in ("volume", "thin")

    @property
    def is_own(self) -> bool:
        """Whether the guest's build makes it."""
        return self.kind != "elsewhere"

    @property
    def group(self) -> str:
        """A logical volume's group."""
        return self.path.parent.name


def targets_of(spec: Spec, project: Project) -> tuple[Target, ...]:
    """Where the disks of a guest go, in the order of its `disks`."""
    return tuple(_target_of(part, spec, project) for part in spec.disks)


def _target_of(part: Part, spec: Spec, project: Project) -> Target:
    if part.device:
        return Target(part, "device", Path(part.device))
    owner = part.owner or spec.name
    if spec.lvm:
        # the names that xen-tools gives
        path = Path("/dev", spec.lvm, f"{owner}-{part.name}")
    else:
        disk_format = spec.disk_format if part.has_files else "raw"
        path = project.artifact(owner) / file_name(part, disk_format)
    if owner != spec.name:
        return Target(part, "elsewhere", path)
    if spec.lvm:
        tags = (f"{GUEST_TAG}{spec.name}", f"{PROJECT_TAG}{project_mark(project)}")
        kind = "thin" if spec.lvm_thin else "volume"
        return Target(part, kind, path, pool=spec.lvm_thin, tags=tags)
    return Target(part, "file", path, disk_format, is_full=spec.image == "full")


def project_mark(project: Project) -> str:
    """What tells the volumes of this project from those of another on the same host."""
    return hashlib.sha256(str(project.output).encode()).hexdigest()[:12]


def file_name(part: Part, disk_format: str) -> str:
    """disk.img, disk.qcow2, swap.img, disk-home.img."""
    if part.is_swap:
        return "swap.img"
    if part.is_seed:
        return "seed.img"
    stem = "disk" if part.is_root else f"disk-{part.name}"
    return f"{stem}.{SUFFIXES[disk_format]}"


def volume_path(group: str, name: str, file: str, generation: int) -> Path:
    """The device of an installed disk: /dev/VG0/web1-disk; disk-home.img becomes web1-home."""
    part = file.partition(".")[0].removeprefix("disk-")
    tail = f".{generation}" if generation > 1 else ""
    return Path("/dev", group, f"{name}-{part}{tail}")


def name_new(final: str) -> str:
    """A temporary name for a volume that is made to get the name `final`."""
    return f"{final}{NEW}{uuid.uuid4().hex[:8]}"


def is_temporary(name: str) -> bool:
    """Whether a volume of ours with this name is not, or no more, a guest's disk."""
    return NEW in name or OLD in name
