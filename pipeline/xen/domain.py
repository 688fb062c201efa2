"""The domain model: what a guest is to Xen, whichever toolstack starts it.

Every class checks itself and raises ValueError with a text that names the field and what would be
right. What only one toolstack cannot express is not refused here but by its renderer, with
`Unsupported`.
"""

import re
from dataclasses import dataclass
from typing import get_args

from pipeline.errors import WrongValueError
from pipeline.xen.boot import Boot, Direct, Firmware, Grub, Pygrub
from pipeline.xen.devices import Card, Disk, Framebuffer
from pipeline.xen.values import (
    CrashAction,
    DomainType,
    StopAction,
    check_choice,
    check_cpu_weight,
    check_cpus,
    check_key,
    check_most,
    check_range,
    check_uuid,
    check_vcpus,
)

STOP_ACTIONS: tuple[str, ...] = get_args(StopAction)
CRASH_ACTIONS: tuple[str, ...] = get_args(CrashAction)
_CHOICES: dict[str, tuple[str, ...]] = {
    "type": get_args(DomainType),
    "on_poweroff": STOP_ACTIONS,
    "on_reboot": STOP_ACTIONS,
    "on_crash": CRASH_ACTIONS,
}
_MOST_MIB = 2**31

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One guest domain. Memory is in MiB; `maxmem_mib` and `maxvcpus` are None when not set apart.

    `type` is pv, pvh or hvm. `uuid` is stored in lower case. `cpus` are those of the host that it
    may run on, `cap` the percent of one of them that it may use. Raises ValueError.
    """

    name: str
    type: str
    memory_mib: int
    vcpus: int
    boot: Boot
    uuid: str | None = None
    maxmem_mib: int | None = None
    maxvcpus: int | None = None
    cpus: str | None = None
    cpu_weight: int | None = None
    cap: int | None = None
    disks: tuple[Disk, ...] = ()
    cards: tuple[Card, ...] = ()
    framebuffer: Framebuffer | None = None
    on_poweroff: str = "destroy"
    on_reboot: str = "restart"
    on_crash: str = "restart"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise WrongValueError(
                f"{self.name!r} must be 1 to 63 letters, digits and . _ + -, "
                "starting with a letter or digit",
                key="name",
            )
        for key, choices in _CHOICES.items():
            check_choice(key, getattr(self, key), choices)
        if self.uuid is not None:
            object.__setattr__(self, "uuid", check_key("uuid", check_uuid, self.uuid))
        self._check_size()
        self._check_boot()
        self._check_devices()

    @property
    def hard_disks(self) -> tuple[Disk, ...]:
        """Its own disks: all but what lies in a CD drive, which others may use too."""
        return tuple(disk for disk in self.disks if disk.devtype == "disk")

    def _check_size(self) -> None:
        memory, maxmem = self.memory_mib, self.maxmem_mib
        check_range(memory, 1, _MOST_MIB, key="memory")
        check_key("vcpus", check_vcpus, self.vcpus)
        if maxmem is not None:
            check_range(maxmem, 1, _MOST_MIB, key="maxmem")
            check_most("maxmem", maxmem, "memory", memory)
        if self.maxvcpus is not None:
            check_key("maxvcpus", check_vcpus, self.maxvcpus)
            check_most("maxvcpus", self.maxvcpus, "vcpus", self.vcpus)
        if self.cpus is not None:
            check_key("cpus", check_cpus, self.cpus)
        if self.cpu_weight is not None:
            check_key("cpu_weight", check_cpu_weight, self.cpu_weight)
        if self.cap is not None:
            check_range(self.cap, 0, 100 * (self.maxvcpus or self.vcpus), key="cap")

    def _check_boot(self) -> None:
        is_pc = self.type == "hvm"
        has_firmware = isinstance(self.boot, Firmware)
        if self.type == "pvh" and isinstance(self.boot, Firmware):
            if not self.boot.path:
                raise WrongValueError(
                    "a pvh domain has no firmware but UEFI's, in a file", key="boot"
                )
        elif not isinstance(self.boot, Direct) and is_pc != has_firmware:
            raise WrongValueError(
                "an hvm domain boots through its firmware or a kernel that is given, and no "
                f"other type has firmware; type is {self.type}, boot is {type(self.boot).__name__}",
                key="boot",
            )
        if is_pc and isinstance(self.boot, Direct) and self.boot.kernel.endswith("/hvmloader"):
            raise WrongValueError(
                f"{self.boot.kernel} is firmware, not a kernel: say Firmware()", key="boot"
            )
        if isinstance(self.boot, Grub) and self.boot.domain_type != self.type:
            raise WrongValueError(
                f"{self.boot.kernel} is a GRUB for {self.boot.domain_type}, "
                f"the domain is {self.type}",
                key="bootloader",
            )
        if isinstance(self.boot, Pygrub) and not self.disks:
            raise WrongValueError(
                "pygrub reads the kernel from the first disk; there is none", key="boot"
            )

    def _check_devices(self) -> None:
        seen: set[str] = set()
        for disk in self.disks:
            if disk.vdev in seen:
                raise WrongValueError(f"two disks are called {disk.vdev}", key="disks")
            seen.add(disk.vdev)
        macs = [card.mac for card in self.cards if card.mac is not None]
        if len(macs) != len(set(macs)):
            raise WrongValueError("two cards have the same MAC address", key="cards")
        if self.type != "hvm" and any(card.model for card in self.cards):
            raise WrongValueError(
                f"only hvm emulates a card model, the domain is {self.type}", key="cards"
            )


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
