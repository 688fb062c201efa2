"""Which modules an initrd needs, with what they need, out of a kernel's modules folder.

Sources: modules.dep(5), modules.builtin in the kernel's kbuild documentation, depmod(8).
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.compression import SUFFIXES, unpack
from pipeline.errors import PipelineError

DISK = "xen-blkfront"
# the checksum's module is looked up by name at mount time: modules.dep does not lead there
_WITH_FILE_SYSTEM = {
    "ext2": ("ext2",),
    "ext3": ("ext3",),
    "ext4": ("ext4", "crc32c_generic"),
    "xfs": ("xfs", "crc32c_generic"),
    "btrfs": ("btrfs", "crc32c_generic"),
}
_DRIVEN_BY_EXT4 = {"ext2", "ext3"}


@dataclass(frozen=True)
class ModuleFile:
    """One module: name, path below the modules folder, paths that must be loaded before it."""

    name: str
    path: str
    needs: tuple[str, ...]


class ModuleFolder:
    """A kernel's /lib/modules/<ABI> after depmod."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = {module.name: module for module in _read_dep(folder)}
        builtin = folder / "modules.builtin"
        text = builtin.read_text() if builtin.is_file() else ""
        self.built_in = {name_of(line) for line in text.split()}

    def has(self, name: str) -> bool:
        """True for a module file of that name (- and _ are the same)."""
        return name_of(name) in self._files

    def select(self, file_system: str) -> tuple[list[str], list[ModuleFile]]:
        """What to modprobe, in order, and every file that this takes.

        Raises PipelineError when the kernel has no driver for Xen's disks or the file system.
        """
        wanted = [DISK, *_WITH_FILE_SYSTEM[file_system]]
        asked: list[str] = []
        files: dict[str, ModuleFile] = {}
        for name in wanted:
            if name in _DRIVEN_BY_EXT4 and not self.has(name):
                name = "ext4"
            if name_of(name) in self.built_in:
                continue
            if not self.has(name):
                if name == "crc32c_generic":
                    continue
                raise PipelineError(
                    f"the kernel has no {name}: it could not mount its root file system under Xen",
                    hint="choose another kernel=, or another fs=",
                )
            module = self._files[name_of(name)]
            for path in (*reversed(module.needs), module.path):
                needed = self._files[name_of(path)]
                files[needed.path] = needed
            asked.append(name)
        return asked, list(files.values())

    def read(self, module: ModuleFile) -> bytes:
        """The module's content, decompressed: the initrd is compressed as a whole."""
        content = (self.folder / module.path).read_bytes()
        packed = SUFFIXES.get(module.path.rpartition(".ko")[2], "unknown")
        try:
            return unpack(content, packed)
        except ValueError as error:
            raise PipelineError(f"{module.path}: {error}") from None


def name_of(path: str) -> str:
    """The module's name of a path: kernel/fs/ext4/ext4.ko.xz -> ext4; - is _."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def _read_dep(folder: Path) -> list[ModuleFile]:
    modules: list[ModuleFile] = []
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        modules.append(ModuleFile(name_of(path), path, tuple(needs.split())))
    return modules
