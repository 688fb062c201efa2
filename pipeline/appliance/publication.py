"""Published appliances: which versions of the members belong together.

output/published-appliances/NAME/20261124T193000Z-1f2e3d4c.json   a manifest
output/published-appliances/NAME/current -> 20261124T193000Z-1f2e3d4c.json
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.appliance.manifest import Manifest, read_manifest
from pipeline.artifact.channels import NIGHTLY, point_link, read_link
from pipeline.artifact.published import Version, promote, require_version
from pipeline.errors import UsageError
from pipeline.files import write_durably
from pipeline.interruption import gate
from pipeline.locks import locked
from pipeline.project import Project
from pipeline.walls.privacy import make_private_folder

_END = ".json"
SIGNED = ".dsse"


def _folder(project: Project, appliance: str) -> Path:
    return project.published.with_name("published-appliances") / appliance


@contextmanager
def _alone(project: Project, appliance: str) -> Iterator[Path]:
    root = _folder(project, appliance)
    make_private_folder(root.parent)
    make_private_folder(root)
    with locked(root.parent / ".locks" / appliance):
        yield root


def list_manifests(project: Project, appliance: str) -> list[Path]:
    """The files of all that were published, the oldest first."""
    return sorted(_folder(project, appliance).glob(f"2*{_END}"))


def current_manifest(project: Project, appliance: str) -> Manifest:
    """What was published last, or gone back to; UsageError where nothing was."""
    root = _folder(project, appliance)
    name = read_link(root, NIGHTLY)
    if not name or Path(name).name != name:
        raise UsageError(
            f"{appliance} has no published version", hint=f"doit publish appliance={appliance}"
        )
    return read_manifest(root / name)


def publish_manifest(project: Project, manifest: Manifest, signature: bytes) -> Path:
    """Make it current by one rename, then its members' versions those of their own channel."""
    with _alone(project, manifest.appliance) as root:
        content = manifest.to_json()
        known = list_manifests(project, manifest.appliance)
        path = next((path for path in known if path.read_bytes() == content), None)
        if path is None:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            path = root / f"{stamp}-{manifest.identity[:8]}{_END}"
            write_durably(path, content)
        if signature:
            write_durably(path.with_suffix(SIGNED), signature)
        _point(project, root, path, manifest)
    return path


def roll_back(project: Project, appliance: str) -> Path:
    """The one before the current one, and its members' versions; UsageError where there is none."""
    with _alone(project, appliance) as root:
        now = read_link(root, NIGHTLY)
        older = [path for path in list_manifests(project, appliance) if path.name < now]
        if not older:
            raise UsageError(
                f"{appliance} has no published version before {now or 'the first'}",
                hint="doit publish keeps as many as keep= says",
            )
        _point(project, root, older[-1], read_manifest(older[-1]))
    return older[-1]


def _point(project: Project, root: Path, path: Path, manifest: Manifest) -> None:
    versions = find_versions(project, manifest)
    point_link(root, NIGHTLY, path.name)
    for guest, version in versions.items():
        promote(project, guest, channel=NIGHTLY, wanted=version.name, unproven=True)


def find_versions(project: Project, manifest: Manifest) -> Mapping[str, Version]:
    """The versions that it names, by guest; UsageError where one is gone."""
    return {
        member.guest: require_version(project, member.guest, member.version)
        for member in manifest.members
    }


def prune_manifests(project: Project, appliance: str, *, keep: int) -> set[str]:
    """Remove the oldest but for `keep`; returns the versions that those which stay name."""
    with _alone(project, appliance) as root:
        paths = list_manifests(project, appliance)
        doomed = [path for path in paths[:-keep] if path.name != read_link(root, NIGHTLY)]
        for path in doomed:
            with gate("prune", path):
                path.with_suffix(SIGNED).unlink(missing_ok=True)
                os.unlink(path)
        kept = [read_manifest(path) for path in paths if path not in doomed]
    return {member.version for manifest in kept for member in manifest.members}
