"""Early cut-off: what a stage takes of an earlier one, so that the rest of that one is no matter.

An archive moves every day; the packages of a guest do not. A stage that can say which of them it
takes depends on those, and not on the archive's state. Saying so is asking apt, which takes half a
second: what was said is kept beside the store, by all that it was said of.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pipeline.files import fingerprint, open_plain, write_durably
from pipeline.project import Project
from pipeline.scratch import scratch_folder
from pipeline.spec import Spec

_KEPT_S = 90 * 86400.0


@dataclass(frozen=True)
class Taken:
    """What a stage takes of an earlier one.

    `parts` is all of it that its bytes depend on; `hints` spare the build asking again.
    """

    parts: Mapping[str, Any]
    hints: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def identity(self) -> str:
        """What stands for the earlier stage in the fingerprint."""
        return fingerprint(self.parts)


class Packaged(Protocol):
    """One .deb, as an index or apt names it."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def architecture(self) -> str: ...

    @property
    def sha256(self) -> str: ...


def name_packages(packages: Iterable[Packaged]) -> dict[str, str]:
    """As a part of what is taken: name -> version, architecture, sha256."""
    return {one.name: f"{one.version} {one.architecture} {one.sha256}" for one in packages}


def take_state(identity: str, because: str) -> Taken:
    """All of an archive's state, with the reason why it cannot be less."""
    return Taken({"state": identity, "because": because})


@dataclass(frozen=True)
class Offer:
    """What can be looked at to say it: the artifacts before, all current; a folder for files."""

    spec: Spec
    project: Project
    artifacts: Mapping[str, Path]
    scratch: Path


@dataclass(frozen=True)
class Memory:
    """What was said before, in the store's folder `.taken`."""

    project: Project

    def recall(self, key: str) -> Taken | None:
        """What was said of this; None where nothing was, or where it cannot be read."""
        try:
            with open(open_plain(self._place(key)), "rb") as stream:
                return Taken(**json.load(stream))
        except (OSError, ValueError, TypeError, RecursionError):
            return None

    def ask(self, key: str, say: Callable[[Path], Taken]) -> Taken:
        """Have it said, in a scratch folder, and keep it; raises what is raised there."""
        with scratch_folder(self.project.scratch, "taken") as scratch:
            taken = say(scratch)
        self._keep(key, taken)
        return taken

    def _keep(self, key: str, taken: Taken) -> None:
        place = self._place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        for old in place.parent.glob("*"):
            with suppress(OSError):  # another process may do the same
                if old.stat().st_mtime < time.time() - _KEPT_S:
                    old.unlink()
        write_durably(place, json.dumps(asdict(taken), sort_keys=True).encode())

    def _place(self, key: str) -> Path:
        return self.project.store / ".taken" / key[:32]
