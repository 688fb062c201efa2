"""What the process inside the namespace is told: everything it needs, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FAILURE = "failed: "
NOTE = "note: "
FAILURE_KEYS = ("brief", "details", "hint", "exit_code")


@dataclass(frozen=True)
class Deb:
    """A package to fetch: its name, address, size in bytes and digest."""

    name: str
    url: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Order:
    """One tree to make below `work`, packed into `tar`.

    `waves` are the packages in the order of configuring, first the essential ones with what they
    need; `automatic` are the packages that nobody asked for by name; `sources` are the lines of
    sources.list; `links` are the folders of / that become links into /usr before anything else;
    `route` is how packages are fetched, as Route.to_table has it;
    `unwanted` are dpkg's rules for what is not unpacked and `unwanted_text` their file in the tree;
    `epoch` is SOURCE_DATE_EPOCH in seconds since 1970. Paths are absolute.
    """

    work: str
    tar: str
    cache: str
    arch: str
    epoch: int
    waves: tuple[tuple[Deb, ...], ...]
    automatic: tuple[str, ...]
    sources: tuple[str, ...]
    links: tuple[str, ...]
    route: dict[str, Any]
    unwanted: tuple[tuple[str, str], ...] = ()
    unwanted_text: str = ""

    def write(self, path: Path) -> None:
        """Write it for `read_order`."""
        path.write_text(json.dumps(asdict(self), indent=1))


def read_order(path: Path) -> Order:
    """The order in a file."""
    table = json.loads(path.read_text())
    table["waves"] = tuple(tuple(Deb(**deb) for deb in wave) for wave in table["waves"])
    lists = ("automatic", "sources", "links")
    table["unwanted"] = tuple((kind, pattern) for kind, pattern in table["unwanted"])
    return Order(**table | {key: tuple(table[key]) for key in lists})
