"""A mirror at one time: the verified Release files and package indexes that a build uses."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.mirror.apt_sources import Source
from pipeline.mirror.failover import Mirror, Route
from pipeline.mirror.index import PackageIndex

SNAPSHOT = "snapshot.json"
KEYRING = "keyring.gpg"


@dataclass(frozen=True)
class Snapshot:
    """What the mirror stage left: read with `read_snapshot`.

    `epoch` is the newest Release date in seconds since 1970: SOURCE_DATE_EPOCH of what is made of
    it, where its packages do not say (bootstrap/epoch.py).
    """

    folder: Path
    sources: tuple[Source, ...]
    digests: dict[str, str]
    epoch: int
    identity: str
    index_files: tuple[tuple[str, str], ...]
    mirrors: tuple[Mirror, ...] = ()

    @property
    def route(self) -> Route:
        """How its packages are fetched: from the mirrors that it knows, one after the other."""
        return Route({source.role: source.uri for source in self.sources}, self.mirrors)

    @property
    def keyring(self) -> Path:
        return self.folder / KEYRING

    @property
    def packages(self) -> PackageIndex:
        """The packages of all its indexes."""
        files = [(root, self.folder / name) for root, name in self.index_files]
        spare = [one for one in files if one[1].name.startswith("Packages-backports-")]
        return PackageIndex([one for one in files if one not in spare], spare)

    def signed_files(self, source: Source) -> tuple[Path, ...]:
        """What was verified of a source: InRelease, or Release and Release.gpg."""
        whole = self.folder / f"InRelease-{source.role}"
        if whole.is_file():
            return (whole,)
        apart = self.folder / f"Release-{source.role}"
        return apart, apart.with_name(f"{apart.name}.gpg")


def index_name(source: Source, component: str) -> str:
    """The name of a component's uncompressed Packages file in the snapshot's folder."""
    return f"Packages-{source.role}-{component.replace('/', '-')}"


def read_snapshot(folder: Path) -> Snapshot:
    """The snapshot in a mirror artifact's folder."""
    table: dict[str, Any] = json.loads((folder / SNAPSHOT).read_bytes())
    sources = tuple(
        Source(entry["uri"], entry["suite"], tuple(entry["components"]), entry["role"])
        for entry in table["sources"]
    )
    return Snapshot(
        folder=folder,
        sources=sources,
        digests={entry["suite"]: entry["inrelease_sha256"] for entry in table["sources"]},
        epoch=int(table["epoch"]),
        identity=table["identity"],
        index_files=tuple((root, name) for root, name in table["indexes"]),
        mirrors=tuple(Mirror.from_table(entry) for entry in table.get("mirrors", ())),
    )
