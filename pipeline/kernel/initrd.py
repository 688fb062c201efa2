"""Making the initrd: deterministic, without root, for any kernel whose modules are at hand."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.kernel.cpio import Archive, compress
from pipeline.kernel.modules import ModuleFolder

INIT = Path(__file__).with_name("init")


@dataclass(frozen=True)
class Initrd:
    """A finished initrd: its bytes and the names of the modules in it."""

    content: bytes
    modules: tuple[str, ...]


def build_initrd(busybox: bytes, folder: ModuleFolder, abi: str, *, file_system: str) -> Initrd:
    """The initrd that finds a root file system of this kind on a Xen disk.

    `busybox` is a static busybox of the guest's architecture. Raises PipelineError when the kernel
    lacks a needed driver.
    """
    if not busybox.startswith(b"\x7fELF"):
        raise PipelineError("busybox-static brings no program that the initrd could start")
    asked, files = folder.select(file_system)
    archive = Archive()
    for name in ("proc", "sys", "root", "sbin", "bin", "etc"):
        archive.add_folder(name)
    archive.add_console()
    archive.add_file("init", INIT.read_bytes(), mode=0o755)
    archive.add_file("bin/busybox", busybox, mode=0o755)
    archive.add_file("etc/modules", "".join(f"{name}\n" for name in asked).encode())
    home = f"lib/modules/{abi}"
    archive.add_folder(home)
    dependencies: list[str] = []
    for module in files:
        needs = " ".join(_plain(path) for path in module.needs)
        dependencies.append(f"{_plain(module.path)}: {needs}".rstrip() + "\n")
        archive.add_file(f"{home}/{_plain(module.path)}", folder.read(module))
    archive.add_file(f"{home}/modules.dep", "".join(dependencies).encode())
    names = tuple(sorted(module.name for module in files))
    return Initrd(compress(archive.pack()), names)


def _plain(path: str) -> str:
    """The module's path without a compression suffix: it is stored decompressed."""
    return path.partition(".ko")[0] + ".ko"
