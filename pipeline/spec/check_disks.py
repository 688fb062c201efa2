"""Keys about disks that do not go together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.spec import sizes
from pipeline.spec.clashes import Clash
from pipeline.spec.disks import LOADER, MOST_PARTS, Part

if TYPE_CHECKING:
    from pipeline.spec.model import Spec

# mkfs.xfs(8) of 5.19 and later; mkfs.btrfs(8); a journal of its own in mke2fs(8)
LEAST_MIB = {"xfs": 300, "btrfs": 128, "ext4": 16, "ext3": 16, "ext2": 1, "swap": 1}
VHD_MOST_MIB = 2040 << 10  # the format's block table ends there
_DM_NAME_MOST = 127
_LONGEST_SUFFIX = ".new-12345678"


def find_disk_clashes(spec: Spec) -> Iterator[Clash]:
    """All of them."""
    for check in (check_volumes, check_clone, check_names, check_partitions, check_sizes):
        yield from check(spec)


def check_volumes(spec: Spec) -> Iterator[Clash]:
    """Logical volumes and given devices against the format of image files."""
    if spec.lvm_thin and not spec.lvm:
        yield Clash("lvm_thin", "a thin pool needs its volume group", "write lvm = 'VG0' too")
    if spec.format != "raw":
        for key, what in (("lvm", "a logical volume"), ("image_dev", "a device")):
            if getattr(spec, key):
                yield Clash("format", f"{what} holds no {spec.format}", "leave format out", (key,))
    if spec.image == "full":
        if spec.format == "qcow2" or spec.clone == "cow":
            yield Clash(
                "image",
                "a qcow2 or copy-on-write image grows by what is written",
                "leave image out",
                ("format", "clone"),
            )
        if spec.lvm:
            yield Clash("image", "a logical volume is no image file", "leave image out", ("lvm",))
    if spec.swap_dev and spec.swap == "0":
        yield Clash("swap_dev", "there is no swap", "leave it out, or give swap a size", ("swap",))


def check_clone(spec: Spec) -> Iterator[Clash]:
    """What a copy-on-write guest needs."""
    if spec.clone != "cow":
        return
    if spec.lvm and not spec.lvm_thin:
        yield Clash(
            "clone",
            "a copy-on-write volume is a thin snapshot",
            "write lvm_thin = the name of a thin pool, or clone = 'full'",
            ("lvm",),
        )
    if spec.format == "vhd":
        yield Clash(
            "format", "a copy-on-write disk is qcow2 or raw", "leave format out", ("clone",)
        )
    if spec.image_dev or any(part.device and part.has_files for part in spec.parts):
        yield Clash("clone", "a given device is written whole", "leave clone out", ("image_dev",))
    if spec.format == "qcow2" and any(part.fs in ("xfs", "btrfs") for part in spec.parts):
        yield Clash(
            "clone",
            f"a qcow2 overlay of {spec.fs} cannot be given its identity",
            "use ext4, format = 'raw' (reflink), lvm_thin, or clone = 'full'",
            ("fs",),
        )


def check_names(spec: Spec) -> Iterator[Clash]:
    """device-mapper's names are short, and a '-' counts twice in them."""
    if not spec.lvm:
        return
    group = len(spec.lvm) + spec.lvm.count("-")
    for part in spec.parts:
        name = f"{spec.name}-{part.name}{_LONGEST_SUFFIX}"
        if group + 1 + len(name) + name.count("-") > _DM_NAME_MOST:
            yield Clash(
                "lvm",
                f"{spec.lvm}/{spec.name}-{part.name} is too long a name for device-mapper",
                f"at most {_DM_NAME_MOST} letters together, a '-' counts twice",
                ("name",),
            )


def check_partitions(spec: Spec) -> Iterator[Clash]:
    """One root, one swap, every name and mount point once."""
    if not spec.partitions:
        return
    roots = [part for part in spec.partitions if part.mountpoint == "/"]
    swaps = [part for part in spec.partitions if part.fs == "swap"]
    if len(roots) != 1:
        yield Clash(
            "partitions", f"{len(roots)} of them have mountpoint = '/'", "there must be one"
        )
    if len(swaps) > 1:
        yield Clash("partitions", f"{len(swaps)} of them are swap", "keep one")
    if len(spec.partitions) > MOST_PARTS:
        yield Clash("partitions", f"more than {MOST_PARTS}", "Xen's disks have no more")
    for key in ("name", "mountpoint", "device"):
        counts = Counter(getattr(part, key) for part in spec.partitions)
        for value, count in counts.items():
            if count > 1 and value:
                yield Clash("partitions", f"{count} of them have {key} = '{value}'")
    for part in spec.partitions:
        if bool(part.mountpoint) == (part.fs == "swap"):
            hint = "swap has no mountpoint, everything else has one"
            yield Clash("partitions", f"{part.name}: mountpoint = '{part.mountpoint}'", hint)
        if (
            part.name in ("disk", "swap")
            and {"disk": "/", "swap": ""}[part.name] != part.mountpoint
        ):
            yield Clash("partitions", f"'{part.name}' is the root's or swap's name", "name it else")
        if part.name == LOADER and spec.boot == "firmware":
            hint = "name it else, e.g. kernels"
            yield Clash("partitions", f"'{LOADER}' is the boot loader's disk", hint, ("boot",))
        if part.mountpoint == "/usr" and (part.fs or spec.fs) != spec.fs:
            hint = f"write {spec.fs}: the initial ramdisk mounts it with the root's module"
            yield Clash("partitions", f"{part.name}: /usr cannot be {part.fs}", hint)
    yield from _check_agreement(
        spec, roots[0].size if roots else "", swaps[0].size if swaps else "0"
    )


def _check_agreement(spec: Spec, root_size: str, swap_size: str) -> Iterator[Clash]:
    for key, size in (("size", root_size), ("swap", swap_size)):
        if size and getattr(spec, key) != size:
            message = f"'{getattr(spec, key)}' although the partitions say {size}"
            yield Clash(key, message, f"leave {key} out", ("partitions",))
    root = next((part for part in spec.partitions if part.mountpoint == "/"), None)
    if root is not None and root.fs not in ("", spec.fs):
        yield Clash(
            "fs",
            f"{spec.fs} although the partitions say {root.fs}",
            "leave it out",
            ("partitions",),
        )
    for key in ("image_dev", "swap_dev"):
        if getattr(spec, key):
            hint = "write device = into the partition"
            yield Clash(key, "the disks are partitions", hint, ("partitions",))


def check_sizes(spec: Spec) -> Iterator[Clash]:
    """What a file system needs at least, what an image format holds at most."""
    for part in spec.parts:
        yield from _check_size(spec, part)
        known = (*spec.suite_facts.filesystems, "swap")
        if part.fs not in known and part.has_files and not part.is_root:
            yield Clash(
                "partitions",
                f"{part.name}: {spec.suite} cannot mount {part.fs}",
                f"write {', '.join(known)}",
                ("suite",),
            )


def _check_size(spec: Spec, part: Part) -> Iterator[Clash]:
    key = "partitions" if spec.partitions else "swap" if part.is_swap else "size"
    least = LEAST_MIB.get(part.fs, 1)
    if part.size_mib < least:
        yield Clash(
            key,
            f"{sizes.show_size(part.size_mib)} is too small for {part.fs}",
            f"at least {least}M",
            ("fs",),
        )
    if spec.format == "vhd" and part.has_files and part.size_mib > VHD_MOST_MIB:
        yield Clash(
            key,
            f"{sizes.show_size(part.size_mib)}: a VHD holds 2040 GiB at most",
            "write size = '2040G' or less, or format = 'raw'",
            ("format",),
        )
