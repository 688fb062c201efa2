"""What the pipeline keeps: the store, the package cache, locks."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline import process
from pipeline.artifact.record import read_record
from pipeline.commands.options import Build, Guests
from pipeline.commands.site_options import Collect
from pipeline.commands.summary import show_size
from pipeline.console.answer import ANSWER
from pipeline.console.progress import print_line
from pipeline.dom0.inventory import list_installed
from pipeline.dom0.layout import Layout
from pipeline.lockfile import kept_snapshot, list_locks, lock_path, make_lock
from pipeline.locks import try_locked
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.scratch import remove_tree
from pipeline.spec import Spec, Specs
from pipeline.storage import lvm
from pipeline.storage.flatten import flatten_guest
from pipeline.storage.golden import remove_unused
from pipeline.store.gc import Entry, collect, list_entries, plan_collection, remove_leftovers
from pipeline.store.store import Store

_MIB = 1 << 20
_OBSOLETE = "cache/apt"  # apt's own until it was taken from the guests' scripts, which could write


def collect_garbage(recipe: Recipe, specs: Specs, options: Collect) -> None:
    """Remove what no guest and no spec needs, oldest first, until the rest is within keep=SIZE."""
    if options.store:
        from pipeline.commands.shared_gc import collect_shared  # the libraries of a fleet, an extra

        collect_shared(options)
        return
    if options.dry:
        _collect(recipe, specs, options)
        return
    _remove_leftovers(recipe)
    with try_locked(Store.of(recipe.project).runs_lock) as is_alone:
        if is_alone:
            _collect(recipe, specs, options)
        else:
            ANSWER.add("", keep=options.keep, dry=False, busy=True, removed=[])
            print_line("a build or another command uses this output folder: nothing was removed")
            print_line("  doit gc again when it has ended")


def _remove_leftovers(recipe: Recipe) -> None:
    """What killed runs left; those that live have it locked."""
    output = recipe.project.output
    obsolete, gone = output / _OBSOLETE, remove_leftovers(recipe.project)
    if os.path.lexists(obsolete):
        remove_tree(obsolete)
        gone.append(obsolete)
    for path in gone:
        print_line(f"  removed abandoned {path.relative_to(output)}")


def _collect(recipe: Recipe, specs: Specs, options: Collect) -> None:
    """Nobody else is at work here unless it is dry."""
    entries = list_entries(recipe.project, list_needed(recipe, specs))
    plan = plan_collection(entries, options.keep_mib * _MIB)

    def show(entry: Entry, verb: str = "removed") -> None:
        name = entry.path.relative_to(recipe.project.output)
        print_line(f"  {verb} {show_size(entry.size):>9}  {name}")

    if options.dry:
        for entry in plan.doomed:
            show(entry, "would remove")
        busy: list[Entry] = []
    else:
        busy = collect(recipe.project, plan, show)
        _collect_volumes(recipe, specs)
    for entry in busy:
        show(entry, "in use, left")
    needed = sum(entry.size for entry in plan.kept)
    freed = plan.freed - sum(entry.size for entry in busy)
    ANSWER.add(
        "",
        keep=options.keep,
        dry=options.dry,
        busy=False,
        removed=[_as_json(entry) for entry in plan.doomed if entry not in busy],
        left=[_as_json(entry) for entry in (*plan.spared, *plan.kept, *busy)],
        freed_bytes=freed,
        left_bytes=plan.left + plan.freed - freed,
        needed_bytes=needed,
    )
    print_line(
        f"{show_size(freed)} {'would go' if options.dry else 'removed'}, "
        f"{show_size(plan.left + plan.freed - freed)} left, "
        f"of it {show_size(needed)} needed by guests and specs; "
        f"keep={options.keep}"
    )
    for name in sorted(recipe.project.built - specs.names):
        print_line(
            f"  {name} has no spec any more and keeps what it needs: doit delete name={name}"
        )
    if specs.problems:
        print_line(
            f"  not known what these use, their specs are broken: {', '.join(specs.problems)}"
        )


def _as_json(entry: Entry) -> dict[str, object]:
    return {"path": str(entry.path), "bytes": entry.size, "needed_by": entry.needed_by}


def _collect_volumes(recipe: Recipe, specs: Mapping[str, Spec]) -> None:
    """Golden volumes that no guest is a snapshot of."""
    if os.geteuid() != 0 or not any(spec.lvm for spec in specs.values()):
        return
    if not lvm.missing_tools():
        current = {recipe.state("image", spec).folder.name for spec in specs.values()}
        for name in remove_unused(process.run, recipe.project, current):
            print_line(f"  removed golden volume {name}")


def lock(recipe: Recipe, spec: Spec, _options: Build) -> None:
    """Write the guest's lock and keep what it names."""
    made = make_lock(recipe, spec)
    print_line(
        f"{lock_path(recipe.project, spec.name).name}: {len(made.packages)} packages, "
        f"{show_size(sum(package.size for package in made.packages))}; suites "
        + ", ".join(f"{suite} {digest[:12]}" for suite, digest in sorted(made.sources.items()))
    )
    for name in made.unknown:
        print_line(f"  not from the mirror, and not kept: {name}")
    print_line(f"  build from exactly these: doit build name={spec.name} locked=yes [offline=yes]")


def flatten(recipe: Recipe, spec: Spec, _options: Guests) -> None:
    """Make the guest's copy-on-write disk one that needs no golden image."""
    backing = flatten_guest(recipe.project, spec)
    print_line(f"{spec.name}: it stands on its own; it rested on {backing}")
    print_line("  write clone = 'full' into its spec, or the next new build shares blocks again")


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
    for owner, lock in list_locks(project):
        yield kept_snapshot(project, lock.identity), owner
        for package in lock.packages:
            yield project.cache.debs / package.sha256, owner
