"""Kernel, ramdisk and modules of one ABI as a folder: of a build, of an artifact, or given."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.files import digest_file, fingerprint, read_table
from pipeline.store.store import read_buildinfo

ABI = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,127}")


KERNEL, RAMDISK, FACTS, MODULES = "vmlinuz", "initrd.img", "kernel.json", "modules.tar"


PARTS = (KERNEL, RAMDISK, FACTS)


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
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise UsageError(
                f"{folder} holds no kernel: {name} is missing",
                hint="name an artifact folder or one of output/store/kernel/",
            )
    return KernelFolder(folder, read_abi(folder))


def read_abi(folder: Path, *, may_lack: bool = False) -> str:
    """The kernel's ABI, "" where there may be none; UsageError for what cannot be one."""
    try:
        abi = read_table(folder / FACTS, "a kernel's facts").get("abi", "")
    except FileNotFoundError:
        abi = ""
    if may_lack and abi == "":
        return ""
    if not isinstance(abi, str) or not ABI.fullmatch(abi):
        raise UsageError(f"{folder / FACTS}: {abi!r} is no kernel's ABI", hint="build it again")
    return abi
