"""doit modernize: what is wrong with an old guest, and the PVH guest that it becomes."""

from collections.abc import Callable
from pathlib import Path

from pipeline.commands.foreign_options import Modernize
from pipeline.commands.host import changing_guest
from pipeline.commands.prove import ask
from pipeline.console.answer import ANSWER
from pipeline.console.findings import print_findings
from pipeline.console.progress import print_line
from pipeline.dom0.inventory import require_installed
from pipeline.dom0.layout import Layout
from pipeline.dom0.rebuild import forget_previous, undo_rebuild
from pipeline.dom0.toolstack import find_toolstack
from pipeline.errors import EnvironmentFault
from pipeline.foreign import modernization
from pipeline.foreign.modern_configuration import show_difference
from pipeline.foreign.modernization import WORD, Modernization
from pipeline.foreign.old_guest import read_old_guest
from pipeline.foreign.static_busybox import find_busybox
from pipeline.namespace import is_root
from pipeline.proof.prove import prove_foreign
from pipeline.recipe import Recipe
from pipeline.scratch import remove_abandoned, scratch_folder


@changing_guest
def modernize(recipe: Recipe, _specs: object, asked: Modernize) -> None:
    """A PVH guest of one that was not built here, or the old one again."""
    layout, toolstack, name = Layout.here(), find_toolstack(), asked.name
    if asked.undo:
        undo_rebuild(layout, name, toolstack, word=WORD)
        print_line(f"{name} is as it was; what it wrote to its new disks is gone")
        return
    if asked.purge:
        _give_up_old(layout, name)
        return
    if not is_root():
        raise EnvironmentFault("a guest's file systems are opened by root only", hint="sudo ./doit")
    old = read_old_guest(asked.cfg)
    root = recipe.project.scratch
    root.mkdir(parents=True, exist_ok=True)
    remove_abandoned(root)
    with scratch_folder(root, f"modernize-{name}") as work:
        plan = modernization.plan_modernization(
            layout, old, boot=asked.boot, xen=asked.prove_xen, work=work
        )
        _show(plan, as_json=asked.json_form)
        if asked.dry:
            modernization.refuse_unmendable(plan)
            return
        for note in modernization.refuse_impossible(plan, toolstack):
            print_line(f"  {note}")
        busybox = None
        if plan.makes_initrd:
            busybox = find_busybox(recipe.project, plan.tree.arch, work / "busybox")
        log = recipe.project.log(name, WORD)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        prove = _prover(recipe, asked, with_xl=toolstack is not None)
        record = modernization.modernize(plan, toolstack, prove=prove, log=log, busybox=busybox)
    print_line(f"{name} is a PVH guest; start it: doit start name={name}")
    for disk in record.disks:
        print_line(f"  {disk.vdev:<6} {disk.target}{'' if disk.is_owned else '  (as before)'}")
    print_line(f"  the old guest stays: doit modernize cfg={asked.cfg} undo=yes, or purge=yes")


def _show(plan: Modernization, *, as_json: bool) -> None:
    """What is wrong, and what will be otherwise: in the guest's files, in its configuration."""
    configuration = show_difference(plan.old, plan.text)
    changes = [change.as_json() for change in plan.changes]
    copies = [{"from": str(old.path), "to": new.target} for old, new in plan.pairs]
    facts = {"changes": changes, "configuration": configuration, "copies": copies}
    ANSWER.add_findings(plan.name, plan.findings, **facts)
    if as_json:
        return
    print_findings(plan.findings)
    for old, new in plan.pairs:
        print_line(f"copy {old.path} ({old.used_bytes >> 20} MiB) to {new.target}")
    for change in plan.changes:
        print_line(f"in the guest: {change.path}: {change.why}")
        for line in change.lines():
            print_line(f"  {line}")
    for line in configuration:
        print_line(line)


def _prover(recipe: Recipe, asked: Modernize, *, with_xl: bool) -> Callable[[Path], str]:
    """What boots the copies and says "proven", or why not where nobody wants that."""
    if asked.unproven:
        return lambda _configuration: "never proven: unproven=yes"

    def prove(configuration: Path) -> str:
        told = ask(asked, None, with_xl=with_xl)
        xen = asked.prove_xen
        return prove_foreign(recipe, configuration, xen, told, origin="modernized").verdict

    return prove


def _give_up_old(layout: Layout, name: str) -> None:
    """No undo any more. What was not made by doit it does not remove."""
    record = require_installed(layout, name)
    before = record.previous
    for path in forget_previous(layout, name):
        print_line(f"  removed {path}")
    kept = {disk.target for disk in record.disks}
    for disk in before.disks if before is not None else ():
        if disk.target not in kept and not disk.is_owned:
            word = "lvremove" if disk.kind == "block" else "rm"
            print_line(f"  left, it was not made by doit: {word} {disk.target}")
