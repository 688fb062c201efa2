"""The word that says what a build would do and take, and does nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline.progress import print_line
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.words.word import Word

if TYPE_CHECKING:  # imported by the word alone: every start of doit would pay for it
    from pipeline.volumes.planning import Plan

_MIB, _WIDE = 1 << 20, 56


def plan(recipe: Recipe, spec: Spec) -> None:
    """Stages, disks, room and time; raises what the build would raise, with its exit code."""
    from pipeline import command
    from pipeline.volumes.planning import plan_build  # only this word pays for its imports

    found = plan_build(recipe, spec, command.run)
    if recipe.options.get("json") == "yes":
        print(json.dumps(found.as_json(), indent=1))
    else:
        _show(found)
    if found.refusals:
        raise found.refusals[0]


def _show(plan: Plan) -> None:
    print_line(f"{plan.guest}: what a build would do; nothing is touched")
    for stage in plan.stages:
        time = "" if stage.seconds is None else f"{stage.seconds:6.1f} s last time"
        print_line(
            f"  {stage.name:<8} {stage.reason or 'current':<40} {time if stage.reason else ''}"
        )
    for warning in plan.warnings:
        print_line(f"  note: {warning}")
    for disk in plan.disks:
        extents = f", {disk.extents} extents" if disk.extents else ""
        writes = "as much as the golden image has" if disk.writes is None else _size(disk.writes)
        old = "; the one that is there goes when it is whole" if disk.replaces else ""
        print_line(
            f"  {disk.part:<8} {disk.path}: {disk.kind}, {_size(disk.size)}{extents}, "
            f"{writes} written{old}"
        )
    for space in plan.spaces:
        left = max(space.free - space.takes, 0)
        units = f" ({left // space.extent} of {_size(space.extent)} each)" if space.extent else ""
        print_line(
            f"  {space.name}: {_size(space.free)} free, {_size(space.takes)} taken, "
            f"{_size(left)} left{units}"
        )
    if any(stage.reason for stage in plan.stages):
        expected = (
            "not known: a stage has never run" if plan.seconds is None else f"{plan.seconds} s"
        )
        print_line(f"  expected time: {expected} (stages one after the other)")
    else:
        print_line("  everything is current: nothing would run")


def _size(count: int) -> str:
    if count >= 1 << 30:
        return f"{count / (1 << 30):.2f} GiB"
    return f"{count / _MIB:.0f} MiB" if count >= _MIB else f"{count >> 10} KiB"


WORDS = (
    Word(
        "plan",
        "say what a build would take: volumes, bytes, time",
        plan,
        options=frozenset({"json"}),
        only_reads=True,
    ),
)
