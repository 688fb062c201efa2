"""What only a full PC has: a CD drive, and firmware that looks for a system in some order."""

from collections.abc import Iterator

from pipeline.errors import Finding
from pipeline.spec.model import Spec


def check_pc(spec: Spec) -> Iterator[Finding]:
    """Both keys against the kind of guest and the way to boot, and against one another."""
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


def _clash(key: str, message: str, hint: str, *others: str) -> Finding:
    return Finding("error", key, message, hint, others=others)
