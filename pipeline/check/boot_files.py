"""The kernel and the initrd that a guest boots with, from the artifact or out of its own disk."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.check.image import ImageReader
from pipeline.check.tree import Tree
from pipeline.kernel.cpio import module_names, read_initrd
from pipeline.kernel.facts import KernelFacts
from pipeline.kernel.image import read_kernel
from pipeline.spec import Spec
from pipeline.xen.grub_menu import parse_grub_cfg
from pipeline.xen.values import SyntaxFault

MOST_BOOT_FILE = 256 << 20
GRUB_CFG = "/boot/grub/grub.cfg"


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
        kernel = read_kernel(vmlinuz)
    except ValueError as fault:
        return BootFiles(faults=(f"the kernel: {fault}",))
    if not initrd:
        return BootFiles(kernel)
    try:
        modules = module_names(read_initrd(initrd))
    except ValueError as fault:
        return BootFiles(kernel, None, len(initrd), (f"the initrd: {fault}",))
    return BootFiles(kernel, modules, len(initrd))
