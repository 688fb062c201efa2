"""What report.json holds: one night, its guests, and what changed in each.

docs/reference/night-report.schema.json is made of these classes. Sizes are in bytes, times in
seconds, points in time in seconds since 1970; "" and None stand for what is not known.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter

from pipeline.report.outcome import Verdict
from pipeline.spec.schema import refresh_documents

FORM = 1
Metric = Literal["boot_s", "build_s", "image_bytes"]
PackageKind = Literal["upgraded", "rebuilt", "added", "removed", "downgraded"]
FileKind = Literal["changed", "added", "removed"]


@dataclass(frozen=True)
class Entry:
    """One entry of a changelog, newest first among its like."""

    version: str
    distributions: str
    urgency: str
    date: str
    text: str
    cves: tuple[str, ...] = ()


@dataclass(frozen=True)
class PackageChange:
    """What happened to the packages of one source.

    `before` and `after` are versions of `packages`; `added` and `removed` are further packages of
    that source. `entries` are those of the changelog after `before`; `note` says why there are
    none, or that some were left out. `rebuilt`: the same source, built again by the archive.
    """

    kind: PackageKind
    source: str
    packages: tuple[str, ...]
    before: str = ""
    after: str = ""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    cves: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class FileChange:
    """One file or link that is not what it was; `owner` is its package, "" for none."""

    path: str
    kind: FileKind
    owner: str
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class FileGroup:
    """How many files of one package changed, and by how many bytes all of them grew."""

    owner: str
    added: int
    removed: int
    changed: int
    growth_bytes: int


@dataclass(frozen=True)
class FileChanges:
    """The two disks, file by file; `listed` has a bound, the numbers do not.

    `note` says why they were not compared.
    """

    added: int = 0
    removed: int = 0
    changed: int = 0
    groups: tuple[FileGroup, ...] = ()
    listed: tuple[FileChange, ...] = ()
    note: str = ""

    @property
    def count(self) -> int:
        return self.added + self.removed + self.changed


@dataclass(frozen=True)
class PackageSize:
    """Bytes of a package's regular files on the disk; `change` is "" where it is as it was."""

    name: str
    size_bytes: int
    change: Literal["", "changed", "added"] = ""


@dataclass(frozen=True)
class Outlier:
    """A measure that is far from those of the nights before."""

    metric: Metric
    value: float
    median: float
    nights: int


@dataclass(frozen=True)
class Proof:
    """The boot under Xen, in numbers: checks that held, failed and could not be asked."""

    verdict: str
    reason: str = ""
    held: int = 0
    failed: tuple[str, ...] = ()
    unasked: int = 0


@dataclass(frozen=True)
class Vulnerability:
    """What the security tracker knows against packages of the version that nightly leads to."""

    cve: str
    text: str
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Scan:
    """All that it knows, the worst first; `note` says why nobody asked. `listed` has a bound."""

    count: int = 0
    listed: tuple[Vulnerability, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Failure:
    """Why there is no new version; `log` is relative to the page, `console` its last lines."""

    stage: str
    brief: str
    hint: str = ""
    details: str = ""
    log: str = ""
    causes: tuple[str, ...] = ()
    console: str = ""


@dataclass(frozen=True)
class GuestReport:
    """One guest's night.

    For one that failed, what changed is what was built against the version that stays.
    `bytes_before` is what the disks of the version before take. `cves` are those that tonight's
    changelogs name, `pending_cves` those that separate the channel stable from nightly, as far as
    the reports say. `links` are files of its version, by what they are, relative to the page.
    """

    guest: str
    verdict: Verdict
    version: str = ""
    before: str = ""
    channels: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[Metric, float] = field(default_factory=dict)
    bytes_before: int = 0
    outliers: tuple[Outlier, ...] = ()
    failure: Failure | None = None
    proof: Proof | None = None
    package_count: int = 0
    packages: tuple[PackageChange, ...] = ()
    cves: tuple[str, ...] = ()
    pending_cves: tuple[str, ...] = ()
    files: FileChanges = FileChanges()
    sizes: tuple[PackageSize, ...] = ()
    scan: Scan | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What a person has to decide or look at, the most urgent first; `command` is what to type."""

    level: Literal["error", "warning", "notice"]
    guest: str
    text: str
    command: str = ""


@dataclass(frozen=True)
class NightReport:
    """The whole night, as report.json."""

    name: str
    began_at: float
    ended_at: float
    host: str
    is_complete: bool
    decisions: tuple[Decision, ...]
    guests: tuple[GuestReport, ...]
    mirrors: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    form: int = FORM


def documents() -> dict[str, str]:
    """The schema of report.json (JSON Schema 2020-12), by its name in docs/."""
    schema = TypeAdapter(NightReport).json_schema(mode="serialization")
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return {"reference/night-report.schema.json": json.dumps(whole, indent=1) + "\n"}


if __name__ == "__main__":
    sys.exit(refresh_documents(documents(), sys.argv[1:]))
