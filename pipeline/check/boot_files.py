"""The kernel and the initrd that a guest boots with, from the artifact or out of its own disk."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.check.image import ImageReader
from pipeline.check.tree import Tree
from pipeline.kernel.cpio import module_names, read_initrd
from pipeline.kernel.image import MOST_UNPACKED, Decompressor, KernelFacts, bounded, read_kernel
from pipeline.spec import Spec
from pipeline.xen.grub_menu import parse_grub_cfg
from pipeline.xen.values import SyntaxFault

MOST_BOOT_FILE = 256 << 20
GRUB_CFG = "/boot/grub/grub.cfg"
_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_ZSTD_WINDOW = 1 << 28  # zstd --ultra -22, which kernels use, takes half of it
_ZSTD_STEP = 4096  # which a bomb makes 128 MiB of
_LZ4_BLOCK = 8 << 20  # of the legacy format; lz4_Frame_format.md of lz4


@dataclass(frozen=True)
class BootFiles:
    """What will boot. `faults` says what could not be read; `kernel` is None then."""

    kernel: KernelFacts | None = None
    initrd_modules: frozenset[str] | None = None
    initrd_size: int | None = None
    faults: tuple[str, ...] = ()


def read_boot_files(spec: Spec, folder: Path, tree: Tree, reader: ImageReader) -> BootFiles:
    """The files that the domain's configuration or the guest's own menu boots."""
    if not spec.is_kernel_inside:
        files = [folder / "vmlinuz", folder / "initrd.img"]
        missing = [f"no {path.name}" for path in files if not path.is_file()]
        if missing:
            return BootFiles(faults=tuple(missing))
        long = [
            f"{path.name} is too long" for path in files if path.stat().st_size > MOST_BOOT_FILE
        ]
        if long:
            return BootFiles(faults=tuple(long))
        return judge_files(files[0].read_bytes(), files[1].read_bytes())
    try:
        entry = parse_grub_cfg(tree.text(GRUB_CFG)).default_entry
    except SyntaxFault as fault:
        return BootFiles(faults=(f"{GRUB_CFG}: {fault}",))
    named = [entry.kernel, *([entry.initrd] if entry.initrd else [])]
    paths = [path if path.startswith("/boot/") else f"/boot{path}" for path in named]
    reader.read_files(paths, limit=MOST_BOOT_FILE)
    contents = [tree.content(path) for path in paths]
    missing = [f"no {path}" for path, found in zip(paths, contents, strict=True) if not found]
    if missing:
        return BootFiles(faults=tuple(missing))
    return judge_files(contents[0], contents[1] if len(contents) > 1 else b"")


def judge_files(vmlinuz: bytes, initrd: bytes) -> BootFiles:
    """Facts of a kernel and its initrd; no initrd when that is empty."""
    try:
        kernel = read_kernel(vmlinuz, decompressors=DECOMPRESSORS)
    except ValueError as fault:
        return BootFiles(faults=(f"the kernel: {fault}",))
    if not initrd:
        return BootFiles(kernel)
    try:
        modules = module_names(read_initrd(initrd, decompressors=DECOMPRESSORS))
    except ValueError as fault:
        return BootFiles(kernel, None, len(initrd), (f"the initrd: {fault}",))
    return BootFiles(kernel, modules, len(initrd))


def unpack_lz4(stream: bytes) -> bytes:
    """The legacy LZ4 format, which kernels use: after the magic [u32 size][block], again and again.

    Raises ValueError for a damaged stream. Frames of the newer kind go to lz4's own reader.
    """
    import lz4.block
    import lz4.frame

    try:
        if not stream.startswith(_LZ4_LEGACY):
            frame = lz4.frame.LZ4FrameDecompressor()
            unpacked = bounded(bytes(frame.decompress(stream, max_length=MOST_UNPACKED + 1)))
            if not frame.eof:
                raise ValueError("the lz4 stream is damaged: it ends too early")
            return unpacked
        blocks: list[bytes] = []
        room = MOST_UNPACKED
        at = len(_LZ4_LEGACY)
        while at + 4 <= len(stream):
            size = struct.unpack_from("<I", stream, at)[0]
            at += 4
            if size == struct.unpack("<I", _LZ4_LEGACY)[0]:  # streams may follow one another
                continue
            block = stream[at : at + size]
            if size == 0:  # padding
                break
            if len(block) < size:
                raise ValueError("the lz4 stream is damaged: it ends within a block")
            blocks.append(lz4.block.decompress(block, uncompressed_size=_LZ4_BLOCK))
            room -= len(blocks[-1])
            if room < 0:
                raise ValueError(f"it unpacks to more than {MOST_UNPACKED >> 20} MiB")
            at += size
        return b"".join(blocks)
    except (lz4.block.LZ4BlockError, RuntimeError) as fault:
        raise ValueError(f"the lz4 stream is damaged: {fault}") from None


def unpack_zstd(stream: bytes) -> bytes:
    """One zstd frame. Raises ValueError for a damaged stream."""
    import zstandard

    parts: list[bytes] = []
    room = MOST_UNPACKED
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        for at in range(0, len(stream), _ZSTD_STEP):
            parts.append(reader.decompress(stream[at : at + _ZSTD_STEP]))
            room -= len(parts[-1])
            if room < 0:
                raise ValueError(f"it unpacks to more than {MOST_UNPACKED >> 20} MiB")
            if reader.eof:
                return b"".join(parts)
    except zstandard.ZstdError as fault:
        raise ValueError(f"the zstd stream is damaged: {fault}") from None
    raise ValueError("the zstd stream is damaged: it ends too early")


DECOMPRESSORS: Mapping[str, Decompressor] = {"lz4": unpack_lz4, "zstd": unpack_zstd}
