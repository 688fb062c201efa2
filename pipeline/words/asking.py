"""What several words ask of their variables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError, VerificationError
from pipeline.progress import print_line
from pipeline.recipe import Recipe
from pipeline.store import is_locked, locked

if TYPE_CHECKING:
    from pipeline.life.source import Source


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
    from pipeline.proof.verdict import read_verdict

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
    store = recipe.project.store
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
