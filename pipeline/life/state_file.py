"""Reading what a command of ours or an administrator left on this host, never more than it may be.

A file that is no plain file is refused without reading it (a FIFO would be waited for), one that is
too large, is not JSON or is not a table is one clear error, whatever is in it.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentFault, PipelineError

LIMIT = 4 << 20
MOVE_IT_AWAY = "move it away; what it named stays where it is"


class Damaged(PipelineError):
    """A file of ours that holds what we never wrote; nothing was changed because of it."""


def read_bytes(path: Path, *, limit: int = LIMIT, follow: bool = False) -> bytes:
    """A plain file of at most `limit` bytes; FileNotFoundError where there is none.

    Raises Damaged for anything else of that name, EnvironmentFault where it may not be read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        if path.is_symlink():
            raise Damaged(f"{path} is a link that leads nowhere", hint="move it away") from None
        raise
    except PermissionError as error:
        raise EnvironmentFault(f"{path} is not readable for this user", hint="as root") from error
    except OSError as error:  # a link, a socket, a device without a driver
        raise Damaged(f"{path} is no plain file ({error.strerror})", hint="move it away") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Damaged(f"{path} is no plain file", hint="move it away")
    with open(descriptor, "rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise Damaged(f"{path} is larger than {limit >> 10} KiB", hint="move it away")
    return content


def read_table(path: Path, what: str, *, limit: int = LIMIT) -> dict[str, Any]:
    """A JSON object; FileNotFoundError where there is no file, Damaged when it is not `what`."""
    try:
        table = json.loads(read_bytes(path, limit=limit))
    except (ValueError, RecursionError) as error:
        raise damaged(path, what, error) from error
    if not isinstance(table, dict):
        raise damaged(path, what, "no table")
    return table


def damaged(path: Path, what: str, why: object) -> Damaged:
    """The error for a file that is not what it should be."""
    text = str(why).partition("\n")[0][:200]
    return Damaged(f"{path} is not {what} ({text})", hint=MOVE_IT_AWAY)


def take(table: dict[str, Any], key: str, kind: type, *, default: object = None) -> Any:
    """A value of one type out of a table; ValueError where it is of another."""
    value = table.pop(key, default)
    if type(value) is not kind:  # bool is an int to isinstance
        raise ValueError(f"{key} is no {kind.__name__}")
    return value
