"""The keys of a spec that say what its disks are."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr

from pipeline.errors import WrongValueError
from pipeline.spec import values
from pipeline.spec.keys import Section

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


class PartitionKeys(Section):
    """One partition."""

    name: Annotated[StrictStr, AfterValidator(_check_part_name)] = Field(
        description="Its name, and the end of its volume's: GUEST-NAME.", examples=["var"]
    )
    size: Annotated[str, BeforeValidator(values.check_part_size)] = Field(
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


class Disks(Section):
    """Disks."""

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
    disk: Literal["filesystem", "whole"] = Field(
        "filesystem",
        description="filesystem: every file system and swap is a disk of its own; whole: one disk"
        " with a partition table, boot loaders for BIOS and UEFI, and the kernel, which starts"
        " under Xen (type = 'pvh' with boot = 'grub', or 'hvm' with 'firmware') and elsewhere."
        " Default: filesystem; but whole with boot = 'firmware'.",
    )
    partitions: tuple[PartitionKeys, ...] = Field(
        (),
        description="Several partitions instead of size and swap: tables, or the name of a file in"
        " xen-tools' form, there looked for in /etc/xen-tools/partitions.d/ too.",
    )
    format: Literal["raw", "qcow2", "vhd", "xva"] = Field(
        "raw",
        description="Format of the disk images; swap is always raw. xva: a raw whole disk, and"
        " beside it NAME.xva, one file that XCP-ng and XenServer import.",
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
    cdrom: values.AbsolutePath = Field(
        "",
        description="ISO image in an HVM guest's CD drive. It is not copied: it stays there.",
        examples=["/srv/iso/debian.iso"],
    )
    image_dev: Device = Field(
        "",
        description="Existing block device for the root disk; a DRBD resource of the host is made "
        "primary when the guest starts.",
        examples=["/dev/sdb1", "/dev/drbd/by-res/r0/0"],
    )
    swap_dev: Device = Field(
        "", description="Existing block device for swap.", examples=["/dev/sdb2"]
    )
