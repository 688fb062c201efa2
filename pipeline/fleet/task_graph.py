"""The graph that a fleet's scheduler gets: what is to be made, after what, and what comes first.

It is pure: no engine is known here. A key is (stage, artifact): the stage is what the scheduler
learns durations of, the rest is doit's name of the task, and a digest of all else that counts.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.recipe import Recipe
from pipeline.spec import Spec

Key = tuple[str, str]

BUILD, PROVE = "build", "prove"
# what a stage of a Debian guest took on the machine of docs/explanation/performance.md: the first
# guess of who has to wait longest, and the scheduler's until it has seen one
SECONDS = MappingProxyType(
    {
        **{"mirror": 4.0, "base": 9.0, "kernel": 3.0, "rootfs": 12.0, "image": 6.0, "volume": 2.0},
        "firmware": 210.0,
    }
)
PROVE_SECONDS = 120.0


@dataclass(frozen=True)
class FleetTask:
    """One task of the scheduler's: a stage of the guest, or its proof.

    `guest` is one of those that it serves. Of two that could begin, that with the higher `priority`
    does. It takes one of the worker's slots of the kind `slot`.
    """

    key: Key
    stage: str
    guest: str
    after: tuple[Key, ...] = ()
    slot: str = BUILD
    priority: int = 0


def make_tasks(
    recipe: Recipe,
    specs: Iterable[Spec],
    *,
    made_of: str,
    last: tuple[str, ...] = ("image",),
    proves: bool = False,
) -> dict[Key, FleetTask]:
    """The tasks for these guests, those that others wait for before them.

    `made_of` is the digest of what the spec does not say (program, tools, states of mirrors).
    `last` are the stages that are wanted, with all before them. With `proves` each guest is proven
    as well.
    """
    tasks: dict[Key, FleetTask] = {}
    for spec in specs:
        wanted = _with_all_before(recipe, last)
        for stage in (name for name in recipe.stages if name in wanted):
            if is_asked_here(recipe, stage):
                continue
            key = key_of(recipe, stage, spec, made_of=made_of)
            after = tuple(
                key_of(recipe, upper, spec, made_of=made_of)
                for upper in recipe.stages[stage].after
                if not is_asked_here(recipe, upper)
            )
            tasks.setdefault(key, FleetTask(key, stage, spec.name, after))
        if proves:
            ends = tuple(key_of(recipe, stage, spec, made_of=made_of) for stage in last)
            key = (PROVE, f"{spec.name}@{made_of}")
            tasks[key] = FleetTask(key, PROVE, spec.name, ends, PROVE)
    return _with_priorities(tasks)


def is_asked_here(recipe: Recipe, stage: str) -> bool:
    """A mirror's state is asked by whoever builds: all of a fleet then build from that one."""
    return recipe.stages[stage].ages


def key_of(recipe: Recipe, stage: str, spec: Spec, *, made_of: str) -> Key:
    """What the scheduler calls it: equal for all who want the same thing."""
    return stage, f"{artifact_name(recipe, stage, spec)}@{made_of}"


def artifact_name(recipe: Recipe, stage: str, spec: Spec) -> str:
    """What a person calls it: the guest, or suite and group where guests share it."""
    is_shared = recipe.stages[stage].is_shared
    return f"{spec.suite}-{recipe.group_of(stage, spec)}" if is_shared else spec.name


def _with_all_before(recipe: Recipe, stages: Iterable[str]) -> set[str]:
    wanted: set[str] = set()
    for stage in stages:
        wanted |= {stage} | _with_all_before(recipe, recipe.stages[stage].after)
    return wanted


def _with_priorities(tasks: dict[Key, FleetTask]) -> dict[Key, FleetTask]:
    """By the work that waits for each, in tenths of a second: its own, and that of all behind it.

    What most wait for comes first; of equal ones that with the longest way to go. But what is begun
    is finished first: the only task that waits for another comes right after it, where its result
    lies. So the first golden images are ready early, and whoever asked can go on from them
    (docs/explanation/fleet.md).
    """
    behind: dict[Key, set[Key]] = {key: set() for key in tasks}
    waiting = Counter(upper for task in tasks.values() for upper in task.after)
    for key in reversed(tasks):  # those that wait stand behind what they wait for
        for upper in tasks[key].after:
            behind[upper] |= behind[key] | {key}

    def work(key: Key) -> float:
        return PROVE_SECONDS if key[0] == PROVE else SECONDS.get(key[0], 1.0)

    ranks = {
        key: round(10 * (work(key) + sum(work(later) for later in behind[key]))) for key in tasks
    }
    for key, task in tasks.items():
        begun = [ranks[upper] + 1 for upper in task.after if waiting[upper] == 1]
        ranks[key] = max([ranks[key], *begun])
    return {
        key: FleetTask(key, task.stage, task.guest, task.after, task.slot, ranks[key])
        for key, task in tasks.items()
    }
