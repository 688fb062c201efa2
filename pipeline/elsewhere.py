"""What of a build is done elsewhere: by the workers of a fleet, or before, into a shared store.

The recipe knows these two as protocols: the libraries of a fleet are no part of an ordinary build.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from pipeline.scratch import remove_tree
from pipeline.spec import Spec
from pipeline.stage import Stage
from pipeline.store.store import BuildInfo


class SharedArtifacts(Protocol):
    """A store that several machines share, a second level under the local one (golden half)."""

    def pull(
        self,
        stage: str,
        fingerprint: str,
        scratch: Path,
        *,
        is_wanted: Callable[[BuildInfo], bool] = lambda _buildinfo: True,
    ) -> BuildInfo | None:
        """Fill `scratch` with the verified files of an artifact; None where there is none to use.

        `is_wanted` is asked before the files are fetched.
        """

    def push(self, folder: Path) -> bool:
        """Make a published artifact known there; False where it was already, or cannot be."""

    def lease(self, stage: str, fingerprint: str) -> AbstractContextManager[None]:
        """Who builds this for all; waits for another who does."""


class Elsewhere(Protocol):
    """The workers that build for this run."""

    def serve(self, recipe: Any, specs: Iterable[Spec]) -> None:
        """The run builds these guests by this recipe, which may ask a mirror anew."""

    def wait(self, stage: str, spec: Spec) -> bool:
        """Return when a worker has built it; False where it is to be built here.

        What a worker built for this run is pulled from the shared store, however old it is.
        """

    def prove(
        self, spec: Spec, folder: Path, told: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, bytes]] | None:
        """Have a worker prove the artifact in `folder`; `told` is what the proof's room tells it.

        Returns who did, and the files of its evidence; None: it is proven here.
        """


def is_fresh(stage: Stage, spec: Spec, buildinfo: BuildInfo, scratch: Path) -> bool:
    """Whether an artifact that is not here yet is no older than the spec allows.

    Stages tell that by the times of their files.
    """
    if not stage.ages:
        return True
    sketch = scratch / "times"
    for name in buildinfo.files:
        (sketch / name).parent.mkdir(parents=True, exist_ok=True)
        (sketch / name).touch()
        os.utime(sketch / name, (buildinfo.built_at, buildinfo.built_at))
    try:
        return not stage.is_stale(sketch, spec)
    finally:
        remove_tree(sketch)
