"""In which order packages are configured: what others pre-depend on comes before them.

A preinst may use what its package pre-depends on, so that must be configured by then (Debian
Policy 7.2); apt goes to the same length. All else is left to one last `dpkg --configure --pending`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.bootstrap.database import Control


class Dependencies:
    """Who needs whom in a set of packages that is complete in itself."""

    def __init__(self, controls: Iterable[Control]) -> None:
        self._by_name = {control.name: control for control in controls}
        self._providers: dict[str, str] = {}
        for name in sorted(self._by_name):
            for provided in read_relation(self._by_name[name].fields.get("Provides", "")):
                self._providers.setdefault(provided[0], name)

    @property
    def essential(self) -> set[str]:
        """The essential packages and all that they need."""
        return self.closure(name for name, control in self._by_name.items() if control.is_essential)

    def waves(self) -> list[set[str]]:
        """The packages in the order of configuring, the essential ones first."""
        essential = self.essential
        wanted: list[set[str]] = []
        wave = set(self._by_name) - essential
        while wave and wave not in wanted:
            wanted.append(wave)
            needed = (one for name in wave for one in self._find(name, "Pre-Depends"))
            wave = self.closure(needed) - essential
        done, found = set(essential), [essential]
        for wave in reversed(wanted):
            found.append(wave - done)
            done |= wave
        return found

    def closure(self, names: Iterable[str]) -> set[str]:
        """These packages and all that they depend on, directly or not."""
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
        for choices in read_relation(self._by_name[name].fields.get(field, "")):
            real = (
                choice if choice in self._by_name else self._providers.get(choice)
                for choice in choices
            )
            found += [one for one in real if one][:1]
        return found


def read_relation(field: str) -> list[list[str]]:
    """The names in a dependency field (deb-control(5)): for each relation its alternatives."""
    relations = (relation.split("|") for relation in field.split(",") if relation.strip())
    return [[re.split(r"[\s:(\[]", one.strip())[0] for one in choices] for choices in relations]
