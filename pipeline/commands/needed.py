"""What nobody may remove from store and caches, and who says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.artifact.record import read_record
from pipeline.dom0.inventory import list_installed
from pipeline.dom0.layout import Layout
from pipeline.lockfile import kept_snapshot, read_lock
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.store.store import Store


def list_needed(recipe: Recipe, specs: Mapping[str, Spec]) -> dict[Path, str]:
    """Folders of the store and files of the caches, with who needs each."""
    project = recipe.project
    return {
        **dict.fromkeys(_used_by_specs(recipe, specs), "a spec uses it"),
        **dict(needed_by_guests(project)),
        **dict(_needed_by_locks(project)),
        **dict(_needed_by_installed(project)),
    }


def _used_by_specs(recipe: Recipe, specs: Mapping[str, Spec]) -> Iterator[Path]:
    for spec in specs.values():
        for name, stage in recipe.stages.items():
            if stage.is_shared:
                yield recipe.state(name, spec).folder


def needed_by_guests(project: Project) -> Iterator[tuple[Path, str]]:
    """What a built or published guest was made from."""
    for artifact in sorted(project.artifacts.glob("*")):
        for stage, buildinfo in read_record(artifact).items():
            yield Store.of(project).location(stage, buildinfo.fingerprint), f"guest {artifact.name}"
    # a copy-on-write disk that was published rests on its golden image as long as it is kept
    for version in sorted(project.published.glob("*/2*")):
        for stage, buildinfo in read_record(version).items():
            needed = Store.of(project).location(stage, buildinfo.fingerprint)
            yield needed, f"published {version.parent.name}/{version.name}"


def _needed_by_installed(project: Project) -> Iterator[tuple[Path, str]]:
    """A copy-on-write disk that was installed rests on its golden image in the store."""
    for name, record in list_installed(Layout.here()).items():
        if any(disk.format == "qcow2" for disk in record.disks) and "image" in record.origin:
            yield Store.of(project).location("image", record.origin["image"]), f"installed {name}"


def _needed_by_locks(project: Project) -> Iterator[tuple[Path, str]]:
    for path in sorted(project.guests.glob("*.lock.json")):
        guest = path.name.removesuffix(".lock.json")
        lock = read_lock(project, guest)
        yield kept_snapshot(project, lock.identity), f"lock of {guest}"
        for package in lock.packages:
            yield project.cache.debs / package.sha256, f"lock of {guest}"
