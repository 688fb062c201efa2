"""Changes of an installed guest: a new kernel, another size, a new root disk."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.artifact.folder import Source, read_source, reading_artifact, require_backing
from pipeline.artifact.kernel_folder import KernelFolder, read_kernel_folder
from pipeline.commands import options
from pipeline.commands.host import changing_guest, describe_fault, on_host, require_proven
from pipeline.console.progress import print_line
from pipeline.dom0 import power
from pipeline.dom0 import rebuild as rebuilding
from pipeline.dom0 import refresh as refreshing
from pipeline.dom0 import resize as resizing
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.install import NOWHERE, refuse_impossible, render_config
from pipeline.dom0.inventory import Installed, require_installed, survey
from pipeline.dom0.layout import Layout
from pipeline.dom0.refresh import Outcome
from pipeline.dom0.toolstack import Toolstack, find_toolstack
from pipeline.errors import PipelineError, UsageError
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.storage.transaction import working_on

_OUTCOMES = {
    "refreshed": "{0.guest}: kernel {0.before} -> {0.after}; start it: doit start name={0.guest}",
    "pending": "{0.guest} runs {0.before}; {0.after} waits: doit shutdown name={0.guest}, then "
    "doit start name={0.guest} (a reboot keeps the old kernel)",
    "current": "{0.guest}: {0.after}, nothing to do",
    "inside": "{0.guest} boots a kernel that is not of doit: upgrade it in the guest, or where its "
    "configuration names it",
    "restricted": "{0.guest}: pygrub runs as a user of its own from the next start on: doit "
    "shutdown name={0.guest}, then doit start name={0.guest} (a reboot keeps the old way)",
    "undone": "{0.guest}: back to kernel {0.after}; if it runs: doit shutdown, then doit start",
    "purged": "{0.guest}: {0.before} is gone, {0.after} stays; no undo any more",
}


@on_host
def refresh(recipe: Recipe, specs: Mapping[str, Spec], asked: options.Refresh) -> None:
    """Give installed guests their new kernel, or the one before."""
    layout, toolstack = Layout.here(), find_toolstack()
    name = asked.name
    installed, failed = ({name: require_installed(layout, name)}, []) if name else survey(layout)
    if not installed and not failed:
        raise UsageError("no guest is installed here", hint="doit install name=...")
    for error in failed:
        print_line(error.brief)
    for guest in installed:
        try:
            outcome = _change_kernel(recipe, specs, layout, guest, toolstack, asked)
            print_line(_OUTCOMES[outcome.state].format(outcome))
        except (PipelineError, OSError) as fault:
            error = fault if isinstance(fault, PipelineError) else describe_fault(fault)
            error.guest = error.guest or guest
            failed.append(error)
            if len(installed) > 1:
                print_line(f"{guest}: {error.brief}")
    if failed:
        raise failed[0]


def _change_kernel(
    recipe: Recipe,
    specs: Mapping[str, Spec],
    layout: Layout,
    name: str,
    toolstack: Toolstack | None,
    asked: options.Refresh,
) -> Outcome:
    with working_on(site_of(layout), name) as done:
        for text in done:
            print_line(f"  {text}")
        record = require_installed(layout, name)
        if asked.undo:
            return refreshing.undo_refresh(layout, name, toolstack)
        if asked.purge:
            return refreshing.forget_previous(layout, name, toolstack)
        if record.is_kernel_inside:
            return refreshing.restrict_pygrub(layout, name)
        kernel = _kernel_for(recipe, specs, name, asked)
        return _refresh_one(recipe, layout, name, kernel, toolstack, asked)


def _kernel_for(
    recipe: Recipe, specs: Mapping[str, Spec], name: str, asked: options.Refresh
) -> KernelFolder:
    if asked.source:
        return read_kernel_folder(asked.source)
    if name not in specs:
        raise UsageError(
            f"{name} has no spec here that would say its kernel",
            hint="from=FOLDER with vmlinuz, initrd.img, kernel.json and modules.tar",
        )
    recipe.build("mirror", specs[name])
    return read_kernel_folder(recipe.build("kernel", specs[name]).folder)


def _refresh_one(
    recipe: Recipe,
    layout: Layout,
    name: str,
    kernel: KernelFolder,
    toolstack: Toolstack | None,
    asked: options.Refresh,
) -> Outcome:
    """Refresh; with restart= a running guest is shut down for it and started again."""
    outcome = refreshing.refresh(layout, name, kernel, toolstack)
    if outcome.state != "pending" or not asked.restart:
        return outcome
    host = power.open_host(recipe.project, log_name=name)
    guest = power.find_guest(host, name)
    power.shut_down(host, [guest], timeout_s=180)
    power.start(host, power.find_guest(host, name))
    return refreshing.Outcome(name, "refreshed", outcome.before, outcome.after)


@changing_guest
def resize(_recipe: Recipe, _specs: object, asked: options.Resize) -> None:
    """Make the root disk of a guest larger or smaller."""
    name, layout = asked.name, Layout.here()
    record = require_installed(layout, name)
    plan, notes = resizing.plan_resize(layout, record, asked.size, find_toolstack())
    for note in notes:
        print_line(f"  {note}")
    if plan.after_mib == plan.before_mib:
        print_line(f"{name}: {plan.disk.target} has {plan.before_mib} MiB, nothing to do")
        return
    resizing.resize(layout, plan)
    print_line(f"{name}: {plan.disk.target}: {plan.before_mib} -> {plan.after_mib} MiB")
    print_line(f'  write size = "{plan.after_mib}M" into its spec: a rebuild reads it there')


@changing_guest
def rebuild(recipe: Recipe, specs: Mapping[str, Spec], asked: options.Rebuild) -> None:
    """A new root disk from today's golden image, or the one before; data disks stay."""
    name, layout, toolstack = asked.name, Layout.here(), find_toolstack()
    record = require_installed(layout, name)
    if asked.undo:
        rebuilding.undo_rebuild(layout, name, toolstack)
        print_line(f"{name} is as it was before its rebuild; start it: doit start name={name}")
        return
    if asked.purge:
        for path in rebuilding.forget_previous(layout, name):
            print_line(f"  removed {path}")
        return
    folder = _built_folder(recipe, specs, asked)
    with reading_artifact(recipe.project, folder, name):
        source = read_source(folder, name=name, toolstack=record.toolstack)
        replace_root_disk(recipe.project, layout, record, source, require_proven(source, asked))


def replace_root_disk(
    project: Project,
    layout: Layout,
    record: Installed,
    source: Source,
    proof: str,
    delivery: Mapping[str, str] = NOWHERE,
) -> None:
    """Rebuild an installed guest from an artifact; `delivery` says which repository it is from."""
    name, toolstack = record.name, find_toolstack()
    require_backing(source)
    plan = rebuilding.plan_rebuild(source, layout, record, proof=proof)
    plan = replace(plan, delivery=delivery)
    merged, _ = render_config(plan, layout)
    for note in [*refuse_impossible(plan, layout, toolstack), *merged.notes]:
        print_line(f"  {note}")
    log = project.log(name, "rebuild")
    log.parent.mkdir(parents=True, exist_ok=True)
    size_mib = rebuilding.size_to_keep(record)
    made = rebuilding.rebuild(plan, layout, log=log)
    if rebuilding.grow_to(layout, made, size_mib, toolstack):
        print_line(f"  its root disk was resized to {size_mib} MiB once, and is again")
    print_line(f"{name} is rebuilt; start it: doit start name={name}")
    for disk in made.disks:
        is_kept = disk.target in {old.target for old in record.disks}
        print_line(f"  {disk.vdev:<6} {disk.target}{'  (kept)' if is_kept else ''}")
    print_line(f"  the old root disk stays: doit rebuild name={name} undo=yes, or purge=yes")


def _built_folder(recipe: Recipe, specs: Mapping[str, Spec], asked: options.Rebuild) -> Path:
    """The artifact, built anew where it is not current; or from=FOLDER."""
    if asked.source:
        return asked.source
    name = asked.name
    if name not in specs:
        raise UsageError(f"{name} has no spec here to build it from", hint="from=FOLDER")
    for stage in recipe.stages:
        state = recipe.state(stage, specs[name])
        if not state.is_current:
            print_line(f"  {stage:<8} {state.reason}")
            recipe.build(stage, specs[name])
    return recipe.project.artifact(name)
