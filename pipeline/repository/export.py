"""What the repository serves of the published versions: golden images, kernels, descriptions.

Never a disk with an identity in it: whoever installs makes that. A version's folder stays private.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tuf.api.metadata import TargetFile

from pipeline.artifact.block_stream import read_stream, write_stream
from pipeline.artifact.folder import read_source
from pipeline.artifact.kernel_folder import PARTS
from pipeline.artifact.published import Version, channels, list_versions
from pipeline.artifact.record import read_record
from pipeline.artifact.sums import measure_file
from pipeline.console.progress import print_line
from pipeline.errors import PipelineError, SpecError
from pipeline.files import digest_file, read_bytes, sync_file, sync_folder
from pipeline.interruption import gate
from pipeline.locks import locked
from pipeline.project import Project
from pipeline.repository import catalog
from pipeline.repository.catalog import GuestEntry, Image, Index, Manifest, VersionEntry
from pipeline.scratch import scratch_folder
from pipeline.spec import SECRET_KEYS, Spec, read_authorized_keys
from pipeline.spec.domain import FIRMWARE_FILE
from pipeline.storage.filesystems import MOUNTED
from pipeline.store.store import Store

KEPT_DELTAS = 3  # from so many earlier images of a guest
# of the host that builds: the one that installs has its own
_OF_HOST = ("lvm", "lvm_thin", "image_dev", "swap_dev", "clone")
_SECRET_PLACES = ("root_password_file",)
_SHARED = ("mirror", "base", "kernel", "rootfs", "image")
_STARTS = (*PARTS, FIRMWARE_FILE)
TEXTS = ("manifest", "sbom.cdx.json", "sbom.spdx.json")
_MOST_FILE = 512 << 20
_EMPTY: tuple[object, ...] = ("", None, [])


class NotServed(PipelineError):
    """A version that cannot be served, and why."""


class Tree:
    """The served targets; those of `known`, the last signed state, are not read again."""

    def __init__(self, root: Path, known: Mapping[str, TargetFile]) -> None:
        self.root = root
        self._known = known
        self.served: dict[str, TargetFile] = {}

    def place(self, target: TargetFile) -> Path:
        """Its file: what is served carries its digest in its name."""
        return self.root / target.get_prefixed_paths()[0]

    def keep(self, path: str) -> TargetFile | None:
        """What was served at a path, to be served again; None where it is not there whole."""
        target = self.served.get(path) or self._known.get(path)
        if target is None:
            return None
        place = self.place(target)
        if not place.is_file() or place.is_symlink() or place.stat().st_size != target.length:
            return None
        self.served[path] = target
        return target

    def read(self, path: str) -> bytes | None:
        """The content of a small target that is kept."""
        target = self.keep(path)
        return read_bytes(self.place(target), limit=_MOST_FILE) if target else None

    def write(self, path: str, content: bytes, scratch: Path) -> None:
        """Serve a small target of this content."""
        if self.read(path) != content:
            self._make(path, lambda made: made.write_bytes(content), scratch)

    def add(self, path: str, write: Callable[[Path], object], scratch: Path) -> TargetFile:
        """Serve what `write` makes; kept where it is there already."""
        if kept := self.keep(path):
            return kept
        return self._make(path, write, scratch)

    def _make(self, path: str, write: Callable[[Path], object], scratch: Path) -> TargetFile:
        made = scratch / "target"
        write(made)
        made.chmod(0o644)
        target = TargetFile.from_file(path, str(made), ["sha256"])
        place = self.place(target)
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        sync_file(made)
        with gate("serve", place):
            os.replace(made, place)
        sync_folder(place.parent)
        self.served[path] = target
        return target


def export(project: Project, tree: Tree) -> None:
    """Serve every published version that can be; says which cannot."""
    guests: dict[str, GuestEntry] = {}
    with scratch_folder(project.scratch, "repository", mode=0o700) as scratch:
        for folder in sorted(project.published.glob("[!.]*")):
            if folder.is_dir() and not folder.is_symlink():
                with locked(project.published / ".locks" / folder.name, is_shared=True):
                    entry = _export_guest(project, tree, folder.name, scratch)
                if entry.versions:
                    guests[folder.name] = entry
        content = Index(guests=guests).to_bytes()
        tree.write(catalog.INDEX, content, scratch)


def _export_guest(project: Project, tree: Tree, guest: str, scratch: Path) -> GuestEntry:
    served: dict[str, Manifest] = {}
    for version in list_versions(project, guest):
        try:
            manifest = _export_version(project, tree, guest, version, [*served.values()], scratch)
        except PipelineError as error:
            print_line(f"  {guest} {version.name} is not served: {error.brief}")
            continue
        served[version.name] = manifest
    entries = {
        name: VersionEntry(
            proof=manifest.proof, suite=str(manifest.spec["suite"]), packed=manifest.packed
        )
        for name, manifest in served.items()
    }
    leads: dict[str, str] = {
        channel: version.name
        for channel, version in channels(project, guest).items()
        if version.name in served
    }
    return GuestEntry(channels=leads, versions=entries)


def _export_version(
    project: Project,
    tree: Tree,
    guest: str,
    version: Version,
    earlier: list[Manifest],
    scratch: Path,
) -> Manifest:
    if version.note:
        raise NotServed(version.note)
    path = catalog.manifest_path(guest, version.name)
    texts = _serve_texts(tree, version.folder, scratch)
    last = _keep_last(tree, path)
    if last is None:
        last = _serve_golden(project, tree, guest, version, earlier, scratch)
    files = {**{name: last.files[name] for name in _STARTS if name in last.files}, **texts}
    manifest = last.model_copy(update={"proof": version.proof, "files": files})
    tree.write(path, manifest.to_bytes(), scratch)
    return manifest


def _keep_last(tree: Tree, path: str) -> Manifest | None:
    """What was served of a version, if all of it is there."""
    content = tree.read(path)
    if content is None:
        return None
    manifest = catalog.read(Manifest, content, source=path)
    paths = [catalog.file_path(digest) for digest in manifest.files.values()]
    for image in manifest.images.values():
        paths.append(catalog.image_path(image.digest))
        paths += [catalog.delta_path(image.digest, older) for older in image.deltas]
    return manifest if all(tree.keep(each) for each in paths) else None


def _serve_texts(tree: Tree, folder: Path, scratch: Path) -> dict[str, str]:
    """What describes a version: name to digest."""
    return {
        name: _serve_file(tree, folder / name, scratch)
        for name in TEXTS
        if (folder / name).is_file() and not (folder / name).is_symlink()
    }


def _serve_file(tree: Tree, path: Path, scratch: Path) -> str:
    digest = f"sha256:{digest_file(path)}"
    content = read_bytes(path, limit=_MOST_FILE)
    tree.add(catalog.file_path(digest), lambda made: made.write_bytes(content), scratch)
    return digest


def _serve_golden(
    project: Project,
    tree: Tree,
    guest: str,
    version: Version,
    earlier: list[Manifest],
    scratch: Path,
) -> Manifest:
    """Serve the golden images that a version was made from, and its kernel."""
    source = read_source(version.folder, name=guest)
    spec = portable_spec(source.spec)
    made_from = {name: made.fingerprint for name, made in read_record(version.folder).items()}
    store = Store.of(project)
    fingerprint = made_from.get("image", "")
    built = store.read("image", fingerprint) if fingerprint else None
    if built is None or store.find_damage("image", fingerprint):
        raise NotServed(
            "its golden image is not in the store any more: it was built or published elsewhere, "
            "or doit gc removed it"
        )
    with store.reading("image", fingerprint):
        folder = store.location("image", fingerprint)
        images = {
            name: _serve_image(tree, folder / name, name, earlier, scratch) for name in built.files
        }
    kernel = [name for name in _STARTS if (version.folder / name).is_file()]
    packed = [tree.served[catalog.image_path(image.digest)].length for image in images.values()]
    packed += [(version.folder / name).stat().st_size for name in kernel]
    return Manifest(
        guest=guest,
        version=version.name,
        proof=version.proof,
        epoch=built.built_at,
        spec=spec,
        origin={stage: made_from[stage] for stage in _SHARED if stage in made_from},
        images=images,
        files={name: _serve_file(tree, version.folder / name, scratch) for name in kernel},
        packed=sum(packed),
    )


def _without_empty(item: Any) -> Any:
    """A table without what says nothing; anything else as it is."""
    if not isinstance(item, Mapping):
        return item
    return {key: value for key, value in item.items() if value not in _EMPTY}


def portable_spec(values: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as another host needs it: no secret, nothing of the host that built.

    Raises NotServed where that is not enough to make the guest from.
    """
    kept = {
        key: [_without_empty(item) for item in value] if isinstance(value, list) else value
        for key, value in _without_empty(values).items()
        if key not in (*SECRET_KEYS, *_OF_HOST, *_SECRET_PLACES)
    }
    try:
        if keys := kept.pop("authorized_keys", []):
            lines = read_authorized_keys(keys, str(values["suite"]), source="its authorized_keys")
            kept["authorized_keys"] = list(lines)
        spec = Spec.model_validate(kept)
    except (ValidationError, SpecError) as error:
        raise NotServed(f"its spec cannot be read again ({str(error).splitlines()[0]})") from None
    if any(part.fs in MOUNTED for part in spec.parts):
        raise NotServed("guests with xfs or btrfs cannot be made out of its image")
    if spec.replicated:
        raise NotServed("the nodes of a replicated disk share a secret, which stays where it is")
    if spec.has_seed:
        raise NotServed("what its seed tells cloud-init stays where it is built")
    return kept


def _serve_image(
    tree: Tree, image: Path, name: str, earlier: list[Manifest], scratch: Path
) -> Image:
    digest = measure_file(image)
    whole = tree.add(catalog.image_path(digest), lambda made: write_stream(image, made), scratch)
    older: dict[str, Image] = {}
    for manifest in reversed(earlier):
        known = manifest.images.get(name)
        if known and known.digest != digest and len(older) < KEPT_DELTAS:
            older.setdefault(known.digest, known)
    deltas = {}
    for known in older.values():
        delta = _serve_delta(tree, image, digest, known, scratch)
        if delta.length < whole.length:
            deltas[known.digest] = delta.length
    return Image(size=image.stat().st_size, digest=digest, deltas=deltas)


def _serve_delta(tree: Tree, image: Path, digest: str, older: Image, scratch: Path) -> TargetFile:
    def write(made: Path) -> None:
        packed = tree.keep(catalog.image_path(older.digest))
        assert packed is not None, older.digest
        unpacked = scratch / "older.img"
        read_stream(tree.place(packed), unpacked, size=older.size)
        write_stream(image, made, older=unpacked)
        unpacked.unlink()

    return tree.add(catalog.delta_path(digest, older.digest), write, scratch)
