"""Guests installed on a Xen host, listed, removed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.artifact.folder import Source, read_source, reading_artifact, require_backing
from pipeline.artifact.published import current_version
from pipeline.commands import options
from pipeline.commands.host import changing_guest, on_host, require_proven
from pipeline.console.progress import print_line
from pipeline.dom0 import install as installing
from pipeline.dom0 import remove as removing
from pipeline.dom0.configuration import is_edited
from pipeline.dom0.guest_list import print_guests
from pipeline.dom0.install import refuse_impossible, refuse_replacing
from pipeline.dom0.inventory import Installed, read_installed, require_installed
from pipeline.dom0.layout import Layout
from pipeline.dom0.toolstack import Toolstack, find_toolstack
from pipeline.errors import UsageError
from pipeline.recipe import Recipe
from pipeline.spec import Spec


@changing_guest
def install(recipe: Recipe, _specs: object, asked: options.Install) -> None:
    """Install an artifact on this host."""
    name, layout = asked.name, Layout.here()
    log = recipe.project.log(name, "install")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    toolstack = find_toolstack(log)
    before = read_installed(layout, name)
    refuse_replacing(name, before, may_replace=asked.replace)
    place = _Place(layout, before, toolstack, log)
    if isinstance(asked.source, str) and "://" in asked.source:
        record = _install_delivered(recipe, asked.source, place, asked)
    else:
        folder = _source_folder(recipe, asked)
        with reading_artifact(recipe.project, folder, name):
            source = read_source(folder, name=name, toolstack=place.program(asked))
            record = _install(source, require_proven(source, asked), place, asked)
    print_line(f"{name} is installed: {layout.config(name)}")
    for disk in record.disks:
        print_line(f"  {disk.vdev:<6} {disk.target}")
    if record.kernel:
        print_line(f"  kernel {record.kernel}")
    when = f"with the host ({layout.auto_link(name)})" if record.is_autostarted else "by hand"
    print_line(f"  starts {when}; now:  doit start name={name}")


@dataclass(frozen=True)
class _Place:
    """Where a guest is to be, and what is there of it."""

    layout: Layout
    before: Installed | None
    toolstack: Toolstack | None
    log: Path

    def program(self, asked: options.Install) -> str:
        """What will start it."""
        return self.toolstack.program if self.toolstack else asked.toolstack


def _install_delivered(
    recipe: Recipe, url: str, place: _Place, asked: options.Install
) -> Installed:
    """From a repository; its libraries are not for those who install from a folder."""
    from pipeline.commands import delivery

    project = recipe.project
    with delivery.looking_at(project, url, root=asked.root) as (repository, scratch):
        guest = delivery.fetch_guest(
            project, repository, scratch, name=asked.name, channel=asked.channel, asked=asked
        )
        source = read_source(guest.folder, name=asked.name, toolstack=place.program(asked))
        record = _install(source, guest.proof, place, asked, guest.origin)
    delivery.forget_images(project, place.layout)
    return record


def _install(
    source: Source,
    proof: str,
    place: _Place,
    asked: options.Install,
    delivery: Mapping[str, str] = installing.NOWHERE,
) -> Installed:
    require_backing(source)
    layout, before = place.layout, place.before
    plan = installing.plan_install(
        source,
        layout,
        before=before,
        autostart=asked.autostart,
        toolstack=place.program(asked),
        proof=proof,
        group=asked.lvm or "",
    )
    plan = replace(plan, delivery=delivery)
    for note in refuse_impossible(plan, layout, place.toolstack):
        print_line(f"  {note}")
    if before is not None and is_edited(layout, before):
        print_line(f"  edits of {layout.config(asked.name)} are not taken over by replace=yes")
    return installing.install(plan, layout, word="install", log=place.log)


def _source_folder(recipe: Recipe, asked: options.Install) -> Path:
    """The built artifact, the published version, or any folder."""
    if isinstance(asked.source, Path):
        return asked.source
    if asked.source is None:
        return recipe.project.artifact(asked.name)
    version = current_version(recipe.project, asked.name)
    if version is None:
        raise UsageError(
            f"{asked.name} has no published version", hint=f"doit publish name={asked.name}"
        )
    return version.folder


@changing_guest
def remove(recipe: Recipe, _specs: object, asked: options.RemoveInstalled) -> None:
    """Take a guest off this host; yes= where something would be lost."""
    name, layout = asked.name, Layout.here()
    record = require_installed(layout, name)
    if record.membership:
        appliance = record.membership.appliance
        raise UsageError(
            f"{name} is a member of {appliance}: its members go together",
            hint=f"doit remove appliance={appliance}",
        )
    for note in removing.refuse_removal(record, layout, find_toolstack(), may_lose=asked.yes):
        print_line(f"  {note}")
    for path in removing.remove_guests([record], layout):
        print_line(f"  removed {path}")
    for disk in removing.left_disks(record):
        print_line(f"  left, not ours: {disk}")
    print_line(f"{name} is removed; what it was built from is still in {recipe.project.output}")


@on_host
def list_guests(recipe: Recipe, specs: Mapping[str, Spec], asked: options.Listing) -> None:
    """What is defined, running, built from what, and out of date."""
    print_guests(recipe, specs, as_json=asked.json_form)
