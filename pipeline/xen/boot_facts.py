"""What the bootability lint judges and what it says: BootFacts and Finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.kernel.facts import KernelFacts
from pipeline.xen.domain import Domain


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: level error (will not boot or not be reachable) or warning."""

    level: str
    code: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.level}: {self.message} [{self.code}]"
        return f"{text}\n    {self.hint}" if self.hint else text


@dataclass(frozen=True, kw_only=True)
class BootFacts:
    """What was read of a guest; None means not read.

    `kernel` is the kernel that boots, from dom0 or, with pygrub and GRUB, from the guest.
    `initrd_modules` are names with underscores; `initrd_size` is in bytes. `kernel_config` is the
    text of /boot/config-*. `gettys` are inittab lines or names of enabled systemd units. `menus`
    and `files` are of the guest: path to text, and the paths that exist. `root_fs` is the type of
    the root file system. `network_names` are the cards that the guest's network set-up covers, and
    `card_names` those that the guest's release will give them (eth0, enX0).
    """

    domain: Domain
    xen: str = "4.17"
    kernel: KernelFacts | None = None
    initrd_modules: frozenset[str] | None = None
    initrd_size: int | None = None
    kernel_config: str | None = None
    fstab: str | None = None
    gettys: tuple[str, ...] | None = None
    menus: Mapping[str, str] | None = None
    files: frozenset[str] | None = None
    root_fs: str | None = None
    network_names: frozenset[str] | None = None
    card_names: frozenset[str] = field(default_factory=frozenset)
