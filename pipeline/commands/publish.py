"""Guests published: an immutable copy, with all that is said of it."""

from pathlib import Path

from pipeline.artifact import published as versions
from pipeline.artifact.channels import LINKS
from pipeline.artifact.folder import read_source, reading_artifact, require_backing
from pipeline.commands import options
from pipeline.commands.host import describe_fault, require_proven
from pipeline.console.progress import print_line
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.inventory import list_used_versions
from pipeline.dom0.layout import Layout
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.repository import metadata
from pipeline.spec import Spec
from pipeline.storage.transaction import recover_all
from pipeline.supply.keys import has_keys
from pipeline.supply.statements import describe


def publish(recipe: Recipe, spec: Spec, asked: options.Publish) -> None:
    """Publish the artifact as it was proven."""
    try:
        _publish(recipe, spec, asked)
    except OSError as error:
        raise describe_fault(error) from error


def _publish(recipe: Recipe, spec: Spec, asked: options.Publish) -> None:
    project = recipe.project
    for text in recover_all(site_of(Layout.here())):
        print_line(f"  {text}")
    if asked.rollback:
        version = versions.roll_back(project, spec.name, asked.channel)
        print_line(f"{spec.name}: {LINKS[asked.channel]} is {version.name} again")
        serve_published(project, asked.passphrase)
        return
    folder = project.artifact(spec.name)
    with reading_artifact(project, folder, spec.name):
        source = read_source(folder, name=spec.name)
        require_backing(source)
        proof = require_proven(source, asked)
        statements = describe(recipe, spec, source, passphrase=asked.passphrase)
        version = versions.publish(project, source, proof=proof, statements=statements)
    print_line(f"{spec.name} is published: {version.folder}")
    if not has_keys(project.keys):
        print_line(f"  nothing is signed: there are no keys in {project.keys}")
    if not recipe.state("config", spec).is_current:
        print_line(f"  its spec asks for something else by now: doit why name={spec.name}")
    needed = list_used_versions(Layout.here())
    for old in versions.prune(project, spec.name, keep=asked.keep, needed=needed):
        print_line(f"  removed {old.name}")
    serve_published(project, asked.passphrase)


def serve_published(project: Project, passphrase: Path | None) -> None:
    """Bring the image repository up to date, where this site has one."""
    if has_keys(project.keys, "timestamp"):
        count = metadata.refresh(project, passphrase)
        print_line(f"  {project.repository} is signed, files: {count}")
