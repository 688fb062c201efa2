"""What belongs together, apart from specs: what is published of an appliance, and installed."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.appliance.appliance_file import check_key
from pipeline.appliance.members import Appliance, name_guest
from pipeline.artifact.folder import Source
from pipeline.dom0.inventory import Membership
from pipeline.errors import WrongValueError
from pipeline.files import damaged, fingerprint, read_table, take
from pipeline.spec.values import check_guest_name
from pipeline.xen.values import check_interface

_WHAT = "what is published of an appliance"
FORM = 1


@dataclass(frozen=True)
class ManifestEntry:
    """A member: its guest, behind which guests it starts, when it is ready; its version, if any."""

    guest: str
    after: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    version: str = ""


@dataclass(frozen=True)
class Manifest:
    """The members in the order in which they start, and the private bridges by network."""

    appliance: str
    bridges: Mapping[str, str]
    members: tuple[ManifestEntry, ...]

    @property
    def guests(self) -> tuple[str, ...]:
        """The members' names."""
        return tuple(member.guest for member in self.members)

    @property
    def identity(self) -> str:
        """A digest of all of it."""
        return fingerprint(asdict(self))

    def membership_of(self, source: Source) -> Membership:
        """What the record of an installed member says."""
        member = next(member for member in self.members if member.guest == source.name)
        private = tuple(self.bridges.values())
        cards = [source.spec, *source.spec["interfaces"]]
        seen = [card for card in cards if card["bridge"] not in private]
        addresses = tuple(text.partition("/")[0] for card in seen for text in card["address"])
        return Membership(self.appliance, member.after, member.ready, addresses, private)

    def with_versions(self, versions: Mapping[str, str]) -> "Manifest":
        """The same, of published versions of its members, by guest."""
        members = (replace(each, version=versions[each.guest]) for each in self.members)
        return replace(self, members=tuple(members))

    def to_json(self) -> bytes:
        """The file."""
        return f"{json.dumps(self.as_json(), indent=1)}\n".encode()

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {"form": FORM, **asdict(self)}


def make_manifest(appliance: Appliance) -> Manifest:
    """What its file says, for those who do not have it."""
    name, file = appliance.name, appliance.file
    members = [
        ManifestEntry(
            name_guest(name, key),
            tuple(name_guest(name, other) for other in file.members[key].after),
            file.members[key].ready,
        )
        for key in appliance.start_order()
    ]
    return Manifest(name, appliance.bridges, tuple(members))


def read_manifest(path: Path) -> Manifest:
    """A file of `to_json`; Damaged for one that is none."""
    try:
        table = read_table(path, _WHAT)
        if take(table, "form", int) != FORM:
            raise ValueError("of a form that is not known here")
        bridges = take(table, "bridges", dict)
        return Manifest(
            check_key(take(table, "appliance", str)),
            {check_key(str(key)): check_interface(str(name)) for key, name in bridges.items()},
            tuple(_read_entry(entry) for entry in take(table, "members", list)),
        )
    except (ValueError, KeyError, TypeError, WrongValueError) as error:
        raise damaged(path, _WHAT, error) from error


def _read_entry(table: Any) -> ManifestEntry:
    return ManifestEntry(
        check_guest_name(take(table, "guest", str)),
        tuple(check_guest_name(str(name)) for name in take(table, "after", list)),
        tuple(map(str, take(table, "ready", list))),
        take(table, "version", str),
    )
