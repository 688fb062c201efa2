"""From a spec to the domain model: which disks, which boot path, which command line."""

import uuid
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.errors import WrongValueError
from pipeline.spec.devices import Part
from pipeline.spec.model import Spec
from pipeline.xen import xl, xm
from pipeline.xen.boot import LAUNCHER, pygrub_user
from pipeline.xen.compatibility import SINCE, before
from pipeline.xen.devices import DRBD_SCRIPT, resource_of
from pipeline.xen.domain import Boot, Direct, Disk, Domain, Firmware, Framebuffer, Grub, Pygrub
from pipeline.xen.values import parse_version

# any fixed namespace does (RFC 9562 version 5): a guest keeps its UUID as long as its name
_UUIDS = uuid.UUID("1c6b9a52-0d5e-5d0b-8a43-51f0c7a0e9a1")
_LAST_XEND = (4, 4)
_CONSOLES = ("console=tty0", "console=ttyS0", "console=hvc0")
FIRMWARE_FILE = "OVMF.fd"  # beside the disk, as vmlinuz is
_GRUB_FOLDER = "/usr/lib/grub-xen"
GRUB_BINARIES = {
    ("pv", "amd64"): f"{_GRUB_FOLDER}/grub-x86_64-xen.bin",
    ("pv", "i386"): f"{_GRUB_FOLDER}/grub-i386-xen.bin",
    ("pvh", "amd64"): f"{_GRUB_FOLDER}/grub-i386-xen_pvh.bin",
    ("pvh", "i386"): f"{_GRUB_FOLDER}/grub-i386-xen_pvh.bin",
}


def without_ahci(domain: Domain) -> Domain:
    """The same for a toolstack that shows the firmware IDE disks only: slower, but it starts."""
    if not isinstance(domain.boot, Firmware):
        return domain
    return replace(domain, boot=replace(domain.boot, hdtype="ide"))


def xl_version(spec: Spec) -> str:
    """The Xen that NAME.cfg is for: the spec's, or the first with xl where that had only xend."""
    has_xl = not before("xl", parse_version(spec.xen))
    return spec.xen if has_xl else ".".join(map(str, SINCE["xl"]))


def xm_version(spec: Spec) -> str:
    """The Xen that NAME.xm is for: the spec's where it had xend, else the guest's own release's."""
    if parse_version(spec.xen) <= _LAST_XEND:
        return spec.xen
    return spec.suite_facts.own_xen or "3.2"


def make_domain(spec: Spec, folder: Path, disks: Iterable[Disk]) -> Domain:
    """The domain of a guest whose artifact is `folder`.

    Raises WrongValueError when the spec asks for what no domain can be.
    """
    return Domain(
        name=spec.name,
        uuid=spec.uuid or str(uuid.uuid5(_UUIDS, spec.name)),
        type=spec.type,
        memory_mib=spec.memory_mib,
        maxmem_mib=spec.maxmem_mib if spec.maxmem else None,
        vcpus=spec.vcpus,
        maxvcpus=spec.maxvcpus,
        cpus=spec.cpus or None,
        cpu_weight=spec.cpu_weight,
        cap=spec.cap,
        boot=make_boot(spec, folder),
        disks=_with_cd(spec, tuple(disks)),
        cards=tuple(card.device for card in spec.cards),
        framebuffer=_framebuffer(spec),
        on_poweroff=spec.on_poweroff,
        on_reboot=spec.on_reboot,
        on_crash=spec.on_crash,
    )


def make_disk(part: Part, target: str, disk_format: str) -> Disk:
    """A part as a disk of the domain; a DRBD resource of the host is made primary for it."""
    script = DRBD_SCRIPT if resource_of(target) else ""
    access = "shared" if part.is_shared else "ro" if part.is_seed else "rw"
    return Disk(target=target, vdev=part.vdev, format=disk_format, access=access, script=script)


def make_boot(spec: Spec, folder: Path) -> Boot:
    """The way into the guest's kernel that its spec asks for."""
    if spec.boot == "pygrub":
        if is_restricted(spec):
            return Pygrub(LAUNCHER, user=pygrub_user(spec.name))
        return Pygrub(spec.bootloader or "pygrub")
    if spec.boot == "grub":
        return Grub(spec.bootloader or GRUB_BINARIES[spec.type, spec.arch])
    if spec.boot == "firmware":
        # SeaBIOS reads an IDE disk word by word, each a way through Xen; an AHCI disk by DMA
        has_ahci = not before("hdtype=", parse_version(xl_version(spec)))
        hdtype = "ahci" if has_ahci and spec.type == "hvm" else "ide"
        path = str(folder / FIRMWARE_FILE) if spec.is_uefi else ""
        return Firmware(spec.firmware or "bios", spec.boot_order or "c", hdtype, path)
    return Direct(
        kernel=str(folder / "vmlinuz"),
        ramdisk=str(folder / "initrd.img"),
        root=spec.root_device,
        cmdline=command_line(spec),
    )


def _with_cd(spec: Spec, disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
    """The disks and the CD drive, in a place of QEMU's four IDE drives that no disk has."""
    if not spec.cdrom:
        return disks
    taken = {disk.vdev[-1] for disk in disks}
    free = [letter for letter in "cd" if letter not in taken]
    if not free:
        raise WrongValueError(
            "the PC's four drives are the guest's disks already",
            "swap = '0' frees one",
            key="cdrom",
        )
    drive = f"hd{free[0]}"
    return (*disks, Disk(target=spec.cdrom, vdev=drive, access="ro", devtype="cdrom"))


def is_restricted(spec: Spec) -> bool:
    """Whether its pygrub runs as a user of the guest's own."""
    return spec.boot == "pygrub" and not before("restricted pygrub", parse_version(spec.xen))


def command_line(spec: Spec) -> str:
    """The kernel's arguments after root=: read-only root, the consoles, what the spec adds.

    The last console is /dev/console: a guest with a screen shows its kernel's messages there too.
    A whole disk does not know where it will start: all consoles, and card names as the kernel has
    them, which are the same under Xen and QEMU.
    """
    if spec.is_whole:
        words = ["ro", f"rootfstype={spec.fs}", "net.ifnames=0", *_CONSOLES]
        return " ".join([*words, *spec.cmdline.split()])
    screen = ["console=tty0"] if spec.vnc else []
    words = ["ro", f"rootfstype={spec.fs}", *screen, f"console={spec.console}"]
    return " ".join([*words, *spec.cmdline.split()])


def _framebuffer(spec: Spec) -> Framebuffer | None:
    if not spec.vnc:
        return None
    return Framebuffer(
        vnclisten=spec.vnclisten or None, vncdisplay=spec.vncdisplay, keymap=spec.keymap or None
    )


def refuse_unrenderable(spec: Spec, domain: Domain) -> None:
    """Unsupported where xl cannot have this domain, or xm where the spec's Xen has only that."""
    xl.fields(domain, xen=xl_version(spec))
    if before("xl", parse_version(spec.xen)):
        xm.fields(without_ahci(domain), xen=xm_version(spec))


def find_unrenderable(spec: Spec) -> WrongValueError | None:
    """What no domain can be, or its toolstack refuses, wherever the guest's image files will be."""
    try:
        disks = [
            make_disk(
                part,
                part.device or _likely_target(spec, part),
                spec.disk_format if part.has_files else "raw",
            )
            for part in spec.disks
        ]
        refuse_unrenderable(spec, make_domain(spec, Path("/srv"), disks))
    except WrongValueError as mistake:
        return mistake
    return None


def _likely_target(spec: Spec, part: Part) -> str:
    return f"/dev/{spec.lvm}/{spec.name}-{part.name}" if spec.lvm else f"/srv/{part.name}.img"
