"""The way of a package: the mirrors of a snapshot one after the other, until one has it right.

A mirror that fails is left for the next one and asked again only when the others fail too: a
hundred packages must not wait for the same dead mirror a hundred times.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.console.progress import print_line
from pipeline.errors import EnvironmentFault, PipelineError, VerificationError
from pipeline.mirror.credentials import Place, Way, without_credentials
from pipeline.mirror.fetch import NotFound, fetch_file


@dataclass(frozen=True)
class Mirror:
    """One mirror of a snapshot: the archive root of each role, and the way to it."""

    pairs: tuple[tuple[str, str], ...]
    way: Way = Way()

    @property
    def roots(self) -> dict[str, str]:
        """Role -> archive root."""
        return dict(self.pairs)

    def to_table(self) -> dict[str, Any]:
        """For snapshot.json."""
        return {"roots": self.roots, "way": asdict(self.way)}

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """From snapshot.json."""
        return cls(tuple(table["roots"].items()), Way(**table["way"]))


class Route:
    """Fetches what the archive roots in `roots` (role -> URL) vouch for, from any of the mirrors.

    Safe to use from several threads.
    """

    def __init__(
        self,
        roots: Mapping[str, str],
        mirrors: Sequence[Mirror] = (),
        *,
        say: Callable[[str], object] = print_line,
    ) -> None:
        self._roots = dict(roots)
        self._mirrors = tuple(mirrors)
        self._say = say
        self._left: dict[Mirror | None, str] = {}
        self._lock = threading.Lock()

    def to_table(self) -> dict[str, Any]:
        """For a process of our own that fetches too."""
        return {"roots": self._roots, "mirrors": [one.to_table() for one in self._mirrors]}

    @classmethod
    def from_table(cls, table: Mapping[str, Any], *, say: Callable[[str], object]) -> Self:
        """What `to_table` wrote."""
        mirrors = [Mirror.from_table(one) for one in table["mirrors"]]
        return cls(table["roots"], mirrors, say=say)

    def fetch(self, url: str, target: Path, *, size: int, sha256: str) -> Path:
        """The file in `target`, verified; raises PipelineError when no mirror has it right."""
        troubles: list[PipelineError] = []
        for mirror, place in self._candidates(url):
            try:
                return self._fetch_here(place, target, size=size, sha256=sha256)
            except EnvironmentFault:
                raise
            except PipelineError as error:
                troubles.append(error)
                self._leave(mirror, error)
        raise combine(troubles)

    def places(self, url: str) -> list[Place]:
        """Where a URL's file can be fetched now, the best place first."""
        return [place for _, place in self._candidates(url)]

    def _fetch_here(self, place: Place, target: Path, *, size: int, sha256: str) -> Path:
        try:
            return fetch_file(place.url, target, size=size, sha256=sha256, way=place.way)
        except VerificationError:
            # a cache in between may hold a damaged copy: it forgets it, and is asked once more
            if not place.drop_copy():
                raise
            self._say(f"     {place.url}: the proxy's copy was damaged and is dropped")
        try:
            return fetch_file(place.url, target, size=size, sha256=sha256, way=place.way)
        except VerificationError as error:
            error.hint = (
                "the proxy's copy was dropped and fetched anew, so it is not to blame: the mirror "
                "behind it (upstream of mirrors/proxy.toml) serves wrong bytes, choose another"
            )
            raise

    def _candidates(self, url: str) -> list[tuple[Mirror | None, Place]]:
        role = next((role for role, root in self._roots.items() if url.startswith(f"{root}/")), "")
        rest = url.removeprefix(self._roots.get(role, ""))
        found: list[tuple[Mirror | None, Place]] = [
            (mirror, Place(f"{mirror.roots[role]}{rest}", mirror.way))
            for mirror in self._mirrors
            if role in mirror.roots
        ]
        with self._lock:
            left = dict(self._left)
        return sorted(found or [(None, Place(url))], key=lambda one: one[0] in left)

    def _leave(self, mirror: Mirror | None, error: PipelineError) -> None:
        """Ask this mirror last from now on; a missing file alone is no reason."""
        if isinstance(error, NotFound) or mirror is None or len(self._mirrors) < 2:
            return
        with self._lock:
            is_new = mirror not in self._left
            self._left[mirror] = error.brief
        if is_new:
            self._say(f"     {error.brief}; going on with the next mirror")


def combine(troubles: Sequence[PipelineError]) -> PipelineError:
    """One error for what several mirrors said: the first one's words, the others as details."""
    if len(troubles) == 1:
        return troubles[0]
    kinds = [type(error) for error in troubles]
    kind = VerificationError if VerificationError in kinds else PipelineError
    if set(kinds) == {NotFound}:
        kind = NotFound
    return kind(
        f"none of {len(troubles)} mirrors serves it: {troubles[0].brief}",
        details="\n".join(without_credentials(error.brief) for error in troubles),
        hint=troubles[0].hint,
    )
