"""Appliances published: a version of each member, and which of them belong together."""

from contextlib import ExitStack
from pathlib import Path

from pipeline.appliance import publication
from pipeline.appliance.manifest import Manifest, make_manifest
from pipeline.appliance.members import Appliance
from pipeline.artifact import published as versions
from pipeline.artifact.folder import read_source, reading_artifact, require_backing
from pipeline.commands import options
from pipeline.commands.host import describe_fault, require_proven
from pipeline.commands.publish import serve_published
from pipeline.console.progress import print_line
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.inventory import list_used_versions
from pipeline.dom0.layout import Layout
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.storage.transaction import recover_all
from pipeline.supply.statements import describe, sign_manifest


def publish(recipe: Recipe, appliance: Appliance, asked: options.Publish) -> None:
    """Publish all members, and which of their versions belong together."""
    project, name = recipe.project, appliance.name
    try:
        for text in recover_all(site_of(Layout.here())):
            print_line(f"  {text}")
        if asked.rollback:
            print_line(f"{name}: current is {publication.roll_back(project, name).stem} again")
        else:
            path = _publish_members(recipe, appliance, asked)
            print_line(f"{name} is published: {path}")
        serve_published(project, asked.passphrase)
    except OSError as error:
        raise describe_fault(error) from error


def _publish_members(recipe: Recipe, appliance: Appliance, asked: options.Publish) -> Path:
    """Every member is read and judged before the first is copied; none is current before all."""
    project, manifest = recipe.project, make_manifest(appliance)
    specs = {spec.name: spec for spec in appliance.members.values()}
    made = {}
    with ExitStack() as stack:
        sources = {}
        for guest in manifest.guests:
            folder = project.artifact(guest)
            stack.enter_context(reading_artifact(project, folder, guest))
            sources[guest] = read_source(folder, name=guest)
            require_backing(sources[guest])
        proofs = {
            guest: require_proven(source, asked, appliance=asked.appliance)
            for guest, source in sources.items()
        }
        for guest, source in sources.items():
            said = describe(recipe, specs[guest], source, passphrase=asked.passphrase)
            made[guest] = versions.publish(
                project, source, proof=proofs[guest], statements=said, is_current=False
            )
            print_line(f"  {guest}: {made[guest].folder}")
    manifest = manifest.with_versions({guest: version.name for guest, version in made.items()})
    parts = [version.folder for version in made.values()]
    signature = sign_manifest(project, manifest.as_json(), parts, asked.passphrase)
    path = publication.publish_manifest(project, manifest, signature)
    _prune(project, manifest, keep=asked.keep)
    return path


def _prune(project: Project, manifest: Manifest, *, keep: int) -> None:
    needed = list_used_versions(Layout.here())
    named = publication.prune_manifests(project, manifest.appliance, keep=keep)
    for guest in manifest.guests:
        known = versions.list_versions(project, guest)
        kept = {version.fingerprint for version in known if version.name in named}
        for old in versions.prune(project, guest, keep=keep, needed={*needed, *kept}):
            print_line(f"  removed {guest} {old.name}")
