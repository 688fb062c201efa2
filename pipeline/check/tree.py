"""A guest's files as they were read out of its image: paths, owners, modes, some contents."""

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

MOST_LINKS = 20
MOST_TEXT = 1 << 20


@dataclass(frozen=True)
class Node:
    """One file, folder or link; `content` is None where it was not read."""

    kind: str
    mode: int = 0o644
    owner: int = 0
    group: int = 0
    content: bytes | None = None
    target: str = ""

    @property
    def shown(self) -> str:
        """Mode and owner as the checks print them: `600 0:0`."""
        return f"{self.mode:o} {self.owner}:{self.group}"


@dataclass(frozen=True)
class Tree:
    """Absolute path to node, for the part of the image that was read.

    `oversized` are the files that were asked for and are longer than any such text is.
    """

    nodes: Mapping[str, Node]
    oversized: set[str] = field(default_factory=set, compare=False)

    def __contains__(self, path: str) -> bool:
        return path in self.nodes

    def has(self, path: str) -> bool:
        """Whether the path leads to something, links followed."""
        return self.resolve(path) in self.nodes

    def resolve(self, path: str) -> str:
        """Where a path leads when the links that were read are followed, inside the guest."""
        for _ in range(MOST_LINKS):
            found = self._first_link(path)
            if found is None:
                return path
            path = found
        return path

    def _first_link(self, path: str) -> str | None:
        parts = path.strip("/").split("/")
        for count in range(1, len(parts) + 1):
            head = "/" + "/".join(parts[:count])
            node = self.nodes.get(head)
            if node is not None and node.kind == "link" and node.target:
                target = posixpath.join(posixpath.dirname(head), node.target)
                return posixpath.normpath(posixpath.join(target, *parts[count:]))
        return None

    def target(self, path: str) -> str:
        """The target of a link as it is written; "" where there is no link."""
        node = self.nodes.get(path)
        return node.target if node is not None and node.kind == "link" else ""

    def shown(self, path: str) -> str:
        """Mode and owner of a path, or `missing`."""
        return self.nodes[path].shown if path in self.nodes else "missing"

    def text(self, path: str, *, limit: int = MOST_TEXT) -> str:
        """The content of a file, links followed; "" when there is none or it was not read."""
        node = self.nodes.get(self.resolve(path))
        if node is None or node.content is None:
            return ""
        if len(node.content) > limit:
            self.oversized.add(path)
            return ""
        return node.content.decode("utf-8", "surrogateescape")

    def content(self, path: str) -> bytes:
        """The bytes of a file, links followed; b"" when there are none."""
        node = self.nodes.get(self.resolve(path))
        return (node.content if node else None) or b""

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; a folder that is a link is followed."""
        start = self.resolve(folder).rstrip("/") + "/"
        return sorted(
            path.removeprefix(start)
            for path in self.nodes
            if path.startswith(start) and path != start and "/" not in path[len(start) :]
        )

    def glob(self, pattern: str) -> list[str]:
        """Paths like a pattern whose `*` stays within one name, sorted."""
        wanted = pattern.split("/")
        return sorted(path for path in self.nodes if _matches(path.split("/"), wanted))

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Every file whose content was read."""
        for path, node in self.nodes.items():
            if node.content is not None:
                yield path, node.content


def _matches(parts: list[str], wanted: list[str]) -> bool:
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
