"""What a word of the command line is: `doit WORD name=GUEST key=value`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


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


def host_word(name: str, doc: str, action: Callable[..., None], *options: str) -> Word:
    """A word about guests of this Xen host."""
    return Word(name, doc, action, options=frozenset(options), is_single=True, is_of_host=True)
