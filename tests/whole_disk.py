"""A small whole disk around a file system: GRUB's partition, then the root, as our own have it."""

from pathlib import Path

from pipeline.storage import gpt
from pipeline.storage.boot_code import BIOS_FILE, EFI_FILE, GOLDEN_ROOT
from pipeline.storage.gpt import MIB, Entry, render_table
from pipeline.storage.root_place import TAIL, copy_extents, find_root

DISK = "c2a7f5a6-0b5c-4a39-8b8f-3d1d2f6a9e10"
BOOT = b"\xeb\x63".ljust(440, b"g")
ROOT_MIB = 2  # where it begins


_BIOS = bytes(510) + b"\x55\xaa" + b"GRUB" * 256  # what is taken for a loader
_MENUS = ("/boot/grub/grub.cfg", "/boot/grub/menu.lst", "/etc/default/xen-grub-menus")


def write_loaders(tree: Path) -> None:
    """What the element whole-disk makes in a tree, as far as a build looks at it."""
    menu = f"menuentry 'Linux' {{\n  linux /boot/vmlinuz root={GOLDEN_ROOT} ro\n}}\n".encode()
    files = {BIOS_FILE: _BIOS, EFI_FILE: b"MZ", **dict.fromkeys(_MENUS, menu)}
    for path, content in files.items():
        place = tree / path.strip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def entries_of(root_mib: int, *, name: str = "root", attributes: int = 0) -> list[Entry]:
    """The two partitions."""
    wanted = (("bios", gpt.BIOS_BOOT, 1, 1), (name, gpt.LINUX, ROOT_MIB, root_mib))
    return [
        Entry(
            kind=kind,
            uuid=f"00000000-0000-4000-8000-00000000000{number}",
            name=each,
            start=start * MIB,
            size=size * MIB,
            attributes=attributes,
        )
        for number, (each, kind, start, size) in enumerate(wanted, 1)
    ]


def write_table(disk: Path, entries: list[Entry]) -> Path:
    """The two copies of the table in a new file, nothing in between."""
    size = entries[-1].start + entries[-1].size + TAIL
    head, tail = render_table(entries, disk_uuid=DISK, size=size, boot=BOOT)
    with open(disk, "wb") as stream:
        stream.write(head)
        stream.truncate(size)
        stream.seek(size - len(tail))
        stream.write(tail)
    return disk


def lay(root: Path, disk: Path) -> None:
    """A disk with this file system; its file is gone then."""
    size = root.stat().st_size
    write_table(disk, entries_of(size // MIB))
    copy_extents(root, disk, start=0, size=size, at=ROOT_MIB * MIB)
    root.unlink()


def name_of(disk: Path) -> str:
    """What e2fsprogs call the root file system of a disk, whole or not."""
    with open(disk, "rb") as stream:
        is_whole = stream.read(520)[512:] == b"EFI PART"
    return find_root(disk, is_whole=is_whole).name


def is_sound(disk: Path) -> bool:
    """Whether both copies of the table say the same, each where it belongs; True for no table."""
    with open(disk, "rb") as stream:
        head = stream.read(gpt.HEAD_SECTORS * gpt.SECTOR)
        if head[gpt.SECTOR : gpt.SECTOR + 8] != b"EFI PART":
            return True
        size = stream.seek(0, 2)
        entries, disk_uuid, boot = gpt.read_table(head)
        wanted = render_table(entries, disk_uuid=disk_uuid, size=size, boot=boot)
        stream.seek(size - len(wanted[1]))
        return (head, stream.read()) == wanted
