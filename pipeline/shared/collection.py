"""What of a shared store may go: the least recently used, and what no statement names.

Times are the place's own: a file is written there first, and how old others are is seen by it. What
somebody builds, and what is younger than a grace time, stays: an upload may be under way.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.remote.place import MOST_SMALL, Listed, Place
from pipeline.shared import entry as entries
from pipeline.shared import lease, sealed_folder
from pipeline.shared.entry import MARKER
from pipeline.store.gc import Entry

CLOCK, USED = "clock", "used"
GRACE_S, _HOUR_S = 86400.0, 3600.0
_PASSING = (f"{lease.FOLDER}/", f"{sealed_folder.FOLDER}/")
_ENTRY = re.compile(r"([a-z][a-z0-9-]*/[0-9a-f]{32})/[^/]+")
_LEASE = re.compile(rf"{lease.FOLDER}/([a-z][a-z0-9-]*-[0-9a-f]{{32}})/[^/]+")


@dataclass(frozen=True)
class Inventory:
    """What is in a store: its entries with their files, and files that nobody will ask for."""

    entries: tuple[Entry, ...]
    files: Mapping[Path, Sequence[str]]
    litter: tuple[str, ...]


def take_inventory(place: Place, *, grace_s: float = GRACE_S) -> Inventory:
    """All that lies there. Raises UsageError for what is no store, PlaceTrouble."""
    try:
        place.read(MARKER, limit=MOST_SMALL)
    except FileNotFoundError as error:
        raise UsageError(
            f"{place.shown}: no shared store", hint="nothing was removed: is the URL right?"
        ) from error
    place.replace(CLOCK, b"")
    listing = place.list("")
    now = next(file.written_at for file in listing if file.name == CLOCK)
    old = {file.name for file in listing if now - file.written_at > grace_s}
    groups: dict[str, list[Listed]] = defaultdict(list)
    leased, litter = set(), [name for name in old if name.startswith(_PASSING)]
    for file in listing:
        if match := _LEASE.fullmatch(file.name):
            leased |= {match[1]} - ({match[1]} if file.name in old else set())
        elif match := _ENTRY.fullmatch(file.name):
            groups[match[1]].append(file)
    listed, files = [], {}
    for folder, group in groups.items():
        named, loose = _split(place, folder, group)
        litter += [name for name in loose if name in old]
        if named:
            used_at = max(file.written_at for file in named)
            why = "somebody builds it" if folder.replace("/", "-") in leased else ""
            why = "used within the hour" if now - used_at < min(grace_s, _HOUR_S) else why
            path, size = Path(folder), sum(file.size for file in named)
            files[path] = [file.name for file in named]
            listed.append(Entry(path, size, used_at, why))
    return Inventory(tuple(listed), files, tuple(sorted(litter)))


def _split(place: Place, folder: str, group: Iterable[Listed]) -> tuple[list[Listed], list[str]]:
    """The files that its statement names, itself first; the names of the others."""
    statement = f"{folder}/{entries.STATEMENT}"
    by_name = {file.name: file for file in group}
    if statement not in by_name:
        return [], list(by_name)
    named = [by_name.pop(statement)]
    with suppress(FileNotFoundError):  # somebody drops it at this moment
        upload = entries.read_upload(place.read(statement, limit=entries.MOST_STATEMENT))
        own = (f"{folder}/{USED}", f"{folder}/{upload}-")
        named += [by_name.pop(name) for name in sorted(by_name) if name.startswith(own)]
    return named, list(by_name)


def remove(place: Place, inventory: Inventory, doomed: Iterable[Entry]) -> Iterator[Entry]:
    """The litter, and each entry with its statement first; gives every entry that is gone."""
    for name in inventory.litter:
        place.remove(name)
    for entry in doomed:
        for name in inventory.files[entry.path]:
            place.remove(name)
        yield entry
