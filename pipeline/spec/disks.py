"""The keys of a spec about its disks, and the disks that they come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictStr

from pipeline.spec import sizes, values
from pipeline.spec.mistakes import WrongValueError

_FROZEN = ConfigDict(frozen=True, extra="forbid", defer_build=True)
MOST_PARTS = 15  # xvda1 to xvda15: what the old minor numbers have
LOADER, LOADER_FS, LOADER_MIB = "boot", "grub", 2
_OF_THE_SYSTEM = frozenset(
    ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys")
)


def _check_part_name(text: str) -> str:
    values.check_guest_name(text)
    if not all(letter.isalnum() or letter == "-" for letter in text):
        raise WrongValueError(f"{text!r} cannot be a partition's name", "letters, digits and '-'")
    return text


def _check_mountpoint(text: str) -> str:
    if text == "/":
        return text
    values.check_absolute_path(text)
    if text.endswith("/") or "//" in text:
        raise WrongValueError(f"{text!r} is not a mount point", f"write {text.rstrip('/')}")
    if text in _OF_THE_SYSTEM:
        raise WrongValueError(f"{text} must be on the root file system", "leave it out")
    return text


def _check_options(text: str) -> str:
    if not text.isprintable() or set(" \t:#") & set(text):
        raise WrongValueError(f"{text!r} are no mount options", "write them as nodev,nosuid")
    return text


Device = Annotated[StrictStr, AfterValidator(lambda text: check_device(text))]


def check_device(text: str) -> str:
    """The path of a block device."""
    values.check_absolute_path(text)
    if not text.startswith("/dev/"):
        raise WrongValueError(f"{text} is no device", "write it as /dev/sdb1")
    return text


class PartitionKeys(BaseModel):
    """One partition."""

    model_config = _FROZEN

    name: Annotated[StrictStr, AfterValidator(_check_part_name)] = Field(
        description="Its name, and the end of its volume's: GUEST-NAME.", examples=["var"]
    )
    size: Annotated[str, BeforeValidator(sizes.check_part_size)] = Field(
        description="Its size.", examples=["2G"]
    )
    fs: Literal["ext4", "ext3", "ext2", "xfs", "btrfs", "swap"] = Field(
        "",  # type: ignore[arg-type]
        description="File system, or swap. Default: the root file system's, or the suite's.",
    )
    mountpoint: Annotated[StrictStr, AfterValidator(_check_mountpoint)] = Field(
        "", description="Where the guest mounts it; none for swap.", examples=["/", "/var"]
    )
    options: Annotated[StrictStr, AfterValidator(_check_options)] = Field(
        "", description="Mount options.", examples=["nodev,nosuid"]
    )
    device: Device = Field(
        "", description="Existing block device that holds it.", examples=["/dev/sdb2"]
    )


class Disks(BaseModel):
    """Disks."""

    model_config = _FROZEN

    size: values.DiskSize = Field(
        "4G",
        description="Size of the root disk, 256M to 16T; 16777215M where output/ is on ext4.",
        examples=["4G", "1.5G", "2000Mb"],
    )
    swap: values.SwapSize = Field(
        "512M", description="Size of the swap disk; 0: none.", examples=["512M", "0"]
    )
    fs: Literal["ext4", "ext3", "ext2", "xfs", "btrfs"] = Field(
        "",  # type: ignore[arg-type]
        description="File system of the root disk. Default by suite: ext4, ext3 up to lenny.",
    )
    partitions: tuple[PartitionKeys, ...] = Field(
        (),
        description="Several partitions instead of size and swap: tables, or the name of a file in"
        " xen-tools' form, there looked for in /etc/xen-tools/partitions.d/ too.",
    )
    format: Literal["raw", "qcow2", "vhd"] = Field(
        "raw", description="Format of the disk images; swap is always raw."
    )
    image: Literal["sparse", "full"] = Field(
        "sparse",
        description="sparse: an image takes what is written to it; full: all of its size from the"
        " beginning (vhd: a fixed image instead of a dynamic one).",
    )
    clone: Literal["full", "cow"] = Field(
        "full",
        description="full: the disk is a copy of the golden image; cow: it holds what differs from"
        " it, as a qcow2 file, a thin snapshot (with lvm_thin), or by reflink (format = raw); it"
        " needs the golden image for as long as it lives.",
    )
    lvm: values.GroupName = Field(
        "", description="Volume group that holds the guest's disks.", examples=["VG0"]
    )
    lvm_thin: values.GroupName = Field(
        "", description="Thin pool of that volume group.", examples=["pool"]
    )
    image_dev: Device = Field(
        "", description="Existing block device for the root disk.", examples=["/dev/sdb1"]
    )
    swap_dev: Device = Field(
        "", description="Existing block device for swap.", examples=["/dev/sdb2"]
    )


@dataclass(frozen=True, kw_only=True)
class Part:
    """One disk of a guest, as it will be: `node` is the guest's device.

    `fs` is swap, a file system, or grub: sectors that a PC's firmware starts.

    `name` ends the name of its logical volume, `device` is "" or the block device that is given.
    """

    name: str
    size_mib: int
    fs: str
    mountpoint: str
    options: str
    node: str
    device: str = ""

    @property
    def is_root(self) -> bool:
        """Whether the guest boots from it."""
        return self.mountpoint == "/"

    @property
    def is_swap(self) -> bool:
        """Whether it is swapped on."""
        return self.fs == "swap"

    @property
    def is_loader(self) -> bool:
        """Whether a PC's firmware boots from it."""
        return self.fs == LOADER_FS

    @property
    def has_files(self) -> bool:
        """Whether it is mounted: neither swap nor the boot loader's sectors."""
        return bool(self.mountpoint)

    @property
    def vdev(self) -> str:
        """Xen's name for it, as in xvda1."""
        return self.node.removeprefix("/dev/")


def resolve_parts(keys: Disks, node_of: Callable[[int], str]) -> tuple[Part, ...]:
    """The guest's disks: root first, swap second, the others so that parents come before.

    `node_of` tells the guest's name of a partition: 1 is root, 2 swap in every guest.
    """
    if not keys.partitions:
        return _simple_parts(keys, node_of)
    root = [part for part in keys.partitions if part.mountpoint == "/"]
    swaps = [part for part in keys.partitions if part.fs == "swap"]
    rest = [part for part in keys.partitions if part not in root and part not in swaps]
    rest.sort(key=lambda part: (part.mountpoint.count("/"), part.mountpoint))
    numbers = iter(range(1 if swaps else 3, MOST_PARTS + 99))
    found = []
    for part in [*root, *swaps, *rest]:
        number = 1 if part in root else next(number for number in numbers if number != 1)
        found.append(_resolve_part(part, keys, node_of(number)))
    return tuple(found)


def _simple_parts(keys: Disks, node_of: Callable[[int], str]) -> tuple[Part, ...]:
    root = Part(
        name="disk",
        size_mib=sizes.parse_size(keys.size),
        fs=keys.fs,
        mountpoint="/",
        options=default_options(keys.fs),
        node=node_of(1),
        device=keys.image_dev,
    )
    if keys.swap == "0":
        return (root,)
    swap = Part(
        name="swap",
        size_mib=sizes.parse_size(keys.swap),
        fs="swap",
        mountpoint="",
        options="sw",
        node=node_of(2),
        device=keys.swap_dev,
    )
    return root, swap


def _resolve_part(part: PartitionKeys, keys: Disks, node: str) -> Part:
    fs = part.fs or keys.fs
    return Part(
        name=part.name,
        size_mib=sizes.parse_size(part.size),
        fs=fs,
        mountpoint=part.mountpoint,
        options=part.options or ("sw" if fs == "swap" else default_options(fs)),
        node=node,
        device=part.device,
    )


def loader_part(node: str) -> Part:
    """The disk that a full PC boots from: GRUB alone, which finds the root disk's menu."""
    return Part(
        name=LOADER, size_mib=LOADER_MIB, fs=LOADER_FS, mountpoint="", options="", node=node
    )


def default_options(fs: str) -> str:
    """What fstab says where the spec says nothing."""
    return "errors=remount-ro" if fs.startswith("ext") else "defaults"


def fill_from_partitions(filled: dict[str, Any]) -> None:
    """size, fs and swap follow from a list of partitions, where they are not given."""
    given = filled.get("partitions")
    if not isinstance(given, Sequence) or isinstance(given, str):
        return
    for part in given:
        keys = part.model_dump() if isinstance(part, PartitionKeys) else part
        if not isinstance(keys, dict):
            continue  # its own field says what is wrong with it
        if keys.get("mountpoint") == "/":
            filled.setdefault("size", keys.get("size", "4G"))
            if keys.get("fs"):
                filled.setdefault("fs", keys["fs"])
        if keys.get("fs") == "swap":
            filled.setdefault("swap", keys.get("size", "0"))
    filled.setdefault("swap", "0")
