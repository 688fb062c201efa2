"""How a domain gets its kernel: given directly, by pygrub, by GRUB for Xen, by HVM firmware."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.xen.text import check_choice, check_path, check_text

# Names under /usr/lib/grub-xen of Debian's grub-xen-host, and the older pv-grub of Xen 4.x.
_GRUB_BINARY = re.compile(
    r"grub-(?:i386|x86_64)-xen(?P<pvh>_pvh)?\.bin|pv-grub-x86_(?:32|64)\.gz|pvgrub(?:32|64)\.bin"
)
_BOOT_ORDER = re.compile(r"[acdn]{1,4}")
HVM_DIRECT_SINCE = (4, 5)


@dataclass(frozen=True)
class Direct:
    """Kernel and initial RAM disk as files of the host.

    `root` is what root= names ("/dev/xvda1"), `cmdline` the rest of the kernel's command line
    ("ro console=hvc0"), words separated by one space.
    """

    kernel: str
    ramdisk: str | None = None
    root: str | None = None
    cmdline: str = ""

    def __post_init__(self) -> None:
        check_path("kernel", self.kernel)
        if grub_domain_type(self.kernel) is not None:
            raise ValueError(f"kernel: {self.kernel} is a GRUB; say so with boot=Grub(...)")
        if self.ramdisk is not None:
            check_path("ramdisk", self.ramdisk)
        if self.root is not None:
            check_text("root", self.root)
            if not self.root or " " in self.root:
                raise ValueError(f"root: {self.root!r} must be one word, options go in cmdline")
        check_text("cmdline", self.cmdline)
        if self.cmdline != " ".join(self.cmdline.split()):
            raise ValueError("cmdline: separate its words by one space")
        if any(word.startswith("root=") for word in self.cmdline.split(" ")):
            raise ValueError("cmdline: root= belongs in the field root")

    @property
    def command_line(self) -> str:
        """The whole command line as the kernel sees it, root= first."""
        root = f"root={self.root}" if self.root else ""
        return f"{root} {self.cmdline}".strip()


@dataclass(frozen=True)
class Pygrub:
    """A boot loader that runs in dom0 and reads kernel and menu from the guest's first disk."""

    path: str = "pygrub"
    args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.path != "pygrub":
            check_path("bootloader", self.path)
        for arg in self.args:
            check_text("bootloader_args", arg)
            if not arg:
                raise ValueError("bootloader_args: an argument is empty")


@dataclass(frozen=True)
class Grub:
    """GRUB built as a Xen guest kernel: it reads grub.cfg from the guest's own disk."""

    kernel: str

    def __post_init__(self) -> None:
        check_path("kernel", self.kernel)
        if grub_domain_type(self.kernel) is None:
            raise ValueError(
                f"kernel: {self.kernel} is not a GRUB for Xen such as "
                "/usr/lib/grub-xen/grub-x86_64-xen.bin"
            )

    @property
    def domain_type(self) -> str:
        """pv or pvh: what the binary was built for."""
        return grub_domain_type(self.kernel) or "pv"


@dataclass(frozen=True)
class Firmware:
    """The firmware of an HVM domain, bios or uefi. `order`: c disk, d CD-ROM, n net, a floppy.

    `hdtype` is what the firmware's disks look like, ide or ahci (xl.cfg(5)).
    """

    kind: str = "bios"
    order: str = "c"
    hdtype: str = "ide"

    def __post_init__(self) -> None:
        check_choice("firmware", self.kind, ("bios", "uefi"))
        check_choice("hdtype", self.hdtype, ("ide", "ahci"))
        if not _BOOT_ORDER.fullmatch(self.order) or len(set(self.order)) != len(self.order):
            raise ValueError(f"boot order: {self.order!r} must be letters of acdn, each once")


Boot = Direct | Pygrub | Grub | Firmware


def grub_domain_type(path: str) -> str | None:
    """pv or pvh when the file name is that of a GRUB for Xen, else None."""
    match = _GRUB_BINARY.fullmatch(PurePosixPath(path).name)
    if match is None:
        return None
    return "pvh" if match["pvh"] else "pv"


def split_command_line(text: str) -> tuple[str | None, str]:
    """The value of root= (the last one, as the kernel takes it) and the remaining words."""
    root: str | None = None
    rest = []
    for word in text.split():
        if word.startswith("root="):
            root = word.removeprefix("root=") or None
        else:
            rest.append(word)
    return root, " ".join(rest)
