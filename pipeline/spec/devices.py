"""The guest's disks and network cards as they will be, every default filled in."""

import hashlib
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.spec.cloud_init import SEED, SEED_FS, SEED_MIB
from pipeline.spec.disk_keys import Disks, PartitionKeys
from pipeline.spec.keys import CardKeys
from pipeline.spec.replication import DRBD_FS, ReplicatedKeys
from pipeline.spec.shared_disks import SHARED_FS, SharedKeys
from pipeline.spec.values import parse_size
from pipeline.xen.devices import Card
from pipeline.xen.values import parse_rate_kbytes_s

AnyInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
_XEN_OUI = "00:16:3E"
MOST_PARTS = 15  # xvda1 to xvda15: what the old minor numbers have
BIOS_MIB, ESP_MIB = 1, 64  # GRUB for a PC's BIOS; the EFI system partition
_TABLE_MIB = 1  # before the first partition, and behind the last one
_FIRST_OWN = 3  # of a whole disk's partitions: before it are the two above


@dataclass(frozen=True, kw_only=True)
class Part:
    """One disk of a guest, as it will be: `node` is the guest's device.

    `fs` is swap, a file system, or drbd: a disk that is replicated, or shared: one that other
    guests write to as well; their contents are the guests' own affair. Or cidata: what cloud-init
    reads.

    `name` ends the name of its logical volume, `device` is "" or the block device that is given,
    `owner` the guest that a shared disk lies with. `inside` are the partitions of a whole disk, in
    the order in which they lie on it, the root last.
    """

    name: str
    size_mib: int
    fs: str
    mountpoint: str
    options: str
    node: str
    device: str = ""
    owner: str = ""
    inside: tuple["Part", ...] = ()

    @property
    def is_root(self) -> bool:
        """Whether the guest boots from it."""
        return self.mountpoint == "/"

    @property
    def is_swap(self) -> bool:
        """Whether it is swapped on."""
        return self.fs == "swap"

    @property
    def is_replicated(self) -> bool:
        """Whether DRBD keeps it the same on two guests."""
        return self.fs == DRBD_FS

    @property
    def is_shared(self) -> bool:
        """Whether other guests write to it too."""
        return self.fs == SHARED_FS

    @property
    def is_seed(self) -> bool:
        """Whether cloud-init reads from it who the guest is."""
        return self.fs == SEED_FS

    @property
    def table(self) -> str:
        """The table of the spec that asks for it; "" for a disk of other keys."""
        return {DRBD_FS: "replicated", SHARED_FS: "shared", SEED_FS: "seed"}.get(self.fs, "")

    @property
    def holds_data(self) -> bool:
        """Whether it is a loss when it is written anew."""
        return self.has_files or self.is_replicated or self.is_shared

    @property
    def has_files(self) -> bool:
        """Whether it is mounted: none of swap, a replicated, a shared one."""
        return bool(self.mountpoint)

    @property
    def vdev(self) -> str:
        """Xen's name for it, as in xvda1."""
        return self.node.removeprefix("/dev/")


def resolve_parts(keys: Disks, node_of: Callable[[int], str]) -> tuple[Part, ...]:
    """The guest's disks: root first, swap second, the others so that parents come before.

    `node_of` tells the guest's name of a partition: 1 is root, 2 swap in every guest.
    """
    if not keys.partitions:
        return _simple_parts(keys, node_of)
    root = [part for part in keys.partitions if part.mountpoint == "/"]
    swaps = [part for part in keys.partitions if part.fs == "swap"]
    rest = [part for part in keys.partitions if part not in root and part not in swaps]
    rest.sort(key=lambda part: (part.mountpoint.count("/"), part.mountpoint))
    numbers = iter(range(1 if swaps else 3, MOST_PARTS + 99))
    resolved = []
    for part in [*root, *swaps, *rest]:
        number = 1 if part in root else next(number for number in numbers if number != 1)
        resolved.append(_resolve_part(part, keys, node_of(number)))
    return tuple(resolved)


def _simple_parts(keys: Disks, node_of: Callable[[int], str]) -> tuple[Part, ...]:
    root = Part(
        name="disk",
        size_mib=parse_size(keys.size),
        fs=keys.fs,
        mountpoint="/",
        options=default_options(keys.fs),
        node=node_of(1),
        device=keys.image_dev,
    )
    if keys.swap == "0":
        return (root,)
    swap = Part(
        name="swap",
        size_mib=parse_size(keys.swap),
        fs="swap",
        mountpoint="",
        options="sw",
        node=node_of(2),
        device=keys.swap_dev,
    )
    return root, swap


def _resolve_part(part: PartitionKeys, keys: Disks, node: str) -> Part:
    fs = part.fs or keys.fs
    return Part(
        name=part.name,
        size_mib=parse_size(part.size),
        fs=fs,
        mountpoint=part.mountpoint,
        options=part.options or ("sw" if fs == "swap" else default_options(fs)),
        node=node,
        device=part.device,
    )


def divide_disk(parts: Sequence[Part], node: str) -> tuple[Part, ...]:
    """The same parts as partitions of one disk, numbered as they lie there: the root last."""
    root, *others = parts
    numbered = enumerate((*others, root), _FIRST_OWN)
    *others, root = (replace(part, node=f"{node}{number}") for number, part in numbered)
    return (root, *others)


def whole_part(parts: Sequence[Part], node: str, device: str) -> Part:
    """The disk that holds these partitions, the boot loaders and the table."""
    root, *others = parts
    held = sum(part.size_mib for part in parts) + BIOS_MIB + ESP_MIB
    return replace(
        root,
        name="disk",
        size_mib=held + 2 * _TABLE_MIB,
        node=node,
        device=device,
        inside=(*others, root),
    )


def replicated_part(keys: ReplicatedKeys, node: str) -> Part:
    """The disk below a replicated one."""
    size = parse_size(keys.size)
    return Part(name=keys.name, size_mib=size, fs=DRBD_FS, mountpoint="", options="", node=node)


def shared_part(keys: SharedKeys, node: str) -> Part:
    """A disk that other guests have too."""
    size = parse_size(keys.size)
    return Part(
        name=keys.name,
        size_mib=size,
        fs=SHARED_FS,
        mountpoint="",
        options="",
        node=node,
        owner=keys.owner,
    )


def seed_part(node: str) -> Part:
    """The disk that cloud-init reads."""
    return Part(name=SEED, size_mib=SEED_MIB, fs=SEED_FS, mountpoint="", options="", node=node)


def default_options(fs: str) -> str:
    """What fstab says where the spec says nothing."""
    return "errors=remount-ro" if fs.startswith("ext") else "defaults"


def fill_from_partitions(filled: dict[str, Any]) -> None:
    """size, fs and swap follow from a list of partitions, where they are not given."""
    given = filled.get("partitions")
    if not isinstance(given, Sequence) or isinstance(given, str):
        return
    for part in given:
        keys = part.model_dump() if isinstance(part, PartitionKeys) else part
        if not isinstance(keys, dict):
            continue  # its own field says what is wrong with it
        if keys.get("mountpoint") == "/":
            filled.setdefault("size", keys.get("size", "4G"))
            if keys.get("fs"):
                filled.setdefault("fs", keys["fs"])
        if keys.get("fs") == "swap":
            filled.setdefault("swap", keys.get("size", "0"))
    filled.setdefault("swap", "0")


@dataclass(frozen=True, kw_only=True)
class GuestCard:
    """A network card with what the guest does with it; `index` counts from 0."""

    index: int
    device: Card
    dhcp: bool
    addresses: tuple[AnyInterface, ...]
    gateway: ipaddress.IPv4Address | None
    gateway6: ipaddress.IPv6Address | None
    nameservers: tuple[str, ...]

    @property
    def mac(self) -> str:
        """The address that the guest knows it by, in capitals; "" for one that Xen makes up."""
        return (self.device.mac or "").upper()


def derive_mac(name: str, index: int) -> str:
    """The MAC of a guest's card: Xen's prefix and three bytes of sha256('NAME/INDEX')."""
    digest = hashlib.sha256(f"{name}/{index}".encode()).digest()
    return ":".join([_XEN_OUI, *(f"{byte:02X}" for byte in digest[:3])])


def read_addresses(keys: CardKeys) -> tuple[AnyInterface, ...]:
    """The card's addresses, the netmask applied to those IPv4 ones that have no prefix."""
    texts = [
        f"{text}/{keys.netmask}" if keys.netmask and "/" not in text and ":" not in text else text
        for text in keys.address
    ]
    return tuple(ipaddress.ip_interface(text) for text in texts)


def resolve_card(keys: CardKeys, *, name: str, index: int) -> GuestCard:
    """A card with its defaults filled in."""
    device = Card(
        mac=keys.mac or derive_mac(name, index),
        bridge=keys.bridge,
        vifname=keys.vifname or None,
        mtu=keys.mtu,
        rate_kbytes_s=parse_rate_kbytes_s(keys.rate) if keys.rate else None,
        model=keys.model or None,
    )
    return GuestCard(
        index=index,
        device=device,
        dhcp=keys.dhcp,
        addresses=read_addresses(keys),
        gateway=ipaddress.IPv4Address(keys.gateway) if keys.gateway else None,
        gateway6=ipaddress.IPv6Address(keys.gateway6) if keys.gateway6 else None,
        nameservers=keys.nameservers,
    )
