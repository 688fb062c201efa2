"""Kernels on the host: a folder for each, shared by the guests that boot it, gone with the last.

A folder's name is the ABI and a digest of kernel and ramdisk, so what is in one never changes. UEFI
firmware that a guest brings has a folder among them, by the same rules.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.artifact.kernel_folder import KERNEL, MODULES, PARTS, RAMDISK, KernelFolder
from pipeline.dom0.inventory import Installed, survey
from pipeline.dom0.layout import Layout
from pipeline.dom0.restriction import purge_program
from pipeline.errors import VerificationError
from pipeline.files import digest_file, sync_file, sync_folder
from pipeline.locks import folder_locked, try_folder_locked
from pipeline.store.store import BUILDINFO, exchange

FIRMWARE = "firmware"  # of a record's origin: the folder of the UEFI firmware that it starts by
_FIRMWARE = "ovmf"


def place_kernel(layout: Layout, kernel: KernelFolder, *, with_modules: bool = False) -> Path:
    """The kernel's folder on the host, made by one rename unless it is there already.

    Its modules come along only for a guest that gets them later.
    """
    final = layout.kernels / kernel.identity
    names = [name for name in (*PARTS, BUILDINFO) if (kernel.folder / name).is_file()]
    if not _is_whole(final, kernel.abi):
        with _placing(final) as scratch:
            for name in names:
                _copy_durably(kernel.folder / name, scratch / name)
            if KernelFolder(scratch, kernel.abi).identity != final.name:
                raise VerificationError(
                    f"{kernel.folder}: its kernel changed while it was copied", hint="again"
                )
    if with_modules and not (final / MODULES).exists():
        _copy_durably(kernel.modules, final / MODULES)
    return final


def firmware_folder(layout: Layout, firmware: Path) -> Path:
    """Where UEFI firmware of these bytes is on the host, or will be."""
    return layout.kernels / f"{_FIRMWARE}-{digest_file(firmware)[:12]}"


def place_firmware(layout: Layout, firmware: Path) -> Path:
    """The folder of a guest's firmware on the host, made by one rename unless it is there whole."""
    final = firmware_folder(layout, firmware)
    placed = final / firmware.name
    if placed.is_file() and firmware_folder(layout, placed) == final:
        return final
    with _placing(final) as scratch:
        _copy_durably(firmware, scratch / firmware.name)
        if firmware_folder(layout, scratch / firmware.name) != final:
            raise VerificationError(f"{firmware} changed while it was copied", hint="again")
    return final


@contextmanager
def _placing(final: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `final` by one rename when the block ends."""
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = final.with_name(f".new-{uuid.uuid4().hex[:8]}")
    scratch.mkdir()
    try:
        yield scratch
        if os.path.lexists(final):  # a bit of it is not what its name says
            exchange(scratch, final)
        else:
            os.rename(scratch, final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    sync_folder(final.parent)


def _is_whole(folder: Path, abi: str) -> bool:
    """Whether a kernel on the host is still the one that its folder is named after."""
    if folder.is_symlink() or not all((folder / name).is_file() for name in (KERNEL, RAMDISK)):
        return False
    return KernelFolder(folder, abi).identity == folder.name


def _copy_durably(source: Path, target: Path) -> None:
    aside = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, aside)
    sync_file(aside)
    os.rename(aside, target)


@contextmanager
def placing_kernels(layout: Layout) -> Iterator[None]:
    """While this is held no kernel is purged, so that one may be placed and then named.

    Afterwards those that nobody needs are, one that was placed in vain too.
    """
    try:
        with folder_locked(layout.kernels):
            yield
    finally:
        purge_kernels(layout)


def purge_kernels(layout: Layout) -> list[str]:
    """Remove the kernels that no installed guest boots or may go back to; returns their names.

    Nothing is removed while another command places one: that one purges when it ends. The program
    that pygrub's guests share goes by the same rule.
    """
    purge_program(layout)
    with try_folder_locked(layout.kernels) as is_ours:
        return _purge(layout) if is_ours else []


def _purge(layout: Layout) -> list[str]:
    installed, problems = survey(layout)
    if problems:
        return []  # a record that cannot be read may need any of them
    records = installed.values()
    used = {path for record in records for path in _used_by(record)}
    doomed = [path for path in sorted(layout.kernels.iterdir()) if str(path) not in used]
    for path in doomed:
        shutil.rmtree(path)
    awaited = {record.pending for record in records}
    for path in layout.kernels.glob(f"*/{MODULES}"):
        if str(path.parent) not in awaited:
            path.unlink()
    with suppress(OSError):
        layout.kernels.rmdir()
    return [path.name for path in doomed if not path.name.startswith(".")]


def _used_by(record: Installed) -> Iterator[str]:
    at: Installed | None = record
    while at is not None:
        yield from filter(None, (at.kernel, at.pending, at.origin.get(FIRMWARE)))
        at = at.previous
