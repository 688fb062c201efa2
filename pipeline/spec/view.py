"""A guest's spec as one stage may see it."""

from collections.abc import Collection
from inspect import getattr_static
from typing import Any

from pipeline.spec.model import Spec


class UndeclaredKey(Exception):
    """A stage reads a spec key that is not among its own: a bug, its artifact would be stale."""


class SpecView:
    """A guest's spec as one stage may see it: a key that it has not declared cannot be read.

    Whatever follows from the keys (`spec.fqdn`, `spec.parts`) is worked out from what is seen here.
    """

    def __init__(self, spec: Spec, stage: str, keys: Collection[str]) -> None:
        self._spec = spec
        self._stage = stage
        self._keys = keys

    def __getattr__(self, name: str) -> Any:
        if name in self._keys:
            return getattr(self._spec, name)
        if name in Spec.model_fields:
            raise UndeclaredKey(f"stage {self._stage} reads {name}: declare it in keys or reads")
        return getattr_static(Spec, name).__get__(self, Spec)
