"""Channels: the names under which a guest's versions are followed, and what no link says of them.

output/published/NAME/current         the channel `nightly`: what was published last
output/published/NAME/stable          the channel `stable`: what has been good for some nights
output/published/NAME/channels.json   what was rolled back; where `nightly` stood after good nights
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

from pipeline.files import damaged, read_table, sync_folder, write_durably
from pipeline.interruption import gate, passing

Channel = Literal["nightly", "stable"]
NIGHTLY: Channel = "nightly"
STABLE: Channel = "stable"
LINKS: Mapping[Channel, str] = {NIGHTLY: "current", STABLE: "stable"}
NOTES = "channels.json"
_WHAT = "a record of channels"
_MOST_NIGHTS = 400


@dataclass(frozen=True)
class Notes:
    """Of one guest: `withdrawn` are (channel, version) that were rolled back.

    `nights` are (night, version): where `nightly` stood after each good night, the newest last.
    """

    withdrawn: tuple[tuple[str, str], ...] = ()
    nights: tuple[tuple[str, str], ...] = ()

    def withdraw(self, channel: Channel, version: str) -> Self:
        """With one more that its channel does not go to by itself any more."""
        return replace(
            self, withdrawn=(*self.restore(channel, version).withdrawn, (channel, version))
        )

    def restore(self, channel: Channel, version: str) -> Self:
        """With one less."""
        kept = tuple(entry for entry in self.withdrawn if entry != (channel, version))
        return replace(self, withdrawn=kept)

    def is_withdrawn(self, channel: Channel, version: str) -> bool:
        """Whether it was rolled back; what `nightly` took back, `stable` does not take either."""
        return bool({(channel, version), (NIGHTLY, version)} & set(self.withdrawn))

    def add_night(self, night: str, version: str) -> Self:
        """With one more good night; the same night twice is one."""
        others = [entry for entry in self.nights if entry[0] != night]
        return replace(self, nights=(*others[-_MOST_NIGHTS + 1 :], (night, version)))

    def ages(self) -> dict[str, int]:
        """Versions that were in `nightly`, the oldest first, with the good nights since then."""
        first: dict[str, int] = {}
        for number, (_night, version) in enumerate(self.nights):
            first.setdefault(version, number)
        return {version: len(self.nights) - number for version, number in first.items()}


def read_notes(root: Path) -> Notes:
    """The notes of a guest's published folder; Damaged when they are none."""
    path = root / NOTES
    try:
        table = read_table(path, _WHAT)
        return Notes(_read_pairs(table["withdrawn"]), _read_pairs(table["nights"]))
    except FileNotFoundError:
        return Notes()
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, _WHAT, error) from error


def _read_pairs(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return tuple((str(first), str(second)) for first, second in value)


def write_notes(root: Path, notes: Notes) -> None:
    """Write them down where they changed."""
    if notes != read_notes(root):
        table = {"form": 1, "withdrawn": notes.withdrawn, "nights": notes.nights}
        write_durably(root / NOTES, f"{json.dumps(table, indent=1)}\n".encode())
        sync_folder(root)


def read_link(root: Path, channel: Channel) -> str:
    """The name of the version that a channel leads to, "" for none."""
    link = root / LINKS[channel]
    return os.readlink(link) if link.is_symlink() else ""


def point_link(root: Path, channel: Channel, version: str) -> None:
    """Switch a channel's link, by one rename."""
    link = root / LINKS[channel]
    aside = root / f".{link.name}.{os.getpid()}"
    aside.unlink(missing_ok=True)
    with passing(aside), gate("point", link):
        aside.symlink_to(version)
        os.replace(aside, link)
    sync_folder(root)
