"""Menus for pygrub to read, as the element grub-menus has GRUB write them."""

from collections.abc import Sequence

from pipeline.xen.grub_menu import MenuEntry


def render_menus(entries: Sequence[MenuEntry]) -> tuple[str, str]:
    """menu.lst and grub.cfg with these entries, the first one booting after a second.

    grub.cfg also serves GRUB for Xen (PV and PVH), which looks for the kernel's file system itself.
    """
    legacy = ["default 0", "timeout 1", ""]
    modern = ["set default=0", "set timeout=1", ""]
    for entry in entries:
        line = f"{entry.kernel} {entry.args}".strip()
        initrd = [] if entry.initrd is None else [f"initrd {entry.initrd}"]
        legacy += [f"title {entry.title}", "root (hd0,0)", f"kernel {line}", *initrd, ""]
        body = [f"search --no-floppy --file --set=root {entry.kernel}", f"linux {line}", *initrd]
        modern += [
            f'menuentry "{entry.title}" --class gnu-linux {{',
            *(f"    {text}" for text in body),
            "}",
            "",
        ]
    return "\n".join(legacy), "\n".join(modern)
