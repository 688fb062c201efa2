"""doit dom0: this Debian machine as dom0.toml says, and back."""

from __future__ import annotations

from pathlib import Path

from pipeline.commands.dom0_options import Dom0
from pipeline.commands.host import on_host
from pipeline.console.findings import print_findings
from pipeline.console.progress import print_line
from pipeline.dom0.layout import VARIABLE, Layout
from pipeline.dom0.setup.dom0_file import read_dom0_file
from pipeline.dom0.setup.host_change import (
    apply_change,
    changing_host,
    list_changes,
    require_last,
    undo_change,
)
from pipeline.dom0.setup.host_plan import plan_change, show_plan
from pipeline.errors import EnvironmentFault
from pipeline.namespace import is_root
from pipeline.recipe import Recipe


@on_host
def dom0(recipe: Recipe, _specs: object, asked: Dom0) -> None:
    """Set this host up as dom0.toml says, or show it, or take it back."""
    layout = Layout.here()
    _require_root(layout)
    if asked.undo:
        _undo(layout, asked)
        return
    settings = read_dom0_file(recipe.project.dom0)
    with changing_host(layout) as done:
        for text in done:
            print_line(f"  {text}")
        plan, findings = plan_change(layout, settings)
        print_findings([finding for finding in findings if finding.level != "ok"])
        if not plan.files:
            print_line(f"nothing to do: this host is as {recipe.project.dom0} says")
            return
        for line in show_plan(plan, brief=not asked.dry):
            print_line(line)
        if asked.dry:
            print_line("nothing was changed: dry=yes")
            return
        apply_change(layout, plan)
    _say_trial(layout)
    print_line(f"{len(plan.files)} files are as {recipe.project.dom0} says")
    print_line("  to take it back: doit dom0 undo=yes")


def _undo(layout: Layout, asked: Dom0) -> None:
    with changing_host(layout):
        change = require_last(layout)
        for file in change.files:
            word = "put back" if file.was else "remove"
            print_line(f"  {word} {file.path}")
        if asked.dry:
            print_line("nothing was changed: dry=yes")
            return
        undo_change(layout, change, replaces=asked.replace)
        left = len(list_changes(layout))
    _say_trial(layout)
    print_line(f"{len(change.files)} files are as they were")
    if left:
        print_line(f"  {left} more can be taken back, one by one: doit dom0 undo=yes")


def _require_root(layout: Layout) -> None:
    if layout.root == Path("/") and not is_root():
        raise EnvironmentFault("a host is set up by root only", hint="sudo ./doit dom0")


def _say_trial(layout: Layout) -> None:
    if layout.root != Path("/"):
        print_line(f"  below {layout.root} ({VARIABLE}): files alone, no command was run")
