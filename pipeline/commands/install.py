"""The words for a guest's life: published, installed on a Xen host, and what comes after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.change import WORDS as CHANGING_WORDS
from pipeline.commands.command import (
    Word,
    describe_fault,
    host_word,
    reading_artifact,
    require_name,
    require_proven,
    yes_or_no,
)
from pipeline.commands.power import WORDS as RUNNING_WORDS
from pipeline.console.progress import print_line
from pipeline.errors import UsageError
from pipeline.recipe import Recipe
from pipeline.spec import Spec

if TYPE_CHECKING:
    from pipeline.dom0.inventory import Installed
    from pipeline.dom0.layout import Layout
    from pipeline.dom0.toolstack import Toolstack

_DEFAULT_KEEP = "7"


def publish(recipe: Recipe, spec: Spec) -> None:
    """Publish the artifact as it was proven; keep=N, rollback=yes, unproven=yes."""
    try:
        _publish(recipe, spec)
    except OSError as error:
        raise describe_fault(error) from error


def _publish(recipe: Recipe, spec: Spec) -> None:
    from pipeline.artifact import published as versions  # only this word pays for its imports
    from pipeline.artifact.folder import read_source, require_backing
    from pipeline.dom0.guest_root import site_of
    from pipeline.dom0.layout import Layout
    from pipeline.storage.transaction import recover_all

    project, asked = recipe.project, recipe.options.get("keep", _DEFAULT_KEEP)
    if not asked.isdigit() or not int(asked[:9]) > 0:
        raise UsageError(f"keep={asked}: how many versions?", hint="keep=1 or more")
    for text in recover_all(site_of(Layout.here())):
        print_line(f"  {text}")
    if recipe.options.get("rollback") == "yes":
        version = versions.roll_back(project, spec.name)
        print_line(f"{spec.name}: current is {version.name} again")
        return
    folder = project.artifact(spec.name)
    with reading_artifact(recipe, folder, spec.name):
        source = read_source(folder, name=spec.name)
        require_backing(source)
        version = versions.publish(project, source, proof=require_proven(recipe, source))
    print_line(f"{spec.name} is published: {version.folder}")
    if not recipe.state("config", spec).is_current:
        print_line(f"  its spec asks for something else by now: doit why name={spec.name}")
    for old in versions.prune(project, spec.name, int(asked)):
        print_line(f"  removed {old.name}")


def install(recipe: Recipe, _specs: object) -> None:
    """Install an artifact on this host; from=, autostart=, replace=yes, unproven=yes."""
    from pipeline.dom0.install import refuse_replacing
    from pipeline.dom0.inventory import read_installed
    from pipeline.dom0.layout import Layout
    from pipeline.dom0.toolstack import find_toolstack

    name, layout = require_name(recipe), Layout.here()
    log = recipe.project.log(name, "install")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    toolstack = find_toolstack(log)
    before = read_installed(layout, name)
    refuse_replacing(name, before, may_replace=recipe.options.get("replace") == "yes")
    folder = _source_folder(recipe, name)
    with reading_artifact(recipe, folder, name):
        record = _install(recipe, folder, layout, before, toolstack, log)
    print_line(f"{name} is installed: {layout.config(name)}")
    for disk in record.disks:
        print_line(f"  {disk.vdev:<6} {disk.target}")
    if record.kernel:
        print_line(f"  kernel {record.kernel}")
    when = f"with the host ({layout.auto_link(name)})" if record.is_autostarted else "by hand"
    print_line(f"  starts {when}; now:  doit start name={name}")


def _install(
    recipe: Recipe,
    folder: Path,
    layout: Layout,
    before: Installed | None,
    toolstack: Toolstack | None,
    log: Path,
) -> Installed:
    from pipeline.artifact.folder import read_source, require_backing
    from pipeline.dom0 import install as installing
    from pipeline.dom0.configuration import is_edited
    from pipeline.dom0.install import refuse_impossible

    name = require_name(recipe)
    program = toolstack.program if toolstack else recipe.options.get("toolstack", "xl")
    source = read_source(folder, name=name, toolstack=program)
    require_backing(source)
    plan = installing.plan_install(
        source,
        layout,
        before=before,
        autostart=yes_or_no(recipe, "autostart"),
        toolstack=program,
        proof=require_proven(recipe, source),
        group=recipe.options.get("lvm", ""),
    )
    for note in refuse_impossible(plan, layout, toolstack):
        print_line(f"  {note}")
    if before is not None and is_edited(layout, before):
        print_line(f"  edits of {layout.config(name)} are not taken over by replace=yes")
    return installing.install(plan, layout, word="install", log=log)


def _source_folder(recipe: Recipe, name: str) -> Path:
    """The built artifact, the published version, or any folder."""
    asked = recipe.options.get("from", "")
    if not asked:
        return recipe.project.artifact(name)
    if asked == "published":
        from pipeline.artifact.published import current_version

        version = current_version(recipe.project, name)
        if version is None:
            raise UsageError(f"{name} has no published version", hint=f"doit publish name={name}")
        return version.folder
    return Path(asked).absolute()


def remove(recipe: Recipe, _specs: object) -> None:
    """Take a guest off this host; yes=yes where something would be lost."""
    from pipeline.dom0 import remove as removing
    from pipeline.dom0.inventory import require_installed
    from pipeline.dom0.layout import Layout
    from pipeline.dom0.toolstack import find_toolstack

    name, layout = require_name(recipe), Layout.here()
    record = require_installed(layout, name)
    may_lose = recipe.options.get("yes") == "yes"
    for note in removing.refuse_removal(record, layout, find_toolstack(), may_lose=may_lose):
        print_line(f"  {note}")
    for path in removing.remove_guest(record, layout):
        print_line(f"  removed {path}")
    for disk in removing.left_disks(record):
        print_line(f"  left, not ours: {disk}")
    print_line(f"{name} is removed; what it was built from is still in {recipe.project.output}")


def list_guests(recipe: Recipe, specs: Mapping[str, Spec]) -> None:
    """What is defined, running, built from what, and out of date; json=yes."""
    from pipeline.dom0.guest_list import print_guests

    print_guests(recipe, specs, as_json=recipe.options.get("json") == "yes")


def doctor(recipe: Recipe, specs: Mapping[str, Spec]) -> None:
    """What will hurt on this host, each with its fix; dry=yes leaves leftovers, json=yes."""
    from pipeline.dom0.doctor.examine import examine

    only_looks = yes_or_no(recipe, "dry") or False
    examine(
        recipe.project, specs, only_looks=only_looks, as_json=recipe.options.get("json") == "yes"
    )


WORDS = (
    Word(
        "publish",
        "an immutable copy of the proven guest: keep=7 rollback=yes",
        publish,
        options=frozenset({"keep", "rollback", "unproven"}),
    ),
    host_word(
        "install",
        "put a guest in its place on this Xen host",
        install,
        *("from", "autostart", "replace", "unproven", "lvm", "toolstack"),
        changes=True,
    ),
    host_word("remove", "take a guest off this Xen host", remove, "yes", changes=True),
    host_word(
        "list-guests",
        "what is installed, runs, and is out of date",
        list_guests,
        "json",
        only_reads=True,
    ),
    *CHANGING_WORDS,
    Word(
        "doctor",
        "what will hurt here, each with its fix",
        doctor,
        options=frozenset({"dry", "json"}),
        is_single=True,
        is_of_host=True,
    ),
    *RUNNING_WORDS,
)
