"""The kernels of a root file system: what Xen's loaders will find in each and in its initrd."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pipeline.check.boot_files import MOST_BOOT_FILE, judge_files
from pipeline.errors import PipelineError
from pipeline.kernel.modules import name_of
from pipeline.walls.beneath import Beneath

MODULES = "/lib/modules"
_MOST_KERNELS = 12
_MOST_INDEX = 16 << 20
# Debian, Fedora and SUSE, Alpine and Arch, Gentoo
_KERNEL = re.compile(r"(?:vmlinu[xz]|kernel|bzImage)-(?P<name>.+)")
_INITRDS = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}", "initramfs-{}", "initrd-{}.img")
_LEFT = re.compile(r"\.(dpkg-\w+|old|bak|hmac)$|~$")
_DRIVER, _OLD_DRIVER = "xen_blkfront", "xenblk"


@dataclass(frozen=True, kw_only=True)
class InstalledKernel:
    """A kernel in /boot with its initrd ("" for none); `abi` names its modules.

    `blkfront` says where the driver of Xen's disks is: in the kernel itself, in its initrd, or
    among its modules alone, where it comes too late; "" for nowhere.
    """

    abi: str
    kernel: str
    initrd: str = ""
    has_pvh_note: bool = False
    compression: str = "unknown"
    blkfront: str = ""

    @property
    def has_blkfront(self) -> bool:
        """Whether it finds a disk of Xen's at boot."""
        return self.blkfront in ("kernel", "initrd")


def read_kernels(tree: Beneath, note: Callable[[str], object]) -> Iterator[InstalledKernel]:
    """Those in /boot, the newest first; `note` gets what could not be read."""
    try:
        names = tree.names("/boot", follow_last=True)
    except (PipelineError, OSError):
        return
    kernels = [name for name in names if _KERNEL.fullmatch(name) and not _LEFT.search(name)]
    kernels.sort(key=_version, reverse=True)
    if len(kernels) > _MOST_KERNELS:
        note(f"/boot: {len(kernels)} kernels, the newest {_MOST_KERNELS} are read")
    for name in kernels[:_MOST_KERNELS]:
        match = _KERNEL.fullmatch(name)
        assert match is not None
        initrds = (form.format(match["name"]) for form in _INITRDS)
        initrd = next((initrd for initrd in initrds if initrd in names), "")
        try:
            yield _read_kernel(tree, name, initrd, match["name"], note)
        except (PipelineError, OSError) as error:
            note(str(error))


def _version(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key by which vmlinuz-6.10 is newer than vmlinuz-6.9, and a rescue kernel the oldest."""
    if "rescue" in name:
        return ()
    parts = re.split(r"(\d+)", name.partition("-")[2])
    return tuple((1, int(part)) if part.isdecimal() else (0, part) for part in parts)


def _read_kernel(
    tree: Beneath, name: str, initrd: str, suffix: str, note: Callable[[str], object]
) -> InstalledKernel:
    image = tree.read(f"/boot/{name}", limit=MOST_BOOT_FILE, follow_last=True)
    packed = b""
    if initrd:
        packed = tree.read(f"/boot/{initrd}", limit=MOST_BOOT_FILE, follow_last=True)
    files = judge_files(image, packed)
    for fault in files.faults:
        note(f"/boot/{name}: {fault}")
    facts = files.kernel
    abi = (facts.release if facts else "") or suffix
    abi = abi if re.fullmatch(r"[\w.+~-]+", abi) and not abi.startswith(".") else suffix
    return InstalledKernel(
        abi=abi,
        kernel=f"/boot/{name}",
        initrd=f"/boot/{initrd}" if initrd else "",
        has_pvh_note=bool(facts and "PHYS32_ENTRY" in (facts.elf_notes or {})),
        compression=facts.compression if facts else "unknown",
        blkfront=_find_blkfront(tree, abi, files.initrd_modules or frozenset()),
    )


def _find_blkfront(tree: Beneath, abi: str, initrd: frozenset[str]) -> str:
    home = f"{MODULES}/{abi}"
    config = _index(tree, f"/boot/config-{abi}")
    is_built_in = _DRIVER in map(name_of, _index(tree, f"{home}/modules.builtin"))
    if is_built_in or "CONFIG_XEN_BLKDEV_FRONTEND=y" in config:
        return "kernel"
    if {_DRIVER, _OLD_DRIVER} & initrd:
        return "initrd"
    files = (line.partition(":")[0] for line in _index(tree, f"{home}/modules.dep"))
    return "modules" if _DRIVER in map(name_of, files) else ""


def _index(tree: Beneath, path: str) -> list[str]:
    with suppress(PipelineError, OSError):
        content = tree.read(path, limit=_MOST_INDEX, follow_last=True)
        return content.decode("utf-8", "replace").splitlines()
    return []
