"""What a run does, for programs: a JSON object a line in the file that events= names.

docs/how-to/ci.md has the events and their keys. Lines of several runs may stand in one file: each
has the id of its run. A line is one write(2) to a file opened for appending, so lines never mix.
"""

import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import EnvironmentFault, PipelineError, UsageError

FORM = 1


class Events:
    """Where the events of this run go; nowhere without a path. Raises UsageError."""

    def __init__(self, path: str = "") -> None:
        self._descriptor: int | None = None
        self._started = time.monotonic()
        self._run = uuid.uuid4().hex[:12]
        self._path = path
        self.trouble: PipelineError | None = None  # a build does not fail for it half-way
        if path:
            self._descriptor = _open(Path(path))

    def emit(self, event: str, facts: Mapping[str, object]) -> None:
        """Add a line: what happened, when (seconds since 1970), and its facts."""
        if self._descriptor is None:
            return
        now = round(time.time(), 3)
        line = {"form": FORM, "run": self._run, "event": event, "time": now, **facts}
        try:
            os.write(self._descriptor, json.dumps(line, sort_keys=True).encode() + b"\n")
        except OSError as error:
            self._descriptor = None
            self.trouble = EnvironmentFault(
                f"events={self._path}: {error.strerror}; none were written from there on",
                hint="make room, or name another file",
            )

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return round(time.monotonic() - self._started, 3)


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o644)
        os.set_blocking(descriptor, True)  # a FIFO that nobody reads is refused, not waited for
        return descriptor
    except OSError as error:
        raise UsageError(
            f"events={path}: {error.strerror}",
            hint="name a file that may be written, in a folder that is there",
        ) from error
