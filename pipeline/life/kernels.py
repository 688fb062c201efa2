"""Kernels on the host: a folder for each, shared by the guests that boot it, gone with the last.

A folder's name is the ABI and a digest of kernel and ramdisk, so what is in one never changes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.canonical import digest_file, fingerprint, sync_folder
from pipeline.errors import UsageError
from pipeline.life.layout import Layout
from pipeline.life.records import Installed, list_installed
from pipeline.store import BUILDINFO, read_buildinfo

KERNEL, RAMDISK, FACTS, MODULES = "vmlinuz", "initrd.img", "kernel.json", "modules.tar"
_PARTS = (KERNEL, RAMDISK, FACTS, BUILDINFO)


@dataclass(frozen=True)
class KernelFolder:
    """Kernel, ramdisk and perhaps modules of one ABI, as a build or an artifact has them."""

    folder: Path
    abi: str

    @property
    def modules(self) -> Path:
        """The archive of its modules, which only a refresh needs."""
        return self.folder / MODULES

    @property
    def fingerprint(self) -> str:
        """What it was made from, "" where the folder does not say."""
        found = read_buildinfo(self.folder)
        return found.fingerprint if found and found.stage == "kernel" else ""

    @property
    def identity(self) -> str:
        """ABI and digest: the name of its folder on the host."""
        files = [digest_file(self.folder / name) for name in (KERNEL, RAMDISK)]
        return f"{self.abi}-{fingerprint(files)[:12]}"


def read_kernel_folder(folder: Path) -> KernelFolder:
    """Raises UsageError when the folder is none."""
    for name in (KERNEL, RAMDISK, FACTS):
        if not (folder / name).is_file():
            raise UsageError(
                f"{folder} holds no kernel: {name} is missing",
                hint="name an artifact folder or one of output/store/kernel/",
            )
    try:
        return KernelFolder(folder, str(json.loads((folder / FACTS).read_text())["abi"]))
    except (ValueError, KeyError) as error:
        raise UsageError(f"{folder / FACTS}: no abi in it ({error})") from error


def place_kernel(layout: Layout, kernel: KernelFolder, *, with_modules: bool = False) -> Path:
    """The kernel's folder on the host, made by one rename unless it is there already.

    Its modules come along only for a guest that gets them later.
    """
    final = layout.kernels / kernel.identity
    names = [name for name in _PARTS if (kernel.folder / name).is_file()]
    if not final.is_dir():
        layout.kernels.mkdir(parents=True, exist_ok=True)
        scratch = layout.kernels / f".new-{uuid.uuid4().hex[:8]}"
        scratch.mkdir()
        try:
            for name in names:
                _copy_durably(kernel.folder / name, scratch / name)
            os.rename(scratch, final)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        sync_folder(layout.kernels)
    if with_modules and not (final / MODULES).exists():
        _copy_durably(kernel.modules, final / MODULES)
    return final


def _copy_durably(source: Path, target: Path) -> None:
    aside = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, aside)
    with open(aside, "rb") as stream:
        os.fsync(stream.fileno())
    os.rename(aside, target)


@contextmanager
def placing_kernels(layout: Layout) -> Iterator[None]:
    """While this is held no kernel is purged, so that one may be placed and then named.

    Afterwards those that nobody needs are, one that was placed in vain too.
    """
    descriptor = _lock_folder(layout)
    try:
        yield
    finally:
        os.close(descriptor)
        purge_kernels(layout)


def _lock_folder(layout: Layout) -> int:
    """A descriptor of the kernels' folder, locked shared; the folder is made where it is not."""
    while True:
        layout.kernels.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(layout.kernels, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == layout.kernels.stat().st_ino:
                return descriptor
        os.close(descriptor)  # the last kernel was purged, and the folder with it


def purge_kernels(layout: Layout) -> list[str]:
    """Remove the kernels that no installed guest boots or may go back to; returns their names.

    Nothing is removed while another command places one: that one purges when it ends.
    """
    if not layout.kernels.is_dir():
        return []
    descriptor = os.open(layout.kernels, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return []
    try:
        records = list_installed(layout).values()
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
    finally:
        os.close(descriptor)
    return [path.name for path in doomed if not path.name.startswith(".")]


def _used_by(record: Installed) -> Iterator[str]:
    at: Installed | None = record
    while at is not None:
        yield from filter(None, (at.kernel, at.pending))
        at = at.previous
