"""What a whole disk starts by: table, loaders, and that menu and fstab name the root (B3, C2)."""

from collections.abc import Iterator

from pipeline.check.facts import Facts, compare, judge
from pipeline.check.image import MOST_FILE
from pipeline.errors import Finding
from pipeline.guest.portable_machine import xva_name
from pipeline.storage.boot_code import BIOS_FILE, EFI_FILE, BootCode
from pipeline.storage.whole_disk import lay_out
from pipeline.xen.boot import split_command_line
from pipeline.xen.grub_menu import parse_grub_cfg
from pipeline.xen.values import SyntaxFault

GRUB_CFG = "/boot/grub/grub.cfg"
_CODE_ENDS = 440


def check_whole_disk(facts: Facts) -> Iterator[Finding]:
    """Nothing is said of guests that are bare file systems."""
    if facts.whole is not None:
        yield from _check_table(facts)
        yield from _check_loaders(facts)
        yield _check_menu(facts)


def _check_table(facts: Facts) -> Iterator[Finding]:
    assert facts.whole is not None
    hint = "sgdisk --verify says more; a lost copy is written again by sgdisk --move-second-header"
    yield judge("B3", "partition table", facts.whole.table, ok="both copies", hint=hint)
    count = len(lay_out(facts.spec, facts.spec.disks[0]))
    yield judge("B3", "partitions", facts.whole.strange, ok=f"{count}, as they were made")


def _check_loaders(facts: Facts) -> Iterator[Finding]:
    """What the firmware starts is what the element made, told where it lies."""
    whole, tree = facts.whole, facts.tree
    assert whole is not None
    bios, *_ = lay_out(facts.spec, facts.spec.disks[0])
    made = BootCode(tree.content(BIOS_FILE), tree.content(EFI_FILE))
    faults = [f"no {BIOS_FILE} to compare with"]
    if len(made.bios) > 1024:
        boot, core = made.at(bios.start // 512)
        faults = [] if whole.boot[:_CODE_ENDS] == boot else ["another boot sector"]
        faults += [] if whole.core[: len(core)] == core else ["another core.img"]
    yield judge("C2", "GRUB for BIOS", faults, ok=f"{len(made.bios) >> 10} KiB")
    if facts.spec.has_efi_loader:
        faults = [] if whole.efi else ["no EFI/BOOT/BOOTX64.EFI"]
        faults += ["another BOOTX64.EFI"] if whole.efi and whole.efi != made.efi else []
        yield judge("C2", "GRUB for UEFI", faults, ok=f"{len(whole.efi) >> 10} KiB")


def _check_menu(facts: Facts) -> Finding:
    """The menu's root= is the root file system that is there."""
    try:
        args = parse_grub_cfg(facts.tree.text(GRUB_CFG, limit=MOST_FILE)).default_entry.args
    except SyntaxFault as fault:
        return judge("C2", "root in the menu", [str(fault)], ok="a menu that can be read")
    root, _ = split_command_line(args)
    wanted = f"UUID={facts.file_system.uuid}"
    return compare("C2", "root in the menu", expected=wanted, seen=root or "none")


def check_xva(facts: Facts) -> Iterator[Finding]:
    """The file for XCP-ng and XenServer is what an importer demands, and holds this disk."""
    if facts.spec.format == "xva":
        hint = f"build it again: doit build name={facts.spec.name} replace=yes"
        ok = "as an importer demands, with a disk that its guest has changed since here"
        ok = ok if facts.written else "as an importer demands, with the disk beside it"
        yield judge("D8", xva_name(facts.spec.name), facts.xva, ok=ok, hint=hint)


CHECKS = (check_whole_disk, check_xva)
