"""Everything that the checks judge, read once: the artifact folder, the image, the neighbours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.check.boot_reading import BootFiles, read_boot_files
from pipeline.check.image import FileSystem, ImageReader, read_file_system
from pipeline.check.tree import Tree
from pipeline.command import run
from pipeline.errors import PipelineError
from pipeline.guest.identity import MACHINE_ID
from pipeline.host.in_use import refuse_if_used
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.stages.names import disk_name

SWAP = "swap.img"
WRITTEN = "written.json"
_MOST_TEXT = 1 << 20
_SWAP_PAGE = 4096


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One guest as it was built, and what it should be.

    `texts` are the artifact's text files by name, `sizes` its files in bytes (a disk's is the size
    that the guest sees). `swap_page` is the first page of the swap image. `machine_ids` are those
    of the other guests. `keys` are those of the spec that the artifact depends on. `written` names
    the disks that changed since they were built. `secret` is root's password where the builder can
    read it.
    """

    spec: Spec
    folder: Path
    tree: Tree
    file_system: FileSystem
    boot: BootFiles = BootFiles()
    texts: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    swap_page: bytes = b""
    machine_ids: Mapping[str, str] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()
    secret: bytes = field(default=b"", repr=False)

    def record(self, name: str) -> Mapping[str, Any]:
        """A JSON file of the artifact; empty when it is not there or cannot be read."""
        try:
            found = json.loads(self.texts.get(name, ""))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def require_artifact(project: Project, spec: Spec) -> Path:
    """The disk of a finished guest that is not running.

    Raises PipelineError when there is no artifact, InUseError when somebody has its disk open.
    """
    folder = project.artifact(spec.name)
    disk = folder / disk_name(spec)
    if not (folder / f"{spec.name}.cfg").is_file() or not disk.is_file():
        raise PipelineError(
            f"{spec.name}: there is no finished artifact in {folder}",
            hint=f"build it first: doit build name={spec.name}",
        )
    if spec.fs not in ("ext2", "ext3", "ext4"):
        raise PipelineError(
            f"fs={spec.fs}: check reads ext2, ext3 and ext4 only", hint="prove this guest by a boot"
        )
    refuse_if_used(disk)
    return disk


def read_facts(recipe: Recipe, spec: Spec, disk: Path, work: Path) -> Facts:
    """Read a finished guest; `work` is a private folder for what is taken out of its disk.

    Raises VerificationError when the disk holds no file system of a guest.
    """
    project, folder = recipe.project, disk.parent
    image = _raw_image(disk, work, spec)
    reader = ImageReader(image, work / "taken")
    zone = f"/usr/share/zoneinfo/{spec.timezone}".rpartition("/")[0]
    tree = reader.read_tree([zone])
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    sizes[disk.name] = image.stat().st_size
    return Facts(
        spec=spec,
        folder=folder,
        tree=tree,
        file_system=read_file_system(image),
        boot=read_boot_files(spec, folder, tree, reader),
        texts=_read_texts(folder),
        sizes=sizes,
        swap_page=_first_page(folder / SWAP),
        machine_ids=_other_machine_ids(project, spec.name),
        keys=frozenset(recipe.keys_of("config")),
        written=_written_disks(project, folder, spec.name),
        secret=_read_secret(project, spec),
    )


def _raw_image(disk: Path, work: Path, spec: Spec) -> Path:
    if spec.format == "raw":
        return disk
    raw = work / "disk.raw"
    run(["qemu-img", "convert", "-f", spec.format, "-O", "raw", disk, raw])
    return raw


def _read_texts(folder: Path) -> dict[str, str]:
    texts = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.stat().st_size <= _MOST_TEXT:
            content = path.read_bytes()
            if b"\0" not in content:
                texts[path.name] = content.decode("utf-8", "surrogateescape")
    return texts


def _first_page(swap: Path) -> bytes:
    if not swap.is_file():
        return b""
    with open(swap, "rb") as stream:
        return stream.read(_SWAP_PAGE)


def _other_machine_ids(project: Project, name: str) -> dict[str, str]:
    """Guest to machine id, of every guest but this one."""
    found = {}
    for path in sorted(project.identity(name).parent.glob(f"*/{MACHINE_ID}")):
        if path.parent.name != name:
            found[path.parent.name] = path.read_text().strip()
    return found


def _written_disks(project: Project, folder: Path, name: str) -> frozenset[str]:
    """Disks whose time differs from the one noted when they were built: their guest has run."""
    noted = project.volume(name) / WRITTEN
    times = json.loads(noted.read_text()) if noted.is_file() else {}
    return frozenset(
        disk
        for disk, mtime_ns in times.items()
        if (folder / disk).is_file() and (folder / disk).stat().st_mtime_ns != mtime_ns
    )


def _read_secret(project: Project, spec: Spec) -> bytes:
    path = project.guests / spec.root_password_file
    if spec.root_password_file in ("", "-") or not path.is_file():
        return b""
    return path.read_bytes().strip()
