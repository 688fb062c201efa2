"""What a worker says of what it made: small, because what was made lies in the shared store."""

from collections.abc import Mapping
from dataclasses import dataclass

_SIZE_UNIT = 1024


@dataclass(frozen=True)
class Built:
    """A stage that is in the shared store: `was_built` there and then, or was there already.

    `size` are the bytes of its artifact, which whoever goes on from it has to have: the scheduler
    weighs where the next task goes by what lies where, in KiB (engine.py).
    """

    stage: str
    fingerprint: str
    worker: str
    seconds: float
    size: int
    was_built: bool
    moved: int = 0

    def __sizeof__(self) -> int:
        return max(1, self.size // _SIZE_UNIT)


@dataclass(frozen=True)
class Proven:
    """A guest that was proven, or that failed: the files of the evidence, as base64 by name."""

    worker: str
    seconds: float
    files: Mapping[str, str]
    moved: int = 0


class OrderFailed(Exception):
    """An order that a worker could not carry out, and why; made of one line of text.

    No PipelineError: it travels as the engine's own errors do, and the stage is then built by who
    asked for it.
    """
