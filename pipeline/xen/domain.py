"""The domain model: what a guest is to Xen, whichever toolstack starts it.

Every class checks itself and raises ValueError with a text that names the field and what would be
right. What only one toolstack cannot express is not refused here but by its renderer, with
`Unsupported`.
"""

from __future__ import annotations

import re
import uuid as uuid_module
from dataclasses import dataclass

from pipeline.xen.boot import Boot, Direct, Firmware, Grub, Pygrub
from pipeline.xen.devices import Card, Disk, Framebuffer
from pipeline.xen.text import check_choice, check_range

STOP_ACTIONS = ("destroy", "restart", "rename-restart", "preserve")
CRASH_ACTIONS = (*STOP_ACTIONS, "coredump-destroy", "coredump-restart")
DOMAIN_TYPES = ("pv", "pvh", "hvm")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One guest domain. Memory is in MiB; `maxmem_mib` and `maxvcpus` are None when not set apart.

    `type` is pv, pvh or hvm. `uuid` is stored in lower case. Raises ValueError.
    """

    name: str
    type: str
    memory_mib: int
    vcpus: int
    boot: Boot
    uuid: str | None = None
    maxmem_mib: int | None = None
    maxvcpus: int | None = None
    disks: tuple[Disk, ...] = ()
    cards: tuple[Card, ...] = ()
    framebuffer: Framebuffer | None = None
    on_poweroff: str = "destroy"
    on_reboot: str = "restart"
    on_crash: str = "restart"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name: {self.name!r} must be 1 to 63 letters, digits and . _ + -, "
                "starting with a letter or digit"
            )
        check_choice("type", self.type, DOMAIN_TYPES)
        check_choice("on_poweroff", self.on_poweroff, STOP_ACTIONS)
        check_choice("on_reboot", self.on_reboot, STOP_ACTIONS)
        check_choice("on_crash", self.on_crash, CRASH_ACTIONS)
        if self.uuid is not None:
            object.__setattr__(self, "uuid", canonical_uuid(self.uuid))
        self._check_size()
        self._check_boot()
        self._check_devices()

    def _check_size(self) -> None:
        check_range("memory_mib", self.memory_mib, 1, 2**31)
        check_range("vcpus", self.vcpus, 1, 4096)
        if self.maxmem_mib is not None:
            check_range("maxmem_mib", self.maxmem_mib, self.memory_mib, 2**31)
        if self.maxvcpus is not None:
            check_range("maxvcpus", self.maxvcpus, self.vcpus, 4096)

    def _check_boot(self) -> None:
        is_pc = self.type == "hvm"
        if not isinstance(self.boot, Direct) and is_pc != isinstance(self.boot, Firmware):
            raise ValueError(
                "boot: an hvm domain boots through its firmware or a kernel that is given, and no "
                f"other type has firmware; type is {self.type}, boot is {type(self.boot).__name__}"
            )
        if is_pc and isinstance(self.boot, Direct) and self.boot.kernel.endswith("/hvmloader"):
            raise ValueError(f"boot: {self.boot.kernel} is firmware, not a kernel: say Firmware()")
        if isinstance(self.boot, Grub) and self.boot.domain_type != self.type:
            raise ValueError(
                f"boot: {self.boot.kernel} is a GRUB for {self.boot.domain_type}, "
                f"the domain is {self.type}"
            )
        if isinstance(self.boot, Pygrub) and not self.disks:
            raise ValueError("boot: pygrub reads the kernel from the first disk; there is none")

    def _check_devices(self) -> None:
        seen: set[str] = set()
        for disk in self.disks:
            if disk.vdev in seen:
                raise ValueError(f"disks: two disks are called {disk.vdev}")
            seen.add(disk.vdev)
        macs = [card.mac for card in self.cards if card.mac is not None]
        if len(macs) != len(set(macs)):
            raise ValueError("cards: two cards have the same MAC address")
        if self.type != "hvm" and any(card.model for card in self.cards):
            raise ValueError(f"cards: only hvm emulates a card model, the domain is {self.type}")


def canonical_uuid(text: str) -> str:
    """The UUID in lower case with dashes; ValueError when it is none."""
    try:
        return str(uuid_module.UUID(text))
    except ValueError:
        raise ValueError(f"uuid: {text!r} is not a UUID") from None


__all__ = [
    "Boot",
    "Card",
    "Direct",
    "Disk",
    "Domain",
    "Firmware",
    "Framebuffer",
    "Grub",
    "Pygrub",
]
