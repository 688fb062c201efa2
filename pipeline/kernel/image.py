"""A kernel file as Xen's domain builder sees it: its version, compression and ELF notes.

Layout of bzImage: Documentation/arch/x86/boot.rst of Linux (payload fields from protocol 2.08).
"""

import re
import struct
from collections.abc import Mapping

from pipeline.compression import find_compression, unpack
from pipeline.kernel.elf_notes import read_elf_bits, read_xen_notes
from pipeline.kernel.facts import KernelFacts

_PAYLOAD_PROTOCOL = 0x208


def read_kernel(image: bytes) -> KernelFacts:
    """The facts of a bzImage, of an ELF file or of a compressed ELF file (Xen kernels of 2.6.18).

    Raises ValueError when the bytes are no kernel at all.
    """
    is_bzimage = image[0x202:0x206] == b"HdrS"
    try:
        version = _read_version(image) if is_bzimage else ""
        payload = _cut_payload(image) if is_bzimage else image
    except (struct.error, IndexError):
        raise ValueError("a bzImage that is cut off") from None
    compression = find_compression(payload)
    if compression == "unknown" and not is_bzimage:
        raise ValueError("neither a bzImage nor an ELF file, plain or compressed")
    # The build appends the unpacked size, four bytes, to every format but gzip.
    stream = payload[:-4] if is_bzimage and compression not in ("gzip", "none") else payload
    notes: Mapping[str, str] | None = None
    bits = unpacked_size = 0
    unread = ""
    try:
        elf = unpack(stream, compression, is_first_enough=True)
        unpacked_size = len(elf)
        bits = read_elf_bits(elf)
        notes = read_xen_notes(elf)
        version = version or _find_banner(elf)
    except (ValueError, struct.error) as fault:
        unread = str(fault)
    return KernelFacts(
        is_bzimage=is_bzimage,
        version=version,
        compression=compression,
        elf_notes=notes,
        bits=bits,
        size=len(image),
        unpacked_size=unpacked_size,
        unread=unread,
    )


def _find_banner(elf: bytes) -> str:
    """The version in the banner that the kernel prints first: a bare ELF file has no other."""
    found = re.search(rb"Linux version (\d[^\0\n]{0,500})", elf)
    return found[1].decode("utf-8", "replace") if found else ""


def _read_version(image: bytes) -> str:
    at = struct.unpack_from("<H", image, 0x20E)[0]
    if at == 0:
        return ""
    raw = image[at + 0x200 : at + 0x200 + 512]
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _cut_payload(image: bytes) -> bytes:
    if struct.unpack_from("<H", image, 0x206)[0] < _PAYLOAD_PROTOCOL:
        return b""
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    return image[start : start + length]
