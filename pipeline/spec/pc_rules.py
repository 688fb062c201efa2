"""What only a full PC has: a CD drive, and firmware that looks for a system in some order."""

from collections.abc import Iterator

from pipeline.errors import Finding
from pipeline.spec.model import Spec


def check_pc(spec: Spec) -> Iterator[Finding]:
    """The keys against the kind of guest and the way to boot, and against one another."""
    yield from check_firmware(spec)
    if spec.cdrom and spec.type != "hvm":
        yield _clash(
            "cdrom",
            "PV and PVH guests have no CD drive",
            "write type = 'hvm'; or give the image as a disk: xl block-attach",
            "type",
        )
    if spec.boot_order and spec.boot != "firmware":
        yield _clash(
            "boot_order",
            f"a guest with boot = '{spec.boot}' has no firmware that looks for a system",
            "write type = 'hvm' and boot = 'firmware' too, or leave it out",
            "boot",
        )
    elif "d" in spec.boot_order and not spec.cdrom:
        yield _clash("boot_order", "d is the CD, and there is none", "write cdrom too", "cdrom")
    if "a" in spec.boot_order:
        yield _clash("boot_order", "a is a floppy, and the PC has none", "leave a out")


def check_firmware(spec: Spec) -> Iterator[Finding]:
    """UEFI against the kind of guest; xl tells it no order, and its variables are not kept."""
    if not spec.firmware:
        return
    if spec.boot != "firmware":
        yield _clash(
            "firmware",
            f"a guest with boot = '{spec.boot}' is started by no firmware",
            "write boot = 'firmware', or leave it out",
            "boot",
        )
    elif spec.firmware == "uefi" and spec.type == "pv":
        yield _clash(
            "firmware", "a PV guest has no firmware", "write type = 'pvh' or 'hvm'", "type"
        )
    elif spec.firmware == "uefi" and spec.arch != "amd64":
        hint = "write firmware = 'bios', or arch = 'amd64'"
        yield _clash("firmware", f"UEFI is built for amd64, not for {spec.arch}", hint, "arch")
    if spec.firmware == "uefi" and spec.boot_order:
        yield _clash(
            "boot_order",
            "xl gives UEFI no order: it starts the first disk with \\EFI\\BOOT\\BOOTX64.EFI",
            "leave it out, or write firmware = 'bios'",
            "firmware",
        )


def _clash(key: str, message: str, hint: str, *others: str) -> Finding:
    return Finding("error", key, message, hint, others=others)
