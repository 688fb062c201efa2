"""Everything that the checks judge, read once: the artifact folder, the image, the neighbours."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifact.record import read_record
from pipeline.check.boot_files import BootFiles, read_boot_files
from pipeline.check.built_disk import WholeDisk, read_whole_disk
from pipeline.check.file_systems import FileSystem, find_places, opened_tree, read_file_system
from pipeline.check.image import ImageReader
from pipeline.check.packed_disk import find_xva_faults
from pipeline.check.tree import Tree
from pipeline.errors import CommandFailed, Finding, Level, PipelineError, VerificationError
from pipeline.guest.identity import MACHINE_ID
from pipeline.process import run
from pipeline.project import Project
from pipeline.recipe import INDIFFERENT, Recipe
from pipeline.spec import Spec
from pipeline.spec.devices import Part
from pipeline.storage.disks import Target, targets_of
from pipeline.storage.filesystems import require_mounting
from pipeline.storage.images import find_backing
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.written import read_times
from pipeline.walls.cage import caged_reader

_MOST_TEXT = 1 << 20
_SWAP_PAGE = 4096


@dataclass(frozen=True)
class Golden:
    """The image that a copy-on-write disk rests on, and its sha256 when the guest was built."""

    path: Path
    noted: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One guest as it was built, and what it should be.

    `texts` are the artifact's text files by name, `sizes` its files and its volumes in bytes (a
    disk's is the size that the guest sees). `others` are the file systems that are not the root's.
    `swap_page` is the first page of its swap.
    `machine_ids` are those of the other guests. `keys` are those of the spec that the artifact
    depends on. `written` names the disks that changed since they were built. `unread` says what of
    the image could not be read. `golden` is what a copy-on-write disk rests on. `secret` is root's
    password where the builder can read it. `whole` is what a whole disk has around its root, `xva`
    what is wrong with the file that holds it for importers.
    """

    spec: Spec
    folder: Path
    project: Project = Project(Path("/srv"), Path("/srv"), Path("/srv"))
    tree: Tree
    file_system: FileSystem
    others: Mapping[Part, FileSystem] = field(default_factory=dict)
    boot: BootFiles = BootFiles()
    texts: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    swap_page: bytes = b""
    machine_ids: Mapping[str, str] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()
    golden: Golden | None = None
    whole: WholeDisk | None = None
    xva: tuple[str, ...] = ()
    secret: bytes = field(default=b"", repr=False)

    @property
    def targets(self) -> tuple[Target, ...]:
        """Where the guest's disks are."""
        return targets_of(self.spec, self.project)

    def record(self, name: str) -> Mapping[str, Any]:
        """A JSON file of the artifact; empty when it is not there or cannot be read."""
        try:
            found = json.loads(self.texts.get(name, ""))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def compare(code: str, subject: str, *, expected: str, seen: str, hint: str = "") -> Finding:
    """It holds when what was seen is what was expected."""
    level: Level = "ok" if seen == expected else "error"
    return Finding(level, subject, "", hint, expected, seen, code)


def judge(code: str, subject: str, faults: Sequence[str], *, ok: str, hint: str = "") -> Finding:
    """It holds, showing `ok`, when there are no faults; else it shows them all."""
    level: Level = "error" if faults else "ok"
    return Finding(level, subject, "", hint, ok, "; ".join(faults) or ok, code)


def require_artifact(project: Project, spec: Spec) -> Path:
    """The disk of a finished guest that is not running.

    Raises PipelineError when there is no artifact, InUseError when somebody has its disk open.
    """
    folder = project.artifact(spec.name)
    disk = targets_of(spec, project)[0].path
    if not (folder / f"{spec.name}.cfg").is_file() or not disk.exists():
        raise PipelineError(
            f"{spec.name}: there is no finished artifact in {folder}",
            hint=f"build it first: doit build name={spec.name}",
        )
    if not is_disk(disk):
        raise VerificationError(
            f"{disk} is neither a file nor a block device",
            hint=f"remove it and build the guest again: doit build name={spec.name}",
        )
    require_mounting(part.fs for part in spec.parts)
    for target in targets_of(spec, project):
        if target.part.has_files:
            refuse_if_used(target.path)
    return disk


def read_facts(recipe: Recipe, spec: Spec, disk: Path, work: Path) -> Facts:
    """Read a finished guest; `work` is a private folder for a copy of its disk.

    Raises VerificationError when the disk holds no file system of a guest.
    """
    project, folder = recipe.project, recipe.project.artifact(spec.name)
    targets = targets_of(spec, project)
    raws, golden = _raw_disks(spec, folder, targets, work)
    raw = raws[targets[0].part.name]
    places = find_places(spec, raws, work)
    whole = read_whole_disk(raw, spec, work) if spec.is_whole else None
    zone = f"/usr/share/zoneinfo/{spec.timezone}".rpartition("/")[0]
    systems = {part: read_file_system(place, part.fs) for part, place in places.items()}
    with opened_tree(places, work, systems) as image:
        reader = ImageReader(image)
        tree = reader.read_tree([zone])
        boot = read_boot_files(spec, folder, tree, reader)
    sizes = _sizes(folder, targets, raws)
    swap_page = b"".join(_first_page(one.path) for one in targets if one.part.is_swap)
    if whole and whole.swap:
        sizes["swap.img"] = whole.swap.size
        swap_page = _first_page(raw, whole.swap.start)
    written = _written_disks(project, folder, spec.name)
    packed = spec.format == "xva"
    return Facts(
        spec=spec,
        project=project,
        folder=folder,
        tree=tree,
        file_system=next(system for part, system in systems.items() if part.is_root),
        others={part: system for part, system in systems.items() if not part.is_root},
        boot=boot,
        texts=_read_texts(folder),
        sizes=sizes,
        swap_page=swap_page,
        machine_ids=_other_machine_ids(project, spec.name),
        keys=frozenset(recipe.keys_of("config")) - INDIFFERENT,
        written=written,
        unread=tuple(reader.faults),
        golden=golden,
        whole=whole,
        xva=find_xva_faults(folder, spec.name, None if written else raw, work) if packed else (),
        secret=_read_secret(project, spec),
    )


def _raw_disks(
    spec: Spec, folder: Path, targets: Sequence[Target], work: Path
) -> tuple[dict[str, Path], Golden | None]:
    """The disks with files in them as raw images, by name; what the root's rests on."""
    raws, goldens = {}, {}
    for target in targets:
        name = target.part.name
        if target.part.has_files:
            goldens[name] = _find_golden(target.path, folder, spec)
            raws[name] = raw_image(target.path, work / f"{name}.raw", spec, goldens[name])
    return raws, goldens[targets[0].part.name]


def _sizes(folder: Path, targets: Sequence[Target], raws: Mapping[str, Path]) -> dict[str, int]:
    files = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    disks = {
        target.path.name: _size_of(raws.get(target.part.name, target.path)) for target in targets
    }
    return files | disks


def _find_golden(disk: Path, folder: Path, spec: Spec) -> Golden | None:
    """What a qcow2 overlay rests on, as its path and the digest noted when it was built."""
    if spec.clone != "cow" or spec.format != "qcow2":
        return None
    named = find_backing(run, disk)
    if not named:  # doit flatten made it stand on its own
        return None
    backing = disk.parent / named
    if not is_disk(backing):
        raise VerificationError(
            f"{backing}: the golden image of {spec.name} is gone, the guest cannot start",
            hint=f"build it again: doit build name={spec.name} replace=yes",
        )
    image = read_record(folder).get("image")
    noted = image.files.get(backing.name, {}) if image else {}
    return Golden(backing, str(noted.get("sha256", "")))


def raw_image(disk: Path, raw: Path, spec: Spec, golden: Golden | None = None) -> Path:
    """A disk of the guest as a raw image: itself, or a copy, `raw`."""
    if spec.disk_format == "raw":
        return disk
    backing = [golden.path] if golden else []
    kind = {"vhd": "vpc"}.get(spec.disk_format, spec.disk_format)
    try:
        convert = ["qemu-img", "convert", "-f", kind, "-O", "raw", disk, raw]
        run(caged_reader(convert, readable=[disk, *backing], writable=[raw.parent]))
    except CommandFailed as error:
        raise VerificationError(
            f"{disk} is no {spec.format} disk that can be read", details=error.details
        ) from error
    return raw


def is_disk(path: Path) -> bool:
    """Whether something is a file or a block device, and no pipe, folder or terminal."""
    return path.is_file() or path.is_block_device()


def _read_texts(folder: Path) -> dict[str, str]:
    texts = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.stat().st_size <= _MOST_TEXT:
            content = path.read_bytes()
            if b"\0" not in content:
                texts[path.name] = content.decode("utf-8", "surrogateescape")
    return texts


def _size_of(path: Path) -> int:
    """Bytes of a file or a block device, 0 for what is none of these."""
    if not is_disk(path):
        return 0
    with open(path, "rb") as stream:
        return stream.seek(0, os.SEEK_END)


def _first_page(swap: Path, start: int = 0) -> bytes:
    if not is_disk(swap):
        return b""
    with open(swap, "rb") as stream:
        stream.seek(start)
        return stream.read(_SWAP_PAGE)


def _other_machine_ids(project: Project, name: str) -> dict[str, str]:
    """Guest to machine id, of every guest but this one."""
    found = {}
    for path in sorted(project.identity(name).parent.glob(f"*/{MACHINE_ID}")):
        if path.parent.name != name and path.is_file():
            found[path.parent.name] = path.read_text(errors="surrogateescape").strip()
    return found


def _written_disks(project: Project, folder: Path, name: str) -> frozenset[str]:
    """Disks whose time differs from the one noted when they were built: their guest has run."""
    return frozenset(
        disk
        for disk, mtime_ns in read_times(project.volume(name)).items()
        if (folder / disk).is_file() and (folder / disk).stat().st_mtime_ns != mtime_ns
    )


def _read_secret(project: Project, spec: Spec) -> bytes:
    path = project.guests / spec.root_password_file
    if spec.root_password_file in ("", "-") or not path.is_file():
        return b""
    return path.read_bytes().strip()
