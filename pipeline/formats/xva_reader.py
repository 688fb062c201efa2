"""An XVA that strangers made as raw disks: by xapi's own rules (xva.py), and stricter than it.

Read in a cage, by an errand of its own: `python -m pipeline.formats.xva_reader ORDER`.
"""

import json
import os
import re
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

from pipeline.compression import find_compression, open_packed
from pipeline.console.progress import progress_bar
from pipeline.errors import VerificationError
from pipeline.files import open_plain, read_table
from pipeline.formats.ova_value import Fields, read_ova, text_of
from pipeline.formats.tar_members import Members
from pipeline.formats.xva import BLOCK, DESCRIPTION, SUFFIXES, digest_block
from pipeline.walls.errand import carry_out, send_reader
from pipeline.walls.privacy import make_private

MODULE = "pipeline.formats.xva_reader"
_SAID, _STEP, _STEP_BYTES = "xva.json", "read MiB", 64 << 20
_MOST_DESCRIPTION, _MOST_SUM, _MOST_DISK = 16 << 20, 64, 16 << 40
_MEMORY = 1 << 30
_SUFFIX = re.compile(r"[0-9]{1,12}")
_NOTHING = "OpaqueRef:NULL"


@dataclass(frozen=True)
class XvaDisk:
    """A disk of the machine: its reference, bytes, name, place among the drives, and file here."""

    ref: str
    size: int
    label: str
    place: str
    file: str = ""


@dataclass(frozen=True)
class Xva:
    """What an XVA says of its machine, and its disks in the order of their drives."""

    name: str
    kind: str
    firmware: str
    memory: int
    vcpus: int
    is_template: bool
    disks: tuple[XvaDisk, ...]

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Self:
        """From what the errand said."""
        disks = tuple(XvaDisk(**disk) for disk in table.pop("disks"))
        return cls(**table, disks=disks)


def is_xva(path: Path, head: bytes) -> bool:
    """Whether a file begins as one, or is packed and called so."""
    packed = find_compression(head) in ("gzip", "zstd")
    return head.startswith(f"{DESCRIPTION}\0".encode()) or (packed and path.suffix == ".xva")


def take_out(path: Path, folder: Path, run: Callable[..., str]) -> Xva:
    """Read an XVA to its end, prove it, and write its disks into an empty folder, sparse.

    Raises VerificationError for what breaks a rule, with the rule.
    """
    descriptor = open_plain(path)
    order = {"xva": descriptor, "folder": str(folder)}
    try:
        with progress_bar(f"reading {path.name}", unit=" MiB") as bar:

            def count(line: str) -> None:
                if line.startswith(_STEP):
                    bar.advance(int(line.split()[-1]))

            send_reader(
                *(MODULE, order),
                file=folder / "order.json",
                run=run,
                writable=[folder],
                keep_open=[descriptor],
                on_line=count,
            )
    except VerificationError as error:
        raise VerificationError(
            f"{path}: {error.brief}", details=error.details, hint=error.hint
        ) from error
    finally:
        os.close(descriptor)
    return Xva.from_json(read_table(folder / _SAID, "what an XVA says"))


def fulfil(order: dict[str, Any]) -> None:
    """The inner half: read the open descriptor, write into the folder."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    folder = Path(order["folder"])
    with open(order["xva"], "rb", closefd=False) as stream:
        xva = read_xva(unpacked(stream), folder)
    (folder / _SAID).write_text(json.dumps(asdict(xva)))


def unpacked(stream: IO[bytes]) -> IO[bytes]:
    """The tar itself: `xe vm-export compress=` packs it by gzip or zstd."""
    head = stream.read(4)
    stream.seek(0)
    packed = find_compression(head)
    return open_packed(stream, packed) if packed in ("gzip", "zstd") else stream


def read_xva(stream: IO[bytes], folder: Path | None) -> Xva:
    """Read and prove all of it; the machine's disks become files of a folder, if there is one."""
    members = Members(stream)
    first = members.next_member()
    if first is None or first[0] != DESCRIPTION:
        raise VerificationError(f"it does not begin with {DESCRIPTION}")
    objects = read_ova(members.read_all(most=_MOST_DESCRIPTION))
    streamed, xva = _describe(objects)
    steps = _Steps()
    for disk in streamed:
        file = folder / disk.file if folder is not None and disk in xva.disks else None
        _read_disk(members, disk, file, steps)
    if (more := members.next_member()) is not None:
        raise VerificationError(f"{more[0]!r} belongs to no disk of {DESCRIPTION}")
    return xva


class _Steps:
    """How much is read, for the bar outside."""

    def __init__(self) -> None:
        self._bytes = 0

    def add(self, count: int) -> None:
        self._bytes += count
        if self._bytes >= _STEP_BYTES:
            print(_STEP, self._bytes >> 20, flush=True)
            self._bytes = 0


def _describe(objects: Sequence[tuple[str, str, Fields]]) -> tuple[list[XvaDisk], Xva]:
    """The disks in the order in which they follow, and the machine with its own."""
    by_kind: dict[str, dict[str, Fields]] = {}
    for kind, ref, fields in objects:
        if ref in by_kind.setdefault(kind, {}):
            raise VerificationError(f"{kind} {ref} stands twice in {DESCRIPTION}")
        by_kind[kind][ref] = fields
    machines = {
        ref: fields
        for ref, fields in by_kind.get("VM", {}).items()
        if fields.get("is_a_snapshot") is not True
    }
    if len(machines) != 1:
        raise VerificationError(f"{len(machines)} machines in {DESCRIPTION}, not one")
    ((machine_ref, machine),) = machines.items()
    disks, own = _find_disks(by_kind, machine_ref)
    boot = machine.get("HVM_boot_params")
    firmware = text_of(boot, "firmware") if isinstance(boot, dict) else ""
    has_firmware = text_of(machine, "HVM_boot_policy") != ""
    xva = Xva(
        name=text_of(machine, "name_label"),
        kind=text_of(machine, "domain_type") or ("hvm" if has_firmware else "pv"),
        firmware=firmware or "bios",
        memory=_number(machine, "memory_static_max"),
        vcpus=_number(machine, "VCPUs_max"),
        is_template=machine.get("is_a_template") is True,
        disks=tuple(sorted(own, key=lambda disk: (len(disk.place), disk.place))),
    )
    return sorted(disks, key=lambda disk: disk.ref), xva


def _find_disks(
    by_kind: dict[str, dict[str, Fields]], machine: str
) -> tuple[list[XvaDisk], list[XvaDisk]]:
    """All disks that follow, and those of one machine; CDs do not follow."""
    images, repositories = by_kind.get("VDI", {}), by_kind.get("SR", {})
    disks: dict[str, XvaDisk] = {}
    own = []
    for ref, drive in by_kind.get("VBD", {}).items():
        image = text_of(drive, "VDI")
        if text_of(drive, "type").lower() == "cd" or image in ("", _NOTHING):
            continue
        if image not in images:
            raise VerificationError(f"VBD {ref} names the VDI {image}, which is not there")
        fields = images[image]
        repository = text_of(fields, "SR")
        if repository not in repositories:
            raise VerificationError(f"VDI {image} names the SR {repository}, which is not there")
        if text_of(repositories[repository], "content_type") == "iso":
            continue
        size = _number(fields, "virtual_size")
        if not 0 < size <= _MOST_DISK:
            raise VerificationError(f"VDI {image} has {size} bytes")
        place = text_of(drive, "userdevice")
        file = f"disk{len(disks)}.raw"
        disk = disks.setdefault(
            image, XvaDisk(image, size, text_of(fields, "name_label"), place, file)
        )
        if text_of(drive, "VM") == machine and disk not in own:
            own.append(disk)
    if not own:
        raise VerificationError("the machine has no disk")
    refs = sorted(disks)
    for shorter, longer in zip(refs, refs[1:], strict=False):
        if longer.startswith(shorter):
            raise VerificationError(f"{longer} begins with {shorter}: their blocks are mixed up")
    return list(disks.values()), own


def _number(fields: Fields, name: str) -> int:
    told = text_of(fields, name)
    if not re.fullmatch(r"[0-9]{1,18}", told):
        raise VerificationError(f"{name} is {told[:40]!r}, and no number")
    return int(told)


def _read_disk(members: Members, disk: XvaDisk, file: Path | None, steps: _Steps) -> None:
    """Its blocks, each with its checksum; gaps are zero."""
    with open(make_private(file) if file else os.devnull, "wb") as target:
        if file:
            target.truncate(disk.size)
        done, last = 0, "-1"
        while done < disk.size:
            suffix, content = _read_block(members, disk.ref, last)
            if last == "-1" and (int(suffix), len(content)) != (0, min(BLOCK, disk.size)):
                raise VerificationError(f"{disk.ref}: its first block is not there, whole")
            start = done + (int(suffix) - int(last) - 1) * BLOCK
            done, last = start + len(content), suffix
            if done > disk.size:
                raise VerificationError(f"{disk.ref}/{suffix} lies behind the end of its disk")
            if file and content.strip(b"\0"):
                os.pwrite(target.fileno(), content, start)
            steps.add(len(content))


def _read_block(members: Members, ref: str, last: str) -> tuple[str, bytes]:
    """The next block's number as it is written there, and its content."""
    name, _ = _require(members, f"{ref}: its last block is not there")
    folder, _, suffix = name.rpartition("/")
    if folder != ref or not _SUFFIX.fullmatch(suffix):
        raise VerificationError(f"{name!r} stands where a block of {ref} is expected")
    if suffix <= last or int(suffix) <= int(last):
        raise VerificationError(f"{name}: the numbers of blocks do not rise")
    content = members.read_all(most=BLOCK)
    told, _ = _require(members, f"{name}: its checksum is not there")
    ending = told.removeprefix(name)
    if ending not in SUFFIXES.values():
        raise VerificationError(f"{told!r} stands where the checksum of {name} is expected")
    if members.read_all(most=_MOST_SUM) != digest_block(content, ending).encode():
        raise VerificationError(f"{name}: its checksum is another one")
    return suffix, content


def _require(members: Members, missing: str) -> tuple[str, int]:
    member = members.next_member()
    if member is None:
        raise VerificationError(missing)
    return member


if __name__ == "__main__":
    sys.exit(carry_out(fulfil))
