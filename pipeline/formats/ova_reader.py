"""An OVA that a stranger made: which disk its machine starts from, its files as summed; in a cage.

Read by place, nothing is unpacked but that disk. The descriptor may be of OVF 0.9, 1 or 2: elements
count by their names. What is refused, is refused before the disk is copied.
"""

import hashlib
import json
import re
import resource
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

from pipeline.errors import UsageError, VerificationError
from pipeline.walls.errand import carry_out

MODULE = "pipeline.formats.ova_reader"
DISK, SAID = "disk", "said.json"
STEP = "copied MiB"
_MEMORY = 2 << 30
_MOST_FILES, _MOST_TEXT, _MOST_ELEMENTS = 1000, 4 << 20, 100_000
_CHUNK = 1 << 20
_STEP_MIB = 64
_HARD_DISK = "17"
_LINE = re.compile(r"(SHA1|SHA256|SHA512) ?\(([^()]{1,255})\) ?= ?([0-9a-fA-F]+)")
_REFERENCE = re.compile(r"(?:ovf:/?)?/(disk|file)/(.+)")
_WHOLE = "take a whole OVA: whoever made it can export it again"


@dataclass(frozen=True)
class Member:
    """A file of the archive: `place` and `size` in bytes."""

    place: int
    size: int


@dataclass(frozen=True)
class Descriptor:
    """What an OVF says: the machine's name, and files of its hard disks, the first starts it."""

    name: str
    disks: tuple[str, ...]
    sizes: Mapping[str, int]


class _Plain(ElementTree.TreeBuilder):
    """No document type, hence no entities of its own; a bound on what is in it."""

    count = 0

    def doctype(self, *_told: object) -> None:
        """An OVF has none."""
        raise UsageError("its descriptor has a document type, which no OVF has", hint=_WHOLE)

    def start(self, tag: str, attrs: dict[str, str]) -> ElementTree.Element:
        """Names without their namespaces."""
        self.count += 1
        if self.count > _MOST_ELEMENTS:
            raise UsageError(f"its descriptor has more than {_MOST_ELEMENTS} elements", hint=_WHOLE)
        plain = {key.rpartition("}")[2]: value for key, value in attrs.items()}
        return super().start(tag.rpartition("}")[2], plain)


def fulfil(order: dict[str, Any]) -> None:
    """Read the OVA of the open descriptor, write its first disk and what it is into the room."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    room = Path(order["room"])
    with open(order["file"], "rb", closefd=False) as source:
        said = read_ova(source, room / DISK)
    (room / SAID).write_text(json.dumps(said))


def read_ova(source: IO[bytes], target: Path) -> dict[str, Any]:
    """Write the disk that its machine starts from, and say which it is, and which others it has.

    Raises UsageError for what cannot be taken, VerificationError for what is damaged.
    """
    members = _index(source)
    name = next(iter(members))
    descriptor = read_descriptor(_read(source, members, name))
    disk = descriptor.disks[0]
    if disk not in members:
        raise VerificationError(f"{ascii(disk)}, the disk in {name}, is not in it", hint=_WHOLE)
    size, told = members[disk].size, descriptor.sizes.get(disk)
    if told not in (None, size):
        raise VerificationError(f"{disk} has {size} bytes, not the {told} of {name}", hint=_WHOLE)
    sums = _find_sums(source, members, name)
    if name in sums:
        algorithm, digest = sums[name]
        if hashlib.new(algorithm, _read(source, members, name)).hexdigest() != digest:
            raise VerificationError(f"{name} is not what its manifest says", hint=_WHOLE)
    algorithm, digest = sums.get(disk, ("sha256", ""))
    if _copy(source, members[disk], target, algorithm) != digest and disk in sums:
        raise VerificationError(f"{disk} is not what its manifest says", hint=_WHOLE)
    others = list(descriptor.disks[1:])
    return {"name": descriptor.name, "disk": disk, "summed": disk in sums, "others": others}


def read_descriptor(content: bytes) -> Descriptor:
    """Raises UsageError for what is no OVF, or one that cannot be taken."""
    parser = ElementTree.XMLParser(target=_Plain())
    try:
        parser.feed(content)
        root = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UsageError(f"its descriptor is no XML ({error})", hint=_WHOLE) from error
    if root.tag != "Envelope":
        raise UsageError(f"its descriptor is a {root.tag[:40]}, no Envelope", hint=_WHOLE)
    systems = list(root.iter("VirtualSystem"))
    if len(systems) != 1:
        raise UsageError(
            f"it holds {len(systems) or 'no'} machines",
            hint="export one machine: each becomes a guest of its own",
        )
    files = {file.get("id", ""): file for file in root.iter("File")}
    disks = {disk.get("diskId", ""): disk.get("fileRef", "") for disk in root.iter("Disk")}
    chosen = list(dict.fromkeys(_find_disks(systems[0], disks))) or list(disks.values())
    if not chosen or chosen[0] not in files:
        raise UsageError("no disk of its machine is in a file of it", hint=_WHOLE)
    first = files[chosen[0]]
    if first.get("compression") or first.get("chunkSize"):
        raise UsageError(
            f"{first.get('href')} is compressed as a whole or in pieces",
            hint="unpack it, put the pieces together, and adopt the disk itself",
        )
    hrefs = tuple(str(files[ref].get("href")) for ref in chosen if ref in files)
    sizes = {str(file.get("href")): file.get("size", "") for file in files.values()}
    named = (systems[0].findtext("Name") or systems[0].get("id") or "")[:100]
    whole = {href: int(size) for href, size in sizes.items() if re.fullmatch("[0-9]{1,18}", size)}
    return Descriptor(named, hrefs, whole)


def _find_disks(system: ElementTree.Element, disks: Mapping[str, str]) -> Iterator[str]:
    """Ids of files of the hard disks, in the order in which they stand there."""
    for item in (*system.iter("Item"), *system.iter("StorageItem")):
        if item.findtext("ResourceType") != _HARD_DISK:
            continue
        match = _REFERENCE.fullmatch((item.findtext("HostResource") or "").strip())
        if match:
            yield match[2] if match[1] == "file" else disks.get(match[2], "")


def _index(source: IO[bytes]) -> dict[str, Member]:
    """The plain files by name, the descriptor first."""
    members: dict[str, Member] = {}
    try:
        with tarfile.open(fileobj=source, mode="r:") as archive:
            for count, info in enumerate(archive):
                if count == _MOST_FILES:
                    raise UsageError(f"more than {_MOST_FILES} files: this is no OVA")
                if not info.isreg() or info.issparse() or info.name in members:
                    raise UsageError(f"{ascii(info.name)[:80]}: no OVA has such a member")
                members[info.name] = Member(info.offset_data, info.size)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise VerificationError(f"this is no whole tar ({error})", hint=_WHOLE) from error
    if not next(iter(members), "").lower().endswith(".ovf"):
        raise UsageError("its first file is no .ovf: this is no OVA")
    return members


def _read(source: IO[bytes], members: Mapping[str, Member], name: str) -> bytes:
    member = members[name]
    if member.size > _MOST_TEXT:
        raise UsageError(f"{ascii(name)} is larger than {_MOST_TEXT >> 20} MiB", hint=_WHOLE)
    source.seek(member.place)
    return source.read(member.size)


def _find_sums(
    source: IO[bytes], members: Mapping[str, Member], ovf: str
) -> dict[str, tuple[str, str]]:
    """File name to algorithm and digest, of the manifest; none where there is no manifest."""
    manifest = f"{ovf[: -len('.ovf')]}.mf"
    if manifest not in members:
        return {}
    text = _read(source, members, manifest).decode("utf-8", "replace")
    sums: dict[str, tuple[str, str]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _LINE.fullmatch(line)
        if match is None:
            raise VerificationError(f"its manifest is damaged: {ascii(line)[:80]}", hint=_WHOLE)
        sums[match[2]] = (match[1].lower(), match[3].lower())
    return sums


def _copy(source: IO[bytes], member: Member, target: Path, algorithm: str) -> str:
    """The digest of what was copied."""
    digest = hashlib.new(algorithm)
    source.seek(member.place)
    with open(target, "xb") as stream:
        for done in range(0, member.size, _CHUNK):
            piece = source.read(min(_CHUNK, member.size - done))
            if not piece:
                raise VerificationError("it is cut short", hint=_WHOLE)
            digest.update(piece)
            stream.write(piece)
            if done and done % (_STEP_MIB << 20) == 0:
                print(STEP, _STEP_MIB, flush=True)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(carry_out(fulfil))
