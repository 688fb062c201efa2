"""The guest spec: every key, and what follows from the keys; their agreement is in rules.py."""

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from pipeline.spec import keys
from pipeline.spec.cloud_init import CloudInit
from pipeline.spec.devices import (
    GuestCard,
    Part,
    divide_disk,
    fill_from_partitions,
    replicated_part,
    resolve_card,
    resolve_parts,
    seed_part,
    shared_part,
    whole_part,
)
from pipeline.spec.disk_keys import Disks
from pipeline.spec.guest_type import choose_type, linux_of
from pipeline.spec.replication import ELEMENT, ReplicatedKeys
from pipeline.spec.shared_disks import SharedKeys
from pipeline.spec.values import parse_duration, parse_size
from pipeline.suites import SUITES, Suite
from pipeline.xen.values import DiskFormat

SECTIONS: tuple[type[BaseModel], ...] = (
    *(keys.Naming, keys.Origin, keys.Software, keys.Boot, Disks),
    *(keys.Resources, keys.CardKeys, keys.Access, CloudInit, keys.Screen, keys.Life),
)
_FIRST_HVC = (2, 6, 20)  # 2.6.18-xen's driver called itself tty1, 2.6.26-xen's hvc0
_PC_32_BIT = re.compile(r"-[3456]86(-(pae|bigmem))?$")
SECRET_KEYS = frozenset({"root_password_hash"})


class Spec(
    keys.Naming,
    keys.Origin,
    keys.Software,
    keys.Boot,
    Disks,
    keys.Resources,
    keys.CardKeys,
    keys.Access,
    CloudInit,
    keys.Screen,
    keys.Life,
):
    """What one guest is to be: frozen, checked, with the defaults of its suite filled in."""

    interfaces: tuple[keys.CardKeys, ...] = Field(
        (), description="Second and further network cards: tables of the same network keys."
    )
    replicated: tuple[ReplicatedKeys, ...] = Field(
        (), description="Disks that DRBD replicates between this guest and another: tables."
    )
    shared: tuple[SharedKeys, ...] = Field(
        (), description="Disks that this guest and others write to at once: tables."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, given: Any) -> Any:
        return fill_defaults(given) if isinstance(given, dict) else given

    @property
    def suite_facts(self) -> Suite:
        """What differs in this guest's release."""
        return SUITES[self.suite]

    @property
    def fqdn(self) -> str:
        """The fully qualified host name; short when no domain is known."""
        if self.domain and "." not in self.hostname:
            return f"{self.hostname}.{self.domain}"
        return self.hostname

    @property
    def short_hostname(self) -> str:
        """The host name up to the first dot."""
        return self.hostname.partition(".")[0]

    @property
    def disk_format(self) -> DiskFormat:
        """The format of the disk that a toolstack here gets."""
        return "raw" if self.format == "xva" else self.format

    @property
    def size_mib(self) -> int:
        return next(part.size_mib for part in self.parts if part.is_root)

    @property
    def swap_mib(self) -> int:
        """Size of all swap disks in MiB; 0 when there is none."""
        return sum(part.size_mib for part in self.parts if part.is_swap)

    @property
    def memory_mib(self) -> int:
        return parse_size(self.memory)

    @property
    def maxmem_mib(self) -> int:
        """Memory in MiB that the guest may reach; never less than memory_mib."""
        return parse_size(self.maxmem) if self.maxmem else self.memory_mib

    @property
    def snapshot_max_age_s(self) -> int:
        """Seconds that a fetched state of the mirror is used again."""
        return parse_duration(self.snapshot_max_age)

    @property
    def is_whole(self) -> bool:
        """Whether its own parts are partitions of one disk that has boot loaders of its own."""
        return self.disk == "whole"

    @property
    def has_efi_loader(self) -> bool:
        """Whether its whole disk starts by UEFI too: squeeze's GRUB 1.98 does not."""
        return self.is_whole and self.arch == "amd64" and self.suite_facts.kernel_version >= (3, 2)

    @property
    def is_uefi(self) -> bool:
        """Whether UEFI firmware starts it."""
        return self.boot == "firmware" and self.firmware == "uefi"

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The file systems and swap: root, swap, then the others, parents of mount points first.

        Those that are replicated or shared, and the seed, come last: a guest that gets one keeps
        its names.
        """
        own = resolve_parts(self, self._node)
        if self.is_whole:
            own, first = divide_disk(own, self._node(1)), 2
        else:
            first = max(3, len(own) + 1 + (not any(part.is_swap for part in own)))
        more = [
            replicated_part(each, self._node(number))
            for number, each in enumerate(self.replicated, first)
        ]
        more += [
            shared_part(each, self._node(number))
            for number, each in enumerate(self.shared, first + len(more))
        ]
        more += [seed_part(self._node(first + len(more)))] if self.has_seed else []
        return (*own, *more)

    @cached_property
    def disks(self) -> tuple[Part, ...]:
        """What the guest is given as disks: each part, or first the disk that holds its own."""
        if not self.is_whole:
            return self.parts
        own = [part for part in self.parts if not part.table]
        disk = whole_part(own, self._node(1), self.image_dev)
        return (disk, *(part for part in self.parts if part.table))

    def _node(self, number: int) -> str:
        """The guest's name of a disk: 1 is the root, 2 swap."""
        if self.type == "hvm" or self.is_whole:
            return self.suite_facts.whole_disk(number)
        return self.suite_facts.partition(number)

    @property
    def layout(self) -> str:
        """Which file systems the golden image consists of, the root first: `/:ext4 /var:xfs`."""
        return " ".join(f"{part.mountpoint}:{part.fs}" for part in self.parts if part.has_files)

    @property
    def nodes(self) -> str:
        """What the guest calls its disks: `disk:/dev/xvda1 swap:/dev/xvda2`."""
        return " ".join(f"{part.name}:{part.node}" for part in self.parts)

    @cached_property
    def cards(self) -> tuple[GuestCard, ...]:
        """The network cards, the first one from the keys of the spec itself."""
        own = (self, *self.interfaces)
        return tuple(
            resolve_card(card, name=self.name, index=index) for index, card in enumerate(own)
        )

    @property
    def identities(self) -> tuple[str, ...]:
        """Names of folders in output/identity: its own, those that it shares with a peer."""
        shared = (node.pair for node in self.replicated if node.pair)
        return tuple(dict.fromkeys([self.name, *shared]))

    @property
    def has_seed(self) -> bool:
        """Whether cloud-init is told who the guest is."""
        return self.seed is not None or bool(self.user_data)

    @property
    def is_kernel_inside(self) -> bool:
        """Whether the guest boots the kernel that is installed in it."""
        return self.boot != "direct"

    @property
    def root_device(self) -> str:
        return self._node(1)

    @property
    def linux(self) -> tuple[int, ...]:
        """The version of the kernel that boots, as far as its name tells; else the suite's."""
        named = linux_of(self.kernel)
        if not named or (self.kernel_source == "package" and len(named) < 3):
            return self.suite_facts.kernel_version
        return named

    def mke2fs_features(self, fs: str) -> str:
        """The argument of `mke2fs -O`; raises KeyError for what is no ext file system.

        With a seed of its own for checksums the UUID of a copy changes without every inode being
        written again. GRUB cannot read that before 2.12, Linux can from 4.4 on.
        """
        features = self.suite_facts.mke2fs_features(fs)
        has_seed = "metadata_csum" in features and not self.is_kernel_inside
        return f"{features},metadata_csum_seed" if has_seed and self.linux >= (4, 4) else features

    @property
    def console(self) -> str:
        """The Xen console's name, which is the kernel's: hvc0, or tty1 with etch's 2.6.18."""
        if len(self.linux) < 3 or self.linux[0] > 2:
            return self.suite_facts.console
        return "hvc0" if self.linux >= _FIRST_HVC else "tty1"

    @property
    def kernel_source(self) -> Literal["package", "host", "files"]:
        if self.kernel == "host":
            return "host"
        return "files" if self.kernel.startswith("/") else "package"

    def as_json(self) -> dict[str, Any]:
        """Every key with its value as JSON has it; a secret only as the digest of its value."""
        values = self.model_dump(mode="json")
        for key in SECRET_KEYS:
            if values[key]:
                values[key] = f"sha256:{hashlib.sha256(values[key].encode()).hexdigest()[:16]}"
        return values


def values_of(spec: Spec) -> dict[str, Any]:
    """What a stage's `keys` name: every key, and what the disks come to, `layout` and `nodes`."""
    disks = {"layout": spec.layout, "nodes": spec.nodes, "is_whole": spec.is_whole}
    return spec.as_json() | disks


def describe_type(spec: Spec) -> str:
    """The guest's type and who chose it."""
    default, why = choose_type(spec.suite_facts, dict(spec))
    if spec.type != default:
        return f"{spec.type}, as the spec says; {default} would be the default"
    return (
        f"{spec.type}, the default{f': {why}' if why else f' for {spec.suite} and Xen {spec.xen}'}"
    )


def fill_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """The same values with those added that follow from the name, the mirror and the suite.

    Nothing is checked here: wrong values stay as they are, for the fields to report.
    """
    filled = {"mirror": "host", **given}
    filled.setdefault("guest_mirror", filled["mirror"])
    if "name" in filled:
        filled.setdefault("hostname", filled["name"])
    if _PC_32_BIT.search(str(filled.get("kernel", ""))):
        filled.setdefault("arch", "i386")
    fill_from_partitions(filled)
    if filled.get("boot") == "firmware":
        filled.setdefault("disk", "whole")
    if filled.get("clone") == "cow" and not filled.get("lvm"):
        filled.setdefault("format", "qcow2")
    if filled.get("vnc") is True and "vncunused" not in filled:
        filled["vncunused"] = filled.get("vncdisplay") is None
    named = filled.get("suite", "bookworm")
    suite = SUITES.get(named) if isinstance(named, str) else None
    if suite is None:
        return filled
    filled = _suite_defaults(suite, filled) | filled
    if filled.get("profile") == "comfort":
        _add(filled, "packages", suite.comfort_packages(filled["init"]))
    if filled.get("replicated") and not filled.get("adopted"):
        _add(filled, "elements", (ELEMENT,))
    return filled


def _add(filled: dict[str, Any], key: str, wanted: Sequence[str]) -> None:
    """What follows from another key before what is named: what is built knows no profile."""
    given = filled.get(key, ())
    given = [given] if isinstance(given, str) else given
    if isinstance(given, list | tuple):
        filled[key] = [*wanted, *(name for name in given if name not in wanted)]


def _suite_defaults(suite: Suite, filled: dict[str, Any]) -> dict[str, Any]:
    arch = str(filled.get("arch", "amd64"))
    # Debian's GRUB for Xen cannot unpack the cloud kernel's LZ4 (no such decompressor in it).
    kind = filled.get("type") or choose_type(suite, filled)[0]
    is_pv_grub = filled.get("boot") == "grub" and kind == "pv"
    # and the cloud kernel has no keyboard for a screen (INPUT_XEN_KBDDEV_FRONTEND).
    is_generic = is_pv_grub or filled.get("vnc") is True
    kernel = suite.generic_kernel(arch) if is_generic else suite.default_kernel(arch)
    defaults: dict[str, Any] = {
        "type": kind,
        "components": suite.components,
        "init": suite.init_default,
        "locale": suite.default_locale,
        "fs": suite.default_fs,
        "bootstrap": suite.default_bootstrap(arch),
    }
    return defaults | ({"kernel": kernel} if kernel else {})
