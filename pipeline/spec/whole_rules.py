"""What a whole disk cannot be: started in other ways, cloned, put together of given devices."""

from collections.abc import Iterator

from pipeline.errors import Finding
from pipeline.spec.model import Spec

_STARTS = {("pvh", "grub"), ("hvm", "firmware")}


def check_whole(spec: Spec) -> Iterator[Finding]:
    """The key `disk` against all that makes a disk."""
    if not spec.is_whole:
        yield from _check_bare(spec)
        return
    if (spec.type, spec.boot) not in _STARTS and not (spec.is_uefi and spec.type == "pvh"):
        yield _clash(
            "disk",
            f"a whole disk starts by its own boot loader, not as {spec.type} by {spec.boot}",
            "write boot = 'grub' with type = 'pvh', or boot = 'firmware' with type = 'hvm'",
            *("type", "boot"),
        )
    if spec.is_uefi and not spec.has_efi_loader:
        yield _clash(
            "firmware",
            f"{spec.suite}'s GRUB has no loader that UEFI starts",
            *("write firmware = 'bios'", "suite"),
        )
    if spec.adopted:
        yield _clash(
            "disk",
            "no boot loader is made for a tree that was adopted",
            *("leave disk out", "adopted"),
        )
    if spec.clone == "cow":
        yield _clash(
            "clone",
            "golden images are file systems, and a whole disk rests on no such thing",
            *("write clone = 'full', or leave disk out", "disk"),
        )
    if spec.swap_dev:
        yield _clash("swap_dev", "swap is a partition of the whole disk", "leave it out", "disk")
    for part in spec.partitions:
        if part.device:
            yield _clash(
                "partitions",
                f"{part.name}: device = '{part.device}' although it lies on the whole disk",
                *("write image_dev = the device of the whole disk", "disk"),
            )


def _check_bare(spec: Spec) -> Iterator[Finding]:
    """What wants a disk that starts by itself."""
    if spec.format == "xva":
        yield _clash(
            "format",
            "XCP-ng starts a machine from a disk with a boot loader, not a bare file system",
            *("write disk = 'whole' too", "disk"),
        )
    if spec.boot == "firmware":
        yield _clash(
            "disk",
            "a PC's firmware starts a whole disk, no bare file system",
            *("leave disk out", "boot"),
        )


def _clash(key: str, message: str, hint: str, *others: str) -> Finding:
    return Finding("error", key, message, hint, others=others)
