"""What is in a guest's disk: every file, the packages, and which package a file belongs to.

Read as `doit check` reads it, without a mount. Whoever was root in the guest chose every byte, so
all has a bound, and what cannot be read is an error with a reason that the report shows.
"""

import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.check.facts import raw_image
from pipeline.check.file_systems import find_places, opened_tree
from pipeline.errors import PipelineError
from pipeline.mirror.stanzas import read_stanzas
from pipeline.proof.readiness import read_built_spec
from pipeline.storage.disks import file_name
from pipeline.storage.ext import ROOT, DamagedImage, ExtImage, Inode
from pipeline.walls.package_names import require_package, require_version

MOST_FILES, MOST_DEPTH, MOST_LETTERS = 200_000, 60, 1000
_DATABASE = "/var/lib/dpkg/"
_STATUS, _LISTS = f"{_DATABASE}status", f"{_DATABASE}info"
_STATUS_BYTES, _LIST_BYTES, _ALL_LISTS = 16 << 20, 8 << 20, 64 << 20
# what belongs to no package of dpkg's lists
KERNEL, RECORDS = "kernel modules", "dpkg's records"
_MODULES = re.compile(r"/(?:usr/)?lib/modules/[^/]+/")
_SOURCE = re.compile(r"(\S+)(?: \((\S+)\))?")


@dataclass(frozen=True)
class Installed:
    """An installed package; `source` and `source_version` are those that it was built from."""

    name: str
    version: str
    source: str
    source_version: str


@dataclass(frozen=True)
class Inventory:
    """One disk: path to inode, name to package, path to the package that it belongs to."""

    files: Mapping[str, Inode]
    packages: Mapping[str, Installed]
    owners: Mapping[str, str] = field(default_factory=dict)

    def owner_of(self, path: str) -> str:
        """A file's package, KERNEL or RECORDS, "" for none of these."""
        if path in self.owners:
            return self.owners[path]
        return KERNEL if _MODULES.match(path) else RECORDS if path.startswith(_DATABASE) else ""

    def size_by_owner(self) -> dict[str, int]:
        """Bytes of regular files by package, "" for files of none; a hard link counts once."""
        sizes: dict[str, int] = {}
        seen = set()
        for path, inode in self.files.items():
            if inode.kind == "file" and inode.number not in seen:
                seen.add(inode.number)
                owner = self.owner_of(path)
                sizes[owner] = sizes.get(owner, 0) + inode.size
        return sizes


@contextmanager
def opened_disk(folder: Path, guest: str, work: Path) -> Iterator[ExtImage]:
    """The root disk of an artifact or a published version; PipelineError where it cannot be read.

    `work` is an empty folder for a raw copy of a disk that is not raw.
    """
    try:
        spec = read_built_spec(folder, guest)
    except ValueError as error:  # of a version that an older or newer pipeline made
        raise PipelineError("its spec.json is none that is known here") from error
    if spec.clone == "cow":
        raise PipelineError("the disk is not in its folder")
    raws = {}
    for part in spec.disks:
        if part.has_files:
            file = folder / file_name(part, spec.disk_format)
            if not file.exists() or not stat.S_ISREG(file.lstat().st_mode):
                raise PipelineError("the disk is not in its folder")
            raws[part.name] = raw_image(file, work / f"{part.name}.raw", spec)
    with opened_tree(find_places(spec, raws, work), work) as image:
        yield image


def read_inventory(image: ExtImage) -> Inventory:
    """All of it; raises DamagedImage for what no file system of a guest is."""
    files = dict(_walk(image))
    packages = _read_packages(image)
    return Inventory(files, packages, dict(_read_owners(image, files, packages)))


def _walk(image: ExtImage) -> Iterator[tuple[str, Inode]]:
    """Every path and its inode, each folder once."""
    waiting, seen, count = [("", ROOT, 0)], {ROOT}, 0
    while waiting:
        top, number, depth = waiting.pop()
        for name, inside in sorted(image.entries(number).items()):
            count += 1
            path = f"{top}/{name}"
            if count > MOST_FILES or depth > MOST_DEPTH or len(path) > MOST_LETTERS:
                raise DamagedImage("more or deeper files than a guest has")
            inode = image.inode(inside)
            yield path, inode
            if inode.kind == "folder" and inside not in seen:
                seen.add(inside)
                waiting.append((path, inside, depth + 1))


def _read_packages(image: ExtImage) -> dict[str, Installed]:
    inode = image.find(_STATUS)
    if inode is None or inode.kind != "file":
        return {}
    text = image.read(inode, limit=_STATUS_BYTES).decode("utf-8", "replace")
    try:
        stanzas = [stanza for stanza in read_stanzas(text) if stanza.get("package")]
        installed = [s for s in stanzas if s.get("status", "").endswith(" installed")]
        return {package.name: package for package in map(make_package, installed)}
    except (PipelineError, ValueError) as error:
        raise DamagedImage(f"{_STATUS}: {error}") from error


def make_package(fields: Mapping[str, str]) -> Installed:
    """A stanza of dpkg's status or of an index; PipelineError for names that are none."""
    name, version = fields.get("package", ""), fields.get("version", "")
    require_package(name, where="a package")
    require_version(version, where=name)
    match = _SOURCE.fullmatch(fields.get("source", ""))
    source, source_version = (match[1], match[2] or version) if match else (name, version)
    require_package(source, where=f"{name}: Source")
    require_version(source_version, where=f"{name}: Source")
    return Installed(name, version, source, re.sub(r"\+b\d+$", "", source_version))


def _read_owners(
    image: ExtImage, files: Mapping[str, Inode], packages: Mapping[str, Installed]
) -> Iterator[tuple[str, str]]:
    """Each path of dpkg's lists and its package, links of the root folder (/lib) resolved."""
    links = {
        path: f"/{image.read_link(inode).strip('/')}"
        for path, inode in files.items()
        if path.count("/") == 1 and inode.kind == "link"
    }
    room = _ALL_LISTS
    for name in sorted(path for path in files if path.startswith(f"{_LISTS}/")):
        package = name.removeprefix(f"{_LISTS}/").removesuffix(".list").partition(":")[0]
        inode = files[name]
        if not name.endswith(".list") or package not in packages or inode.kind != "file":
            continue
        room -= inode.size
        if room < 0:
            raise DamagedImage("dpkg's lists of files are too long")
        content = image.read(inode, limit=_LIST_BYTES).decode("utf-8", "surrogateescape")
        for path in content.split("\n"):
            head, slash, rest = path[1:].partition("/")
            there = f"{links[f'/{head}']}{slash}{rest}" if f"/{head}" in links else path
            if there in files:
                yield there, package
