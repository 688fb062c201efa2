"""A file that a variable of the command line names, as junit=FILE: whole, or not there."""

import os
import stat
from pathlib import Path

from pipeline.errors import EnvironmentFault, UsageError


def prepare(path: Path, variable: str) -> None:
    """Remove the file of an earlier run. Raises UsageError for what cannot be written."""
    hint = "name a file that may be written, in a folder that is there"
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise UsageError(f"{variable}={path}: that is no plain file", hint=hint)
        path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"{variable}={path}: {error.strerror}", hint=hint) from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{variable}={path}: nothing can be written there", hint=hint)


def write(path: Path, content: bytes, variable: str) -> None:
    """Put it there by a rename. Raises EnvironmentFault."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.rename(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise EnvironmentFault(
            f"{variable}={path}: {error.strerror}", hint="make room, or name another file"
        ) from error
