"""What the process inside the namespace is told: everything it needs, as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_FIRST = "base-files"


@dataclass(frozen=True)
class Deb:
    """A package to fetch, as the signed index has it: address, size in bytes, digest.

    `version` and `architecture` are those that its control file must have; `installed_kib` is its
    Installed-Size.
    """

    name: str
    url: str
    size: int
    sha256: str
    version: str = ""
    architecture: str = ""
    installed_kib: int | None = None


@dataclass(frozen=True, kw_only=True)
class Order:
    """One tree to make below `work`, packed into `tar`.

    `waves` are the packages in the order of configuring, first the essential ones with what they
    need; `automatic` are the packages that nobody asked for by name; `sources` are the lines of
    sources.list; `links` are the folders of / that become links into /usr before anything else;
    `delivery` is the descriptor that packages come through; `unwanted` are dpkg's rules for what is
    not unpacked and `unwanted_text` their file in the tree. Paths are absolute.
    """

    work: str
    tar: str
    delivery: int
    arch: str
    waves: tuple[tuple[Deb, ...], ...]
    automatic: tuple[str, ...]
    sources: tuple[str, ...]
    links: tuple[str, ...]
    unwanted: tuple[tuple[str, str], ...] = ()
    unwanted_text: str = ""


def read_order(table: dict[str, Any]) -> Order:
    """The order that a table holds."""
    table["waves"] = tuple(tuple(Deb(**deb) for deb in wave) for wave in table["waves"])
    lists = ("automatic", "sources", "links")
    table["unwanted"] = tuple((kind, pattern) for kind, pattern in table["unwanted"])
    return Order(**table | {key: tuple(table[key]) for key in lists})


def arrivals(waves: Sequence[Sequence[Deb]]) -> list[list[Deb]]:
    """Packages in the order in which they are fetched and awaited, the largest first.

    In three groups: the one with the links of /, where the suite ships them; the other essential
    ones; all others.
    """
    essential, *others = waves
    first = [deb for deb in essential if deb.name == _FIRST]
    rest = [deb for deb in essential if deb.name != _FIRST]
    groups = first, rest, [deb for wave in others for deb in wave]
    return [sorted(group, key=lambda deb: -deb.size) for group in groups]
