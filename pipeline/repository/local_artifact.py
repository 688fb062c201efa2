"""An artifact made where it is installed: a fetched golden image and an identity of its own.

What a build does in its guest half: host keys and machine-id are this host's, kept in
output/identity/NAME as always, so that an update leaves the guest who it was.
"""

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from pipeline import process
from pipeline.artifact.sums import write_sums
from pipeline.errors import VerificationError
from pipeline.guest.configurations import render_all
from pipeline.guest.identity import (
    identity_files,
    keep_identity,
    render_known_hosts,
    template_files,
)
from pipeline.project import Project
from pipeline.recipe import DISKS, KNOWN_HOSTS
from pipeline.repository.catalog import Manifest
from pipeline.spec import Spec
from pipeline.storage.boot_code import name_root, read_boot_code
from pipeline.storage.disks import targets_of
from pipeline.storage.ext import IdentityFile, read_bytes
from pipeline.storage.images import golden_name, refuse_too_small
from pipeline.storage.make_disks import Bench, make_disk


def make_artifact(
    project: Project,
    manifest: Manifest,
    *,
    images: Mapping[str, Path],
    files: Mapping[str, Path],
    scratch: Path,
    log: Path,
) -> Path:
    """The guest's artifact in a folder of `scratch`; `images` and `files` by their names in it.

    Nobody can log in by a root password: none travels. Raises VerificationError for a spec that
    is not understood here.
    """
    spec = _read_spec(manifest)
    golden, folder = scratch / "golden", scratch / spec.name
    _place_images(spec, images, golden)
    for made in (folder, folder / "work"):
        made.mkdir(mode=0o700)
    read = partial(read_bytes, golden / golden_name("/"))
    own, known_hosts = _identity(project, spec, read("/etc/shadow").decode("utf-8", "replace"))
    bench = Bench(
        *(spec, golden, folder, folder / "work", manifest.epoch),
        [*own, *(name_root(read, spec) if spec.is_whole else ())],
        read_boot_code(read, has_efi=spec.has_efi_loader) if spec.is_whole else None,
    )
    run = partial(process.run, log=log)
    for target in filter(lambda target: target.is_own, targets_of(spec, project)):
        make_disk(run, target, bench, [])
    shutil.rmtree(bench.work)
    for name, path in files.items():
        shutil.copyfile(path, folder / name)
    for name, text in render_all(spec, project):
        (folder / name).write_text(text)
    (folder / KNOWN_HOSTS).write_text(known_hosts)
    record = json.dumps(spec.as_json(), indent=1, sort_keys=True)
    (folder / "spec.json").write_text(f"{record}\n")
    write_sums(folder, disks=DISKS)
    return folder


def _identity(project: Project, spec: Spec, shadow: str) -> tuple[list[IdentityFile], str]:
    """The guest's own files, and its known_hosts: a template's keys are made at its first boot."""
    if spec.cloud_init:
        return list(template_files(spec, shadow=shadow)), ""
    kept = keep_identity(project.identity(spec.name), spec)
    files = identity_files(spec, kept, shadow=shadow, root_hash="")
    return list(files), render_known_hosts(spec, kept)


def _place_images(spec: Spec, images: Mapping[str, Path], golden: Path) -> None:
    """Where a build has them; PipelineError where a disk cannot hold what is in it."""
    golden.mkdir(mode=0o700)
    for name, path in images.items():
        (golden / name).symlink_to(path)
    for part in spec.parts:
        if part.has_files:
            refuse_too_small(part, golden / golden_name(part.mountpoint))


def _read_spec(manifest: Manifest) -> Spec:
    try:
        spec = Spec.model_validate(manifest.spec)
    except ValidationError as error:
        first = error.errors()[0]
        raise VerificationError(
            f"{manifest.guest} {manifest.version}: its spec is not understood here "
            f"({'.'.join(map(str, first['loc']))}: {first['msg'][:100]})",
            hint="is this pipeline older than the one that published? Take a newer one",
        ) from None
    if spec.name != manifest.guest:
        raise VerificationError(f"{manifest.guest} {manifest.version}: its spec is {spec.name}'s")
    return spec
