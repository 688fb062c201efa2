"""Appliances installed on a Xen host, started, shut down, removed: all members or none."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from pipeline import process
from pipeline.appliance import life, publication
from pipeline.appliance.manifest import Manifest, make_manifest
from pipeline.appliance.members import load_appliance
from pipeline.appliance.private_bridges import require_bridges
from pipeline.appliance.shared_places import join_shared
from pipeline.artifact.folder import Source, read_source, reading_artifact, require_backing
from pipeline.commands import options
from pipeline.commands.host import changing_guests, on_host, require_proven
from pipeline.commands.ssh import ssh_words
from pipeline.console.progress import print_line
from pipeline.dom0 import remove as removing
from pipeline.dom0.install import (
    Plan,
    install_together,
    plan_install,
    refuse_full,
    refuse_impossible,
    refuse_replacing,
)
from pipeline.dom0.inventory import list_members, read_installed
from pipeline.dom0.layout import Layout
from pipeline.dom0.power import open_host
from pipeline.dom0.toolstack import Toolstack, find_toolstack
from pipeline.errors import InUseError, UsageError
from pipeline.project import Project
from pipeline.recipe import Recipe

_UNATTENDED = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=5")


def install(recipe: Recipe, _specs: object, asked: options.Install) -> None:
    """Install all members on this host, in one transaction."""
    layout = Layout.here()
    manifest, folders = _find_parts(recipe.project, asked)
    with changing_guests(layout, *manifest.guests), ExitStack() as stack:
        require_bridges(layout, manifest.appliance, manifest.bridges)
        _refuse_former(layout, manifest)
        log = recipe.project.log(manifest.appliance, "install")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        toolstack = find_toolstack(log)
        plans = []
        for guest, folder in folders.items():
            stack.enter_context(reading_artifact(recipe.project, folder, guest))
            program = toolstack.program if toolstack else asked.toolstack
            source = read_source(folder, name=guest, toolstack=program)
            plans.append(_plan(source, manifest, layout, toolstack, asked))
        plans = join_shared(plans)
        for plan in plans:
            for note in refuse_impossible(plan, layout, toolstack):
                print_line(f"  {plan.name}: {note}")
        refuse_full(plans, layout)
        records = install_together(plans, layout, word="install", log=log)
    print_line(f"{manifest.appliance} is installed: {', '.join(folders)}")
    for record in records:
        for disk in record.disks:
            print_line(f"  {record.name}: {disk.vdev:<6} {disk.target}")
    print_line(f"  start it:  doit start appliance={manifest.appliance}")


def _find_parts(project: Project, asked: options.Install) -> tuple[Manifest, dict[str, Path]]:
    """What belongs together, and the members' artifacts: built, published, or in a folder."""
    name = asked.appliance or ""
    if asked.source == "published":
        manifest = publication.current_manifest(project, name)
        versions = publication.find_versions(project, manifest)
        return manifest, {guest: version.folder for guest, version in versions.items()}
    if isinstance(asked.source, str):
        raise UsageError(
            "an image repository has single guests, no appliances",
            hint="from=published, or from=FOLDER with a folder of each member",
        )
    manifest = make_manifest(load_appliance(project, name))
    top = asked.source or project.artifacts
    return manifest, {guest: top / guest for guest in manifest.guests}


def _refuse_former(layout: Layout, manifest: Manifest) -> None:
    """Raises InUseError where a guest is installed as a member that is none any more."""
    former = [
        name for name in list_members(layout, manifest.appliance) if name not in manifest.guests
    ]
    if former:
        raise InUseError(
            f"{', '.join(former)}: no member of {manifest.appliance} any more, installed as one",
            hint=f"doit remove appliance={manifest.appliance}, then install it",
        )


def _plan(
    source: Source,
    manifest: Manifest,
    layout: Layout,
    toolstack: Toolstack | None,
    asked: options.Install,
) -> Plan:
    """Where one member goes; raises what forbids it."""
    proof = require_proven(source, asked, appliance=asked.appliance)
    require_backing(source)
    before = read_installed(layout, source.name)
    refuse_replacing(source.name, before, may_replace=asked.replace)
    plan = plan_install(
        source,
        layout,
        before=before,
        autostart=asked.autostart,
        toolstack=toolstack.program if toolstack else asked.toolstack,
        proof=proof,
        group=asked.lvm or "",
        with_others=True,
    )
    return replace(plan, membership=manifest.membership_of(source))


def remove(recipe: Recipe, _specs: object, asked: options.RemoveInstalled) -> None:
    """Take all members off this host; yes= where something would be lost."""
    layout, name = Layout.here(), asked.appliance or ""
    with changing_guests(layout, *life.require_members(layout, name)):
        records = list(life.require_members(layout, name).values())
        toolstack = find_toolstack()
        for record in records:
            for note in removing.refuse_removal(record, layout, toolstack, may_lose=asked.yes):
                print_line(f"  {record.name}: {note}")
        for path in removing.remove_guests(records, layout):
            print_line(f"  removed {path}")
        for disk in (disk for record in records for disk in removing.left_disks(record)):
            print_line(f"  left, not ours: {disk}")
    print_line(f"{name} is removed; what it was built from is still in {recipe.project.output}")


@on_host
def start(recipe: Recipe, _specs: Mapping[str, object], asked: options.Start) -> None:
    """Start the members in their order, each when those before it are ready."""
    name = asked.appliance or ""

    def run_inside(guest: str, address: str, command: str) -> None:
        asked = options.Ssh.model_validate({"name": guest, "address": address})
        words = ssh_words(recipe, asked)
        process.run([words[0], *_UNATTENDED, *words[1:], command])

    host = open_host(recipe.project, log_name=name)
    life.start(host, name, timeout_s=float(asked.timeout), run_inside=run_inside)
    print_line(f"{name} runs")


@on_host
def shutdown(recipe: Recipe, _specs: Mapping[str, object], asked: options.Shutdown) -> None:
    """Shut the members down, the last started first."""
    name = asked.appliance or ""
    host = open_host(recipe.project, log_name=name)
    down = list(life.shut_down(host, name, timeout_s=float(asked.timeout)))
    for guest in down:
        print_line(f"{guest} is shut down")
    if not down:
        print_line(f"no member of {name} runs")
