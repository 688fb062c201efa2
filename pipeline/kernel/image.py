"""A kernel file as Xen's domain builder sees it: its version, compression and ELF notes.

Layout of bzImage: Documentation/arch/x86/boot.rst of Linux (payload fields from protocol 2.08).
"""

from __future__ import annotations

import bz2
import lzma
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.kernel.elf_notes import read_elf_bits, read_xen_notes

MAGICS = (
    (b"\x7fELF", "none"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\x5d\x00\x00", "lzma"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x89LZO", "lzo"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
Decompressor = Callable[[bytes], bytes]

_PAYLOAD_PROTOCOL = 0x208
MOST_UNPACKED = 512 << 20
_MOST_MEMORY = 256 << 20  # of an xz dictionary; a kernel's has 32 MiB


@dataclass(frozen=True, kw_only=True)
class KernelFacts:
    """What a kernel file says. `elf_notes` is None when the payload could not be unpacked.

    `compression` is that of the payload: none, gzip, bzip2, lzma, xz, lzo, lz4, zstd or unknown;
    `release` is what `uname -r` will say; `unread` says why there are no notes; sizes in bytes.
    """

    is_bzimage: bool
    version: str = ""
    compression: str = "none"
    elf_notes: Mapping[str, str] | None = None
    bits: int = 0
    size: int = 0
    unpacked_size: int = 0
    unread: str = field(default="", compare=False)

    @property
    def release(self) -> str:
        """The first word of the version, which names the module directory."""
        return self.version.split(" ")[0]


def read_kernel(
    image: bytes, *, decompressors: Mapping[str, Decompressor] | None = None
) -> KernelFacts:
    """The facts of a bzImage, of an ELF file or of a compressed ELF file (Xen kernels of 2.6.18).

    `decompressors` unpack what the standard library cannot (lz4, zstd, lzo), by name; they get the
    stream without trailing bytes. Raises ValueError when the bytes are no kernel at all.
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
        elf = unpack(stream, compression, decompressors or {})
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


def find_compression(stream: bytes) -> str:
    """The name of the compression by its magic number, `none` for ELF, else `unknown`."""
    for magic, name in MAGICS:
        if stream.startswith(magic):
            return name
    return "unknown"


def unpack(stream: bytes, compression: str, decompressors: Mapping[str, Decompressor]) -> bytes:
    """The unpacked bytes; at most 512 MiB. Raises ValueError when that fails or nobody can."""
    injected = decompressors.get(compression)
    try:
        if injected is not None:
            return injected(stream)
        if compression == "none":
            return stream
        if compression == "gzip":
            return bounded(zlib.decompressobj(wbits=31).decompress(stream, MOST_UNPACKED + 1))
        if compression == "bzip2":
            return bounded(bz2.BZ2Decompressor().decompress(stream, MOST_UNPACKED + 1))
        if compression in ("xz", "lzma"):
            kind = lzma.FORMAT_XZ if compression == "xz" else lzma.FORMAT_ALONE
            unpacker = lzma.LZMADecompressor(kind, memlimit=_MOST_MEMORY)
            return bounded(unpacker.decompress(stream, MOST_UNPACKED + 1))
    except (zlib.error, OSError, lzma.LZMAError, EOFError) as fault:
        raise ValueError(f"the {compression} stream is damaged: {fault}") from None
    raise ValueError(f"no decompressor for {compression}")


def bounded(unpacked: bytes) -> bytes:
    """What was unpacked; ValueError when it is more than any kernel or initrd has."""
    if len(unpacked) > MOST_UNPACKED:
        raise ValueError(f"it unpacks to more than {MOST_UNPACKED >> 20} MiB")
    return unpacked


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
