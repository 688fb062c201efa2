"""doit dom0: this Debian machine as dom0.toml says, and back."""

import shlex
from functools import partial
from pathlib import Path

from pipeline.commands.host import on_host
from pipeline.commands.site_options import Dom0
from pipeline.console.findings import print_findings
from pipeline.console.progress import print_line
from pipeline.dom0.layout import VARIABLE, Layout
from pipeline.dom0.setup import watchdog
from pipeline.dom0.setup.dom0_file import read_dom0_file
from pipeline.dom0.setup.host_change import (
    Change,
    Plan,
    apply_change,
    changing_host,
    list_changes,
    next_number,
    read_settings,
    require_last,
    undo_change,
)
from pipeline.dom0.setup.host_draft import draft_dom0_file
from pipeline.dom0.setup.host_plan import plan_change, show_plan
from pipeline.dom0.setup.trial import await_answer, try_change
from pipeline.dom0.setup.watchdog import Watch
from pipeline.errors import EnvironmentFault, UsageError
from pipeline.files import write_durably
from pipeline.namespace import is_root
from pipeline.recipe import Recipe


@on_host
def dom0(recipe: Recipe, _specs: object, asked: Dom0) -> None:
    """Set this host up as dom0.toml says, or show it, or take it back."""
    layout = Layout.here()
    if asked.create:
        _create(layout, recipe.project.dom0)
        return
    _require_sense(layout, asked)
    log = recipe.project.log("dom0", "watchdog")
    if asked.confirm:
        _confirm(layout)
    elif asked.undo:
        _undo(layout, asked, log)
    else:
        _set_up(layout, recipe.project.dom0, asked, log)


def _create(layout: Layout, path: Path) -> None:
    """Write dom0.toml of what the host has."""
    if path.exists():
        raise UsageError(f"{path} is there already", hint="look at it, then: doit dom0 dry=yes")
    write_durably(path, draft_dom0_file(layout.root).encode())
    print_line(f"wrote {path}; look at it, then: doit dom0 dry=yes")


def _require_sense(layout: Layout, asked: Dom0) -> None:
    if layout.root == Path("/") and not is_root():
        raise EnvironmentFault("a host is set up by root only", hint="sudo ./doit dom0")
    if layout.root != Path("/") and asked.now:
        raise UsageError(f"below {layout.root} no network can be brought up", hint="without now=")
    if asked.replace and not asked.undo:
        raise UsageError("replace= is for an undo", hint="doit dom0 undo=yes replace=yes")


def _confirm(layout: Layout) -> None:
    with changing_host(layout):
        if not watchdog.keep_change(layout):
            raise UsageError("nothing is on trial", hint="it was confirmed, or taken back already")
    print_line("the change stays")


def _set_up(layout: Layout, path: Path, asked: Dom0, log: Path) -> None:
    settings = read_dom0_file(path)
    with changing_host(layout) as done:
        for text in done:
            print_line(f"  {text}")
        watchdog.refuse_while_watched(layout)
        plan, findings = plan_change(layout, settings, partial(_show, brief=not asked.dry))
        print_findings([finding for finding in findings if finding.level != "ok"])
        if not plan.files:
            print_line(f"nothing to do: this host is as {path} says")
            return
        names = [part.name for part in plan.parts]
        left = read_settings(layout)
        number = next_number(layout)
        watch = watchdog.begin_watch(
            number, "old", names, left=left, entered=settings, seconds=asked.watch
        )
        if asked.dry:
            _show_dry(layout, watch if asked.now else None)
            return
        if asked.now:
            try_change(layout, watch, lambda: apply_change(layout, plan), log=log)
        else:
            apply_change(layout, plan)
    _say_trial(layout)
    print_line(f"{len(plan.files)} files are as {path} says; back: doit dom0 undo=yes")
    if asked.now:
        await_answer(layout, watch)


def _show(plan: Plan, *, brief: bool) -> None:
    for line in show_plan(plan, brief=brief):
        print_line(line)


def _undo(layout: Layout, asked: Dom0, log: Path) -> None:
    with changing_host(layout):
        if not asked.dry and watchdog.take_back(layout):
            print_line("what was on trial is taken back")
            return
        change = require_last(layout)
        for file in change.files:
            print_line(f"  {'put back' if file.was else 'remove'} {file.path}")
        watch = watchdog.begin_watch(
            change.number,
            "new",
            change.parts,
            left=change.settings,
            entered=read_settings(layout, before=change.number),
            seconds=asked.watch,
        )
        if asked.dry:
            _show_dry(layout, watch if asked.now else None)
            return
        if asked.now:
            try_change(layout, watch, lambda: _take_out(layout, change, asked), log=log)
        else:
            undo_change(layout, change, replaces=asked.replace)
        left = len(list_changes(layout))
    _say_trial(layout)
    print_line(f"{len(change.files)} files are as they were")
    if left:
        print_line(f"  {left} more can be taken back, one by one: doit dom0 undo=yes")
    if asked.now:
        await_answer(layout, watch)


def _take_out(layout: Layout, change: Change, asked: Dom0) -> None:
    undo_change(layout, change, replaces=asked.replace, keeps=True)


def _show_dry(layout: Layout, watch: Watch | None) -> None:
    if watch is not None:
        for what in ("deactivate", "activate"):
            for command in watchdog.switch_commands(layout, watch, what):
                print_line(f"  {what} the network: {shlex.join(command)}")
    print_line("nothing was changed: dry=yes")


def _say_trial(layout: Layout) -> None:
    if layout.root != Path("/"):
        print_line(f"  below {layout.root} ({VARIABLE}): files alone, no command was run")
