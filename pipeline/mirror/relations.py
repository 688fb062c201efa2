"""Who needs whom in a set of packages, from the fields of their stanzas (deb-control(5))."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Fields = Mapping[str, str]


class Relations:
    """A set of packages that is complete in itself: each name with its fields."""

    def __init__(self, packages: Mapping[str, Fields]) -> None:
        self._packages = packages
        self._providers: dict[str, str] = {}
        for name in sorted(packages):
            for provided in read_relation(packages[name].get("Provides", "")):
                self._providers.setdefault(provided[0], name)

    @property
    def essential(self) -> set[str]:
        """The essential packages and all that they need."""
        return self._closure(
            name for name, fields in self._packages.items() if fields.get("Essential") == "yes"
        )

    def waves(self) -> list[set[str]]:
        """The packages in the order of configuring, the essential ones first.

        A preinst may use what its package pre-depends on, so that is configured by then (Debian
        Policy 7.2); apt goes to the same length.
        """
        essential = self.essential
        wanted: list[set[str]] = []
        wave = set(self._packages) - essential
        while wave and wave not in wanted:
            wanted.append(wave)
            needed = (one for name in wave for one in self._find(name, "Pre-Depends"))
            wave = self._closure(needed) - essential
        done, found = set(essential), [essential]
        for wave in reversed(wanted):
            found.append(wave - done)
            done |= wave
        return found

    def _closure(self, names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self._find(name, "Pre-Depends") + self._find(name, "Depends")
        return found

    def _find(self, name: str, field: str) -> list[str]:
        """Of each relation the first alternative that is in the set, itself or by a provider."""
        found = []
        for choices in read_relation(self._packages[name].get(field, "")):
            real = (
                choice if choice in self._packages else self._providers.get(choice)
                for choice in choices
            )
            found += [one for one in real if one][:1]
        return found


def read_relation(field: str) -> list[list[str]]:
    """The names in a dependency field: for each relation its alternatives."""
    relations = (relation.split("|") for relation in field.split(",") if relation.strip())
    return [[re.split(r"[\s:(\[]", one.strip())[0] for one in choices] for choices in relations]


def read_fields(stanza: str) -> dict[str, str]:
    """The fields of a control stanza; further lines are joined to the first by a space."""
    unfolded = re.sub(r"\n[ \t]+", " ", stanza)
    pairs = (line.partition(":") for line in unfolded.split("\n"))
    return {key: value.strip() for key, _, value in pairs}
