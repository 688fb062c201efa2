"""Guests that are wrong on purpose: copies of sound ones, each with one fault built in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline.compression import find_compression, unpack
from pipeline.kernel.cpio import Archive, compress, read_initrd
from pipeline.kernel.image import _cut_payload
from pipeline.kernel.initrd import INIT
from pipeline.process import run
from pipeline.storage.ext import refuse_complaints

DISK_DRIVER = "xen-blkfront.ko"
# ELF note of Xen: name size 4, value size 4 or 8, type 18 = XEN_ELFNOTE_PHYS32_ENTRY
PVH_NOTES = [b"\4\0\0\0" + size + b"\x12\0\0\0Xen\0" for size in (b"\4\0\0\0", b"\x08\0\0\0")]
ANOTHER_NOTE = b"\x7e\0\0\0"


@dataclass(frozen=True)
class Faulty:
    """A copy of an artifact that may be spoilt; its configuration names the copies."""

    folder: Path
    name: str

    @property
    def configuration(self) -> Path:
        return self.folder / f"{self.name}.cfg"

    def rewrite(self, old: str, new: str) -> Self:
        text = self.configuration.read_text()
        assert old in text, f"{old!r} is not in the configuration"
        self.configuration.write_text(text.replace(old, new))
        return self

    def debugfs(self, *commands: str) -> Self:
        script = self.folder / "script"
        script.write_text("".join(f"{command}\n" for command in commands))
        output = run(["debugfs", "-w", "-f", script, self.folder / "disk.img"])
        refuse_complaints(output, "disk.img")
        return self

    def list_boot(self) -> list[str]:
        output = run(["debugfs", "-R", "ls -p /boot", self.folder / "disk.img"])
        return [line.split("/")[5] for line in output.splitlines() if line.startswith("/")]

    def without_disk_driver(self) -> Self:
        """The initrd as it was, but for the driver of Xen's disks."""
        path = self.folder / "initrd.img"
        archive = Archive()
        archive.add_console()
        dropped = 0
        for entry in read_initrd(path.read_bytes()):
            if entry.path.endswith(DISK_DRIVER):
                dropped += 1
            elif entry.path == "etc/modules":
                lines = entry.content.decode().splitlines()
                kept = [f"{line}\n" for line in lines if "blkfront" not in line]
                archive.add_file(entry.path, "".join(kept).encode())
            elif entry.mode & 0o170000 == 0o100000:
                archive.add_file(entry.path, entry.content, mode=entry.mode & 0o777)
            elif entry.mode & 0o170000 == 0o040000:
                archive.add_folder(entry.path)
        assert dropped == 1, "the initrd had no such driver"
        path.write_bytes(compress(archive.pack()))
        return self

    def without_pvh_note(self) -> Self:
        """The kernel unpacked, its PVH entry under a note that nobody knows."""
        path = self.folder / "vmlinuz"
        payload = _cut_payload(path.read_bytes())
        elf = unpack(payload[:-4], find_compression(payload))
        found = [note for note in PVH_NOTES if note in elf]
        assert len(found) == 1, "the kernel had no PVH note"
        spoilt = found[0][:8] + ANOTHER_NOTE + found[0][12:]
        path.write_bytes(elf.replace(found[0], spoilt))
        return self


def lose_root(initrd: bytes, device: str) -> bytes:
    """An initrd that looks for the root file system elsewhere, whatever root= says."""
    script = INIT.read_text()
    right = 'root=*) device="${word#root=}" ;;'
    assert right in script, "the initrd's script reads root= in another way"
    archive = Archive()
    wrong = script.replace(right, f'root=*) device="{device}" ;;')
    archive.add_file("init", wrong.encode(), mode=0o755)
    # the kernel takes archives one after another, the last file of a name counts
    return initrd + bytes(-len(initrd) % 4) + archive.pack()


def copy_artifact(artifact: Path, folder: Path) -> Faulty:
    """The files that boot, and a configuration that names the copies; the origin stays whole."""
    name = artifact.name
    folder.mkdir()
    for path in artifact.iterdir():
        if path.suffix in (".img", ".cfg") or path.name == "vmlinuz":
            run(["cp", "--sparse=always", "--reflink=auto", path, folder / path.name])
    faulty = Faulty(folder, name)
    return faulty.rewrite(str(artifact), str(folder))
