"""Files that a person names: only what is a file is opened, and only so much of it is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pipeline.errors import UsageError

TEXT_BYTES = 1 << 20
# apt's configuration, sources.list, PATH, and the shells of diskimage-builder take these apart
UNUSABLE = frozenset("'\"\\`$*?,:;&|<>()[]{}")
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def read_named_text(path: Path, *, most: int = TEXT_BYTES) -> str:
    """A UTF-8 text of at most `most` bytes; raises UsageError for everything else."""
    try:
        require_file(path, os.stat(path))
        # what has become a FIFO meanwhile does not hold us up
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb") as stream:
            require_file(path, os.fstat(descriptor))
            content = stream.read(most + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    if len(content) > most:
        raise UsageError(
            f"{path}: longer than {most >> 10} KiB", hint="name a text that a person wrote"
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a UTF-8 text") from error


def find_unusable(path: str) -> str:
    """What a path of a build may not hold, in words, or nothing."""
    for letter in path:
        if letter.isspace():
            return "white space"
        if letter in UNUSABLE or not letter.isprintable():
            return ascii(letter) if letter != "'" else "a quote"
    return ""


def require_file(path: Path, status: os.stat_result) -> None:
    """Raises UsageError for what is no regular file."""
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise UsageError(f"{path}: this is {kind}, not a file")
