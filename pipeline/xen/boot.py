"""How a domain gets its kernel: given directly, by pygrub, by GRUB for Xen, by HVM firmware."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.errors import WrongValueError
from pipeline.xen.values import check_choice, check_file_path, check_key, check_text

# Names under /usr/lib/grub-xen of Debian's grub-xen-host, and the older pv-grub of Xen 4.x.
_GRUB_BINARY = re.compile(
    r"grub-(?:i386|x86_64)-xen(?P<pvh>_pvh)?\.bin|pv-grub-x86_(?:32|64)\.gz|pvgrub(?:32|64)\.bin"
)
_BOOT_ORDER = re.compile(r"[acdn]{1,4}")


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
        check_key("kernel", check_file_path, self.kernel)
        if grub_domain_type(self.kernel) is not None:
            raise WrongValueError(f"{self.kernel} is a GRUB, not a kernel", key="kernel")
        if self.ramdisk is not None:
            check_key("ramdisk", check_file_path, self.ramdisk)
        if self.root is not None:
            check_key("root", check_text, self.root)
            if not self.root or " " in self.root:
                raise WrongValueError(f"{self.root!r} must be one word", key="root")
        check_key("cmdline", check_text, self.cmdline)
        if self.cmdline != " ".join(self.cmdline.split()):
            raise WrongValueError("separate its words by one space", key="cmdline")
        if any(word.startswith("root=") for word in self.cmdline.split(" ")):
            raise WrongValueError("root= is not one of them: it is the root disk", key="cmdline")

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
            check_key("bootloader", check_file_path, self.path)
        for arg in self.args:
            check_key("bootloader_args", check_text, arg)
            if not arg:
                raise WrongValueError("an argument is empty", key="bootloader_args")


@dataclass(frozen=True)
class Grub:
    """GRUB built as a Xen guest kernel: it reads grub.cfg from the guest's own disk."""

    kernel: str

    def __post_init__(self) -> None:
        check_key("kernel", check_file_path, self.kernel)
        if grub_domain_type(self.kernel) is None:
            raise WrongValueError(
                f"{self.kernel} is not a GRUB for Xen",
                "write it as /usr/lib/grub-xen/grub-x86_64-xen.bin",
                key="bootloader",
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
            raise WrongValueError(f"{self.order!r} must be letters of acdn, each once", key="boot")


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
