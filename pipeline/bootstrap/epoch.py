"""SOURCE_DATE_EPOCH of what is made of packages: when the newest of them was built.

It says nothing of the day on which the archive was asked, so the same packages give the same bytes
on any day. dpkg-deb(1) writes the time of a package's last changelog entry into its ar headers.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import PipelineError

EPOCH = "epoch"
# for what is made of no package; below a day, /etc/shadow would ask for a new password
_LEAST = 315_532_800  # 1980
_MOST = 2**31 - 1  # what an inode of 128 bytes holds
_FIRST_HEADER = slice(24, 36)  # of ar(5): its time
_TIME = re.compile(rb"[0-9]{1,12}")


def find_epoch(debs: Iterable[Path]) -> int:
    """The time of the newest of these packages, in seconds since 1970."""
    return min(_MOST, max((_read_time(deb) for deb in debs), default=_LEAST))


def _read_time(deb: Path) -> int:
    with open(deb, "rb") as stream:
        field = stream.read(_FIRST_HEADER.stop)[_FIRST_HEADER].rstrip()
    return max(_LEAST, int(field) if _TIME.fullmatch(field) else 0)


def write_epoch(folder: Path, epoch: int) -> None:
    """Note it in an artifact, for the stages after."""
    (folder / EPOCH).write_text(f"{epoch}\n")


def read_epoch(folder: Path) -> int:
    """What a stage has noted; PipelineError where that is no time."""
    text = (folder / EPOCH).read_text().strip()
    if not _TIME.fullmatch(text.encode()):
        raise PipelineError(f"{folder / EPOCH} holds no time", hint="remove that folder")
    return int(text)
