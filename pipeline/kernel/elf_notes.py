"""ELF notes named "Xen": what a kernel says about itself to Xen's domain builder.

The numbers are those of Xen's public header elfnote.h, the layout that of the ELF specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

NOTE_NAMES = {
    0: "INFO",
    1: "ENTRY",
    2: "HYPERCALL_PAGE",
    3: "VIRT_BASE",
    4: "PADDR_OFFSET",
    5: "XEN_VERSION",
    6: "GUEST_OS",
    7: "GUEST_VERSION",
    8: "LOADER",
    9: "PAE_MODE",
    10: "FEATURES",
    11: "BSD_SYMTAB",
    12: "HV_START_LOW",
    13: "L1_MFN_VALID",
    14: "SUSPEND_CANCEL",
    15: "INIT_P2M",
    16: "MOD_START_PFN",
    17: "SUPPORTED_FEATURES",
    18: "PHYS32_ENTRY",
}
_TEXT_NOTES = frozenset({5, 6, 7, 8, 9, 10})
_PT_NOTE = 4
_CLASS_64 = 2
_MOST_NOTES, _LONGEST_NOTES = 16, 1 << 16


@dataclass(frozen=True)
class _Layout:
    """Where the program headers are: struct formats and offsets of one ELF class."""

    header: str
    header_at: int
    offset_at: int
    word: str


_LAYOUTS = {
    1: _Layout(header="<I", header_at=28, offset_at=4, word="I"),
    _CLASS_64: _Layout(header="<Q", header_at=32, offset_at=8, word="Q"),
}


def read_elf_bits(elf: bytes) -> int:
    """32 or 64. Raises ValueError when the bytes are no little-endian ELF file."""
    if elf[:4] != b"\x7fELF" or len(elf) < 52 or elf[4] not in _LAYOUTS or elf[5] != 1:
        raise ValueError("not a little-endian ELF file")
    return 64 if elf[4] == _CLASS_64 else 32


def read_xen_notes(elf: bytes) -> dict[str, str]:
    """Note name to value (numbers in hexadecimal) of the notes called "Xen". Raises ValueError."""
    read_elf_bits(elf)
    notes: dict[str, str] = {}
    for segment in _note_segments(elf):
        for owner, kind, value in _split_notes(segment):
            if owner == b"Xen":
                notes[NOTE_NAMES.get(kind, f"NOTE_{kind}")] = _show(kind, value)
    return notes


def _note_segments(elf: bytes) -> Iterator[bytes]:
    layout = _LAYOUTS[elf[4]]
    table = struct.unpack_from(layout.header, elf, layout.header_at)[0]
    sizes_at = 42 if layout.word == "I" else 54
    entry_size, count = struct.unpack_from("<HH", elf, sizes_at)
    size_at = 16 if layout.word == "I" else 32
    left = _MOST_NOTES
    for index in range(count):
        at = table + index * entry_size
        if at + entry_size > len(elf):
            raise ValueError("the ELF program headers lie outside the file")
        if struct.unpack_from("<I", elf, at)[0] == _PT_NOTE:
            offset = struct.unpack_from(f"<{layout.word}", elf, at + layout.offset_at)[0]
            size = struct.unpack_from(f"<{layout.word}", elf, at + size_at)[0]
            left -= 1
            if left < 0 or size > _LONGEST_NOTES:
                raise ValueError("more ELF notes than any kernel has")
            yield elf[offset : offset + size]


def _split_notes(segment: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    at = 0
    while at + 12 <= len(segment):
        name_size, value_size, kind = struct.unpack_from("<III", segment, at)
        value_at = at + 12 + (name_size + 3 & ~3)
        name = segment[at + 12 : at + 12 + name_size].rstrip(b"\0")
        yield name, kind, segment[value_at : value_at + value_size]
        at = value_at + (value_size + 3 & ~3)


def _show(kind: int, value: bytes) -> str:
    if kind in _TEXT_NOTES:
        return value.rstrip(b"\0").decode("ascii", "replace")
    if len(value) in (4, 8):
        return hex(int.from_bytes(value, "little"))
    return value.hex()
