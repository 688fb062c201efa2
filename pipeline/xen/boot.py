"""How a domain gets its kernel: given directly, by pygrub, by GRUB for Xen, by HVM firmware."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self

from pipeline.errors import WrongValueError
from pipeline.xen.values import (
    check_boot_order,
    check_choice,
    check_file_path,
    check_key,
    check_text,
)

# Names under /usr/lib/grub-xen of Debian's grub-xen-host, and the older pv-grub of Xen 4.x.
_GRUB_BINARY = re.compile(
    r"grub-(?:i386|x86_64)-xen(?P<pvh>_pvh)?\.bin|pv-grub-x86_(?:32|64)\.gz|pvgrub(?:32|64)\.bin"
)
# pygrub restricted: what bootloader= names, how it is told the user, and how users are called
LAUNCHER = "/usr/local/lib/domu/restricted-pygrub"
_RUN_AS = "--runas="
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")
_USER_STEM = "pygrub-"


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
    """A boot loader that runs in dom0 and reads kernel and menu from the guest's first disk.

    `user` is the account that it runs as; "" is root, on which Xen gives no support (XSA-508).
    """

    path: str = "pygrub"
    args: tuple[str, ...] = ()
    user: str = ""

    def __post_init__(self) -> None:
        if self.path != "pygrub":
            check_key("bootloader", check_file_path, self.path)
        for arg in self.args:
            check_key("bootloader_args", check_text, arg)
            if not arg:
                raise WrongValueError("an argument is empty", key="bootloader_args")
            if arg.startswith(_RUN_AS):
                raise WrongValueError(f"{arg}: the user is no argument", key="bootloader_args")
        if self.user and (not _USER.fullmatch(self.user) or self.user in ("0", "root")):
            raise WrongValueError(f"{self.user!r} is no user to run as", key="bootloader_user")

    @classmethod
    def of_words(cls, path: str, words: Sequence[str], user: str = "") -> Self:
        """With arguments as `words` has them, the user among them where `user` does not name it."""
        named = [word.removeprefix(_RUN_AS) for word in words if word.startswith(_RUN_AS)]
        args = tuple(word for word in words if not word.startswith(_RUN_AS))
        return cls(path, args, user or "".join(named[-1:]))

    @property
    def words(self) -> tuple[str, ...]:
        """All arguments, for a toolstack that has no key for the user."""
        return (*self.args, *([f"{_RUN_AS}{self.user}"] if self.user else []))


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
    """The firmware of a domain, bios or uefi. `order`: c disk, d CD-ROM, n net, a floppy.

    `hdtype` is what the firmware's disks look like, ide or ahci (xl.cfg(5)). `path` is a file with
    UEFI firmware, where it is not the host's own; a PVH domain has no other.
    """

    kind: str = "bios"
    order: str = "c"
    hdtype: str = "ide"
    path: str = ""

    def __post_init__(self) -> None:
        check_choice("firmware", self.kind, ("bios", "uefi"))
        check_choice("hdtype", self.hdtype, ("ide", "ahci"))
        check_key("boot", check_boot_order, self.order)
        if self.path:
            check_key("firmware", check_file_path, self.path)
            if self.kind != "uefi":
                raise WrongValueError(f"{self.path}: a BIOS is the host's own", key="firmware")


Boot = Direct | Pygrub | Grub | Firmware


def pygrub_user(guest: str) -> str:
    """The account that reads this guest's disk for pygrub: at most 32 characters, no two alike."""
    is_plain = re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,24}", guest)
    if is_plain and not re.fullmatch(r".*_[0-9a-f]{12}", guest):
        return f"{_USER_STEM}{guest}"
    stem = re.sub(r"[^a-z0-9]+", "-", guest.lower())[:12].strip("-")
    return f"{_USER_STEM}{stem}_{hashlib.sha256(guest.encode()).hexdigest()[:12]}"


def grub_domain_type(path: str) -> str | None:
    """pv or pvh when the file name is that of a GRUB for Xen, else None."""
    match = _GRUB_BINARY.fullmatch(PurePosixPath(path).name)
    if match is None:
        return None
    return "pvh" if match["pvh"] else "pv"


def is_firmware(path: str) -> bool:
    """Whether a kernel's name is that of UEFI firmware: OVMF.fd, OVMF_PVH.fd."""
    return PurePosixPath(path).suffix == ".fd"


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
