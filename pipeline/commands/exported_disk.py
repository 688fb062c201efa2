"""One disk of a built guest, written as another system takes it."""

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.artifact.folder import Source
from pipeline.errors import UsageError
from pipeline.foreign.guest_tree import pack_guest
from pipeline.formats.ova import VirtualSystem, write_ova
from pipeline.formats.raw import write_raw
from pipeline.formats.vhd import write_vhd
from pipeline.formats.vmdk import write_vmdk
from pipeline.guest.portable_machine import EPOCH, machine_of, write_guest
from pipeline.process import require_tools, run
from pipeline.proof.readiness import read_built_spec
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.partition_table import read_partitions
from pipeline.supply.bom import vendor_of
from pipeline.walls.cage import caged_reader
from pipeline.walls.privacy import make_private

CONTAINERS = ("xva", "ova")  # a machine in one file, which starts by itself
_QEMU = {"raw": "raw", "qcow2": "qcow2", "vhd": "vpc"}
_TOOLS = {"qemu-img": "qemu-utils"}
Advance = Callable[[int], None]


@dataclass(frozen=True)
class ExportedDisk:
    """`part` is "" for the root disk, `form` raw, qcow2 or vhd, `size` the guest's, in bytes."""

    path: Path
    part: str
    vdev: str
    form: str
    size: int

    def as_raw(self, bench: "Bench") -> Path:
        """A raw file or device with the same bytes."""
        raw = bench.scratch / f"{self.vdev}.raw"
        if self.form == "raw":
            return self.path
        if not raw.exists():
            self.convert(bench, make_private(raw), "raw")
        return raw

    def convert(self, bench: "Bench", target: Path, form: str) -> None:
        """By qemu-img(1), and compared afterwards."""
        forms = ["-f", _QEMU[self.form], "-O", _QEMU[form]]
        bench.run(["qemu-img", "convert", *forms, self.path, target])
        compare = ["qemu-img", "compare", "-q", "-f", _QEMU[self.form], "-F", _QEMU[form]]
        bench.run([*compare, self.path, target])


@dataclass(frozen=True)
class Bench:
    """What an export works with: `advance` is the bar's, in bytes of a disk."""

    source: Source
    form: str
    scratch: Path
    run: Callable[..., str]

    def write_disk(
        self, disk: ExportedDisk, target: IO[bytes], name: str, advance: Advance, *, is_pipe: bool
    ) -> None:
        """Write it into an empty file, which will be called `name`, or a pipe."""
        if self.form == "raw":
            write_raw(disk.as_raw(self), target, is_sparse=not is_pipe, advance=advance)
        elif self.form == "vmdk":
            write_vmdk(disk.as_raw(self), name, target.write, advance=advance)
        elif self.form == "vhd":
            own = uuid.uuid5(uuid.UUID(self.source.domain.uuid), disk.vdev)
            write_vhd(disk.as_raw(self), target, identity=own, epoch=EPOCH, advance=advance)
        elif self.form == "xva":
            write_guest(disk.as_raw(self), target, self._machine(), advance=advance)
        elif self.form == "ova":
            write_ova(disk.as_raw(self), target, self._machine(), advance=advance)
        else:
            disk.convert(self, Path(target.name), self.form)
            advance(disk.size)

    def write_tree(
        self, disks: Sequence[ExportedDisk], target: IO[bytes], *, is_pipe: bool
    ) -> None:
        """The tree that they hold together, as a tar."""
        tar = self.scratch / "tree.tar"
        spec = read_built_spec(self.source.folder, self.source.name)
        raw = {disk.vdev: disk.as_raw(self) for disk in disks}
        pack_guest(spec, raw, tar, scratch=self.scratch, run=self.run)
        write_raw(tar, target, is_sparse=not is_pipe, advance=lambda _count: None)

    def refuse_bare(self, disk: ExportedDisk) -> None:
        """Raises UsageError where this format is of a machine and no machine starts from it."""
        if self.form not in CONTAINERS:
            return
        with open(disk.as_raw(self), "rb") as stream:
            is_whole = bool(read_partitions(stream))
        if not is_whole:
            name = self.source.name
            raise UsageError(
                f"{name}: its disk is a bare file system, which nothing but Xen's toolstack "
                f"starts: no {self.form.upper()} can be made of it",
                hint=f'disk = "whole" in its spec, and doit build name={name}; '
                "or format=raw, qcow2, vhd, vmdk, tar",
            )

    def _machine(self) -> VirtualSystem:
        domain, spec = self.source.domain, self.source.spec
        machine = machine_of(
            self.source.name,
            domain,
            description=str(spec.get("description", "")),
            is_uefi=spec.get("firmware") == "uefi",
            is_template=bool(spec.get("cloud_init")),
        )
        return VirtualSystem(
            **vars(machine),
            distribution=vendor_of(spec),
            networks=tuple(card.bridge or "network" for card in domain.cards),
        )


def find_disks(source: Source) -> list[ExportedDisk]:
    """The guest's disks, the root disk first; those that other guests write to are not its own.

    Raises InUseError for one that is open elsewhere.
    """
    require_tools(_TOOLS)
    disks = []
    for disk in source.domain.hard_disks:
        name = Path(disk.target).name
        path = source.folder / name if name in source.disks else Path(disk.target)
        if disk.is_shared or disk.script:
            continue
        refuse_if_used(path)
        part = name.partition(".")[0].removeprefix(f"{source.name}-").removeprefix("disk-")
        part = "" if part == "disk" else part
        disks.append(ExportedDisk(path, part, disk.vdev, disk.format, _measure(path, disk.format)))
    return sorted(disks, key=lambda disk: (disk.part != "", disk.vdev))


def _measure(path: Path, form: str) -> int:
    """The size in bytes of the disk that a guest sees."""
    if form == "raw":
        with open(path, "rb") as stream:
            return stream.seek(0, 2)
    ask = ["qemu-img", "info", "--output=json", "-f", _QEMU[form], path]
    return int(json.loads(run(caged_reader(ask, readable=[path])))["virtual-size"])
