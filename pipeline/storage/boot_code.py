"""What starts a whole disk: GRUB for a PC's BIOS and for UEFI, the menus with the root's UUID.

The element whole-disk has made GRUB in the guest's tree, out of the suite's own packages. GRUB
looks for /boot/grub/grub.cfg on the disk that it came from, so that golden images and loaders hold
no identity; the kernel is told the UUID, which the menus get with the rest of the identity.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import PipelineError
from pipeline.spec import Spec
from pipeline.storage.ext import IdentityFile
from pipeline.storage.images import identity_uuid

BIOS_FILE, EFI_FILE = "/boot/grub/whole-disk.img", "/boot/grub/whole-disk.efi"
EFI_PATH = "EFI/BOOT/BOOTX64.EFI"
GOLDEN_ROOT = "LABEL=root"  # the golden image's own, before it has an identity
_MENUS = ("/boot/grub/grub.cfg", "/boot/grub/menu.lst", "/etc/default/xen-grub-menus")
SECTOR = 512
# i386-pc/boot.img: where core.img begins (GRUB_BOOT_MACHINE_KERNEL_SECTOR); its code ends there
_KERNEL_SECTOR, _BOOT_CODE = 0x5C, 440
# i386-pc/diskboot.img, core.img's first sector: where the second one is
_REST_SECTOR = SECTOR - 12


@dataclass(frozen=True)
class BootCode:
    """`bios` is GRUB's boot.img and core.img, `efi` its image for UEFI, b"" where there is none."""

    bios: bytes
    efi: bytes

    def at(self, sector: int) -> tuple[bytes, bytes]:
        """The boot sector's code, and core.img as it has to be from this sector on."""
        boot, core = bytearray(self.bios[:_BOOT_CODE]), bytearray(self.bios[SECTOR:])
        struct.pack_into("<Q", boot, _KERNEL_SECTOR, sector)
        struct.pack_into("<Q", core, _REST_SECTOR, sector + 1)
        return bytes(boot), bytes(core)


def read_boot_code(read: Callable[[str], bytes], *, has_efi: bool) -> BootCode:
    """What `read` finds in the guest's tree; PipelineError for what is no boot loader."""
    code = BootCode(read(BIOS_FILE), read(EFI_FILE) if has_efi else b"")
    bios = code.bios
    if bios[SECTOR - 2 : SECTOR] != b"\x55\xaa" or not any(bios[SECTOR : 2 * SECTOR]):
        raise _damaged(BIOS_FILE)
    if has_efi and code.efi[:2] != b"MZ":
        raise _damaged(EFI_FILE)
    return code


def name_root(read: Callable[[str], bytes], spec: Spec) -> list[IdentityFile]:
    """The menus, and what they are made of, with the root by its UUID."""
    named = GOLDEN_ROOT.encode()
    uuid = identity_uuid(spec, next(part for part in spec.parts if part.is_root))
    files = []
    for path in _MENUS:
        text = read(path)
        if named not in text:
            raise PipelineError(
                f"{path} of the guest does not name its root as {GOLDEN_ROOT}",
                hint="an element changed it: look into its scripts",
            )
        files.append(IdentityFile(path, text.replace(named, f"UUID={uuid}".encode())))
    return files


def _damaged(path: str) -> PipelineError:
    return PipelineError(
        f"{path} of the guest is no boot loader", hint="the element whole-disk makes it"
    )
