"""GNU tar's command line that reads a whole root file system, and what it says meanwhile."""

import re
from collections.abc import Iterable, Sequence

from pipeline.walls.cage import TREE_FILE_KIB

# a tar that grows beyond what any cage may write ends
LIMIT = f"ulimit -f {TREE_FILE_KIB * 2} && "
CHANGED = 1  # its status where something changed while it was read
TOO_LONG = (153, 25 + 128, -25)  # ended by SIGXFSZ
STEP_MIB = 10
_STEP = 1024  # records of 10 KiB
_STEPPED = "tar: Write checkpoint "
_UNSTEADY = re.compile(
    r"tar: (.+): (?:[Ff]ile changed as we read it|File removed before we read it|"
    r"File shrank by \d+ bytes.*|Cannot stat: No such file or directory)"
)
MOST_TOLD = 50


def pack_words(
    tree: object, tar: object, *, below: Iterable[str] = (), without: Sequence[str] = ()
) -> list[object]:
    """Everything below a folder, of one file system, and of those mounted at `below` in it.

    `without` are absolute paths of the tree.
    """
    words: list[object] = ["tar", "--create", f"--file={tar}", f"--directory={tree}"]
    words += ["--one-file-system", "--format=posix", "--numeric-owner", "--sparse"]
    words += ["--xattrs", "--xattrs-include=*", "--acls", f"--checkpoint={_STEP}"]
    words += ["--anchored", "--no-wildcards", *(f"--exclude=.{path}" for path in without)]
    return [*words, ".", *(f".{point}" for point in below)]


def is_step(line: str) -> bool:
    """Whether a line says that STEP_MIB more were read."""
    return line.startswith(_STEPPED)


def find_unsteady(said: str) -> list[str]:
    """Paths of the tree that changed while they were read, in order, MOST_TOLD of them."""
    names = dict.fromkeys(
        match[1].removeprefix(".") for match in map(_UNSTEADY.match, said.splitlines()) if match
    )
    return sorted(names)[:MOST_TOLD]
