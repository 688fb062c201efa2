"""ELF notes named "Xen": what a kernel says about itself to Xen's domain builder.

The numbers are those of Xen's public header elfnote.h. pyelftools reads headers and notes, but only
as many as a kernel has: it would follow any number that a stranger wrote there.
"""

import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.construct import ConstructError
from elftools.elf.enums import ENUM_NOTE_N_TYPE
from elftools.elf.notes import iter_notes
from elftools.elf.structs import ELFStructs

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
_BITS = {1: 32, 2: 64}
_MOST_SEGMENTS, _MOST_NOTES, _LONGEST_NOTES = 64, 16, 1 << 16


def read_elf_bits(elf: bytes) -> int:
    """32 or 64. Raises ValueError when the bytes are no little-endian ELF file."""
    if elf[:4] != b"\x7fELF" or len(elf) < 52 or elf[4] not in _BITS or elf[5] != 1:
        raise ValueError("not a little-endian ELF file")
    return _BITS[elf[4]]


def read_xen_notes(elf: bytes) -> dict[str, str]:
    """Note name to value (numbers in hexadecimal) of the notes called "Xen". Raises ValueError."""
    structs = ELFStructs(little_endian=True, elfclass=read_elf_bits(elf))
    structs.create_basic_structs()
    structs.create_advanced_structs()
    notes: dict[str, str] = {}
    try:
        for segment in _note_segments(elf, structs):
            # nothing beyond the segment is there to be read
            bounded: Any = SimpleNamespace(stream=io.BytesIO(segment), structs=structs)
            for note in iter_notes(bounded, 0, len(segment)):
                if note["n_name"] == "Xen":
                    kind: Any = note["n_type"]
                    if isinstance(kind, str):  # a number that GNU gives a meaning
                        kind = ENUM_NOTE_N_TYPE[kind]
                    notes[NOTE_NAMES.get(kind, f"NOTE_{kind}")] = _show(kind, note["n_descdata"])
    except (ELFError, ConstructError, OverflowError) as fault:
        raise ValueError(f"the ELF headers or notes are damaged: {fault}") from None
    return notes


def _note_segments(elf: bytes, structs: ELFStructs) -> Iterator[bytes]:
    stream = io.BytesIO(elf)
    header = struct_parse(structs.Elf_Ehdr, stream, 0)
    left = _MOST_NOTES
    if header["e_phnum"] > _MOST_SEGMENTS:
        raise ValueError("more ELF segments than any kernel has")
    for index in range(header["e_phnum"]):
        at = header["e_phoff"] + index * header["e_phentsize"]
        segment = struct_parse(structs.Elf_Phdr, stream, at)
        if segment["p_type"] == "PT_NOTE":
            left -= 1
            if left < 0 or segment["p_filesz"] > _LONGEST_NOTES:
                raise ValueError("more ELF notes than any kernel has")
            yield elf[segment["p_offset"] : segment["p_offset"] + segment["p_filesz"]]


def _show(kind: int, value: bytes) -> str:
    if kind in _TEXT_NOTES:
        return value.rstrip(b"\0").decode("ascii", "replace")
    if len(value) in (4, 8):
        return hex(int.from_bytes(value, "little"))
    return value.hex()
