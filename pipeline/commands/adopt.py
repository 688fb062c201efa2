"""`doit adopt`: a root file system from elsewhere becomes what guests are made of."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from pipeline import process
from pipeline.commands.foreign_options import Adopt
from pipeline.console.answer import ANSWER
from pipeline.console.findings import print_findings
from pipeline.console.progress import print_line
from pipeline.errors import UsageError
from pipeline.foreign.adopted import Adoption, Bench, draft_guest, refuse_unmendable
from pipeline.foreign.sources import Fetched, Source, fetch
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.scratch import remove_abandoned, scratch_folder

_MOST_LISTED = 20


def adopt(recipe: Recipe, _specs: object, asked: Adopt) -> None:
    """Fetch it, say what it is and what is wrong with it, mend it, publish it, write a spec."""
    project, name = recipe.project, asked.name
    is_again = (project.adopted / name).exists()
    if not asked.dry:
        _refuse(project, asked, is_again=is_again)
    project.scratch.mkdir(parents=True, exist_ok=True)
    remove_abandoned(project.scratch)
    log = project.log(name, "adopt")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    run = partial(process.run, log=log)
    source = Source(
        place=asked.source,
        without=asked.without,
        mounts=asked.mounts,
        part=asked.part or 0,
        key=asked.key,
        known_hosts=asked.known_hosts,
    )
    with scratch_folder(project.scratch, f"adopt-{name}", mode=0o711) as scratch:
        (scratch / "source").mkdir(mode=0o711)
        fetched = fetch(source, scratch / "source", own=project.output, run=run)
        bench = Bench(fetched.tar, project=project, work=scratch, run=run)
        adoption = bench.look(name, kernel=asked.kernel, merged=fetched.merged)
        _show(adoption, fetched, asked)
        refuse_unmendable(adoption)
        if asked.dry:
            return
        folder = bench.take_in(adoption, describe_origin(fetched, asked))
    print_line(f"{name} is adopted: {folder}")
    if not (project.guests / f"{name}.toml").exists():
        print_line(f"wrote {draft_guest(adoption, project, {}).write()}")
    print_line(f"build and prove it: doit build name={name}; doit prove name={name}")


def _refuse(project: Project, asked: Adopt, *, is_again: bool) -> None:
    """Nothing that is there is lost without being asked for; before anything is fetched."""
    spec = project.guests / f"{asked.name}.toml"
    if asked.replace:
        return
    if is_again or spec.exists():
        raise UsageError(
            f"{asked.name} is there already: {project.adopted / asked.name if is_again else spec}",
            hint="replace=yes adopts it anew and leaves its spec as it is; or another name=",
        )


def describe_origin(fetched: Fetched, asked: Adopt) -> dict[str, Any]:
    """Where it came from, for its record."""
    told = asdict(fetched)
    del told["tar"]
    return {**told, "from": str(asked.source)}


def _show(adoption: Adoption, fetched: Fetched, asked: Adopt) -> None:
    """What it is, what stays behind, what is wrong, what will be otherwise."""
    changes = [change.as_json() for change in adoption.changes]
    origin = describe_origin(fetched, asked)
    ANSWER.add_findings(adoption.name, adoption.findings, changes=changes, origin=origin)
    if asked.json_form:
        return
    for line in describe(adoption, fetched):
        print_line(line)
    print_findings(adoption.findings)
    for change in adoption.changes:
        print_line(f"in the guest: {change.path}: {change.why}")
        for line in change.lines():
            print_line(f"  {line}")


def describe(adoption: Adoption, fetched: Fetched) -> Iterator[str]:
    """Some lines about the system, and about what does not come along."""
    tree = adoption.tree
    kernels = ", ".join(kernel.abi for kernel in tree.kernels) or "no kernel"
    size = f"{fetched.count} files, {fetched.size_bytes >> 20} MiB"
    yield f"{adoption.name}: {tree.os_name or 'an unknown system'}, {tree.init}, {kernels}; {size}"
    for note in fetched.notes:
        yield f"  {note}"
    if fetched.merged:
        yield f"  {', '.join(fetched.merged)}: a folder of the root file system now"
    left = fetched.left_out
    for thing in left[:_MOST_LISTED]:
        count = f" ({thing.count})" if thing.count > 1 else ""
        yield f"  left out: {thing.path}{count}: {thing.why}"
    if len(left) > _MOST_LISTED:
        yield f"  left out: {len(left) - _MOST_LISTED} more"
    for path in fetched.unsteady[:_MOST_LISTED]:
        yield f"  changed while it was read: {path}"
