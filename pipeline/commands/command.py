"""What a word of the command line is: `doit WORD name=GUEST key=value`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.console.progress import print_line
from pipeline.diagnosis import explain_os_error
from pipeline.errors import EnvironmentFault, PipelineError, UsageError, VerificationError
from pipeline.locks import is_locked, locked
from pipeline.recipe import Recipe
from pipeline.store.store import Store

if TYPE_CHECKING:
    from pipeline.recipe import Recipe
    from pipeline.spec import Spec

    HostAction = Callable[[Recipe, Mapping[str, Spec]], None]
    from pipeline.artifact.folder import Source


def require_name(recipe: Recipe) -> str:
    """The guest of name=; raises UsageError where there is none, or it cannot be one."""
    from pipeline.spec.load import require_name as check

    name = recipe.options.get("name", "")
    if not name:
        raise UsageError("which guest?", hint="add name=, for example: name=test-drbd")
    check(name)
    return name


def require_proven(recipe: Recipe, source: Source) -> str:
    """`proven`, or why not where the user goes on without; raises VerificationError."""
    from pipeline.proof.seals import read_verdict

    verdict = read_verdict(source.folder)
    if verdict.is_proven:
        return "proven"
    if recipe.options.get("unproven") != "yes":
        raise VerificationError(
            f"{source.name} is not proven: {verdict.reason}",
            hint=f"doit prove name={source.name}, or go on without: unproven=yes",
        )
    print_line(f"  {source.name} is not proven: {verdict.reason}")
    return verdict.reason


def yes_or_no(recipe: Recipe, option: str) -> bool | None:
    """A variable that is yes or no, None where it is not given. Raises UsageError."""
    asked = recipe.options.get(option)
    if asked not in (None, "yes", "no"):
        raise UsageError(f"{option}={asked}: yes or no?")
    return None if asked is None else asked == "yes"


@contextmanager
def reading_artifact(recipe: Recipe, folder: Path, name: str) -> Iterator[None]:
    """While it is read nobody replaces or reads it; waits for whoever does, and says so."""
    store = Store.of(recipe.project)
    paths = [store.lock_path(stage, name) for stage in ("volume", "config")]
    if folder != recipe.project.artifact(name):
        paths = [folder.parent.parent / ".locks" / name] if folder.parent.name == name else []
        paths = [path for path in paths if path.parent.parent.name == "published"]
    if any(is_locked(path) for path in paths):
        print_line(f"  waiting: {name} is being built or published")
    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(locked(path))
        yield


@dataclass(frozen=True)
class Word:
    """A word that is not a stage.

    `action` gets the recipe and the guest's spec, or all specs by name where the word `is_single`.
    `after` is the stage that must be current first. `options` are the variables that say how to do
    it (recipe.options), not what to build: they are no spec keys.

    A word that `is_of_host` is single and about guests of this Xen host: name= need not have a
    spec (recipe.options["name"]), and `options` are all the variables that it takes.
    One that `only_reads` works in an output that another user owns.

    While a word that `needs_output` runs, `doit gc` of another run removes nothing.
    """

    name: str
    doc: str
    action: Callable[..., None]
    after: str = ""
    options: frozenset[str] = frozenset()
    is_single: bool = False
    is_of_host: bool = False
    only_reads: bool = False
    needs_output: bool = True


def host_word(
    name: str,
    doc: str,
    action: HostAction,
    *options: str,
    changes: bool = False,
    only_reads: bool = False,
) -> Word:
    """A word about guests of this Xen host.

    Whatever it is, what a killed command left is undone or finished first. One that `changes` its
    guest keeps the guest's lock from its first look to its end, and waits for whoever has it.
    """
    begun = _begun(action, changes=changes)
    return Word(
        name,
        doc,
        begun,
        options=frozenset(options),
        is_single=True,
        is_of_host=True,
        only_reads=only_reads,
    )


def _begun(action: HostAction, *, changes: bool) -> HostAction:
    @wraps(action)
    def word(recipe: Recipe, specs: Mapping[str, Spec]) -> None:
        from pipeline.commands.command import require_name
        from pipeline.dom0.guest_root import site_of
        from pipeline.dom0.inventory import survey, tighten
        from pipeline.dom0.layout import Layout
        from pipeline.storage.transaction import recover_all, working_on

        layout = Layout.here()
        try:
            with ExitStack() as stack:
                if changes and recipe.options.get("name"):
                    done = stack.enter_context(working_on(site_of(layout), require_name(recipe)))
                else:
                    done = recover_all(site_of(layout))
                tighten(disk for one in survey(layout)[0].values() for disk in one.disks)
                for text in done if recipe.options.get("json") != "yes" else ():
                    print_line(f"  {text}")
                action(recipe, specs)
        except OSError as error:
            raise describe_fault(error) from error

    return word


def describe_fault(error: OSError) -> PipelineError:
    """What the system said to a word that was at work on the host's files."""
    known = explain_os_error(error)
    if known is not None:
        return known
    where = f"{error.filename}: " if error.filename else ""
    return EnvironmentFault(
        f"{where}{error.strerror or error}",
        hint="nothing is half done: what was begun was undone; mend it, then again",
    )
