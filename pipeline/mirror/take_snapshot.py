"""Taking a suite's verified state from the first of several mirrors that shows it right."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.console.progress import print_line
from pipeline.errors import EnvironmentFault, PipelineError, UsageError, VerificationError
from pipeline.mirror.apt_sources import Source
from pipeline.mirror.credentials import Place, without_credentials
from pipeline.mirror.failover import combine
from pipeline.mirror.fetch import NotFound, fetch_bytes
from pipeline.mirror.index import copy_unpacked, fetch_index, unpack_index
from pipeline.mirror.mirrors import Archive
from pipeline.mirror.release import Release, read_release
from pipeline.mirror.rollback import Seen
from pipeline.mirror.snapshot import KEYRING, index_name
from pipeline.project import Cache

RACE_PAUSE_S = 2.0
Signed = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Verified:
    """A source whose Release was verified, and its indexes: (archive root, file in scratch)."""

    source: Source
    release: Release
    inrelease_sha256: str
    indexes: tuple[tuple[str, str], ...]


@dataclass
class Taking:
    """The folders that a snapshot is made in, and the mirrors that failed meanwhile.

    `earlier` holds the folders of earlier ones.
    """

    scratch: Path
    earlier: Path
    cache: Cache
    log: Path
    arch: str

    def __post_init__(self) -> None:
        self._left: set[str] = set()
        self._seen = Seen(self.cache.seen)

    def take(self, offers: Sequence[tuple[Archive, Source]]) -> Verified | None:
        """The state of one role from the best mirror that has it.

        None where every mirror answers that it has no such updates or security. Raises the trouble
        of the only mirror, or of all of them.
        """
        troubles: list[PipelineError] = []
        ordered = sorted(offers, key=lambda offer: offer[0].root in self._left)
        for archive, source in ordered:
            try:
                return self._take_here(archive, source)
            except (EnvironmentFault, UsageError):
                raise
            except PipelineError as error:
                troubles.append(error)
                if not isinstance(error, NotFound):
                    self._left.add(archive.root)
                if len(troubles) < len(ordered):
                    print_line(f"     {error.brief}; trying the next mirror")
        trouble = combine(troubles)
        if ordered[0][1].role == "main" or not isinstance(trouble, NotFound):
            raise trouble
        _say_without(ordered[0][1])
        return None

    def _take_here(self, archive: Archive, source: Source) -> Verified:
        """From one mirror.

        A mirror without by-hash that is updated meanwhile shows a Release and an index of different
        hours: if its InRelease has changed a moment later, that one is tried. A proxy's copy that
        is not right is dropped first.
        """
        content = self._fetch_signed(archive, source)
        try:
            return self._verify(archive, source, content)
        except (VerificationError, NotFound):
            for name in [*(name for name, _ in content), *self._index_names(source)]:
                Place(f"{source.uri}/dists/{source.suite}/{name}", archive.way).drop_copy()
            time.sleep(RACE_PAUSE_S)
            again = self._fetch_signed(archive, source)
            if again == content and not archive.way.cache:
                raise
            return self._verify(archive, source, again)

    def _index_names(self, source: Source) -> list[str]:
        ends = ("Packages.xz", "Packages.gz", "Packages")
        return [f"{one}/binary-{self.arch}/{end}" for one in source.components for end in ends]

    def _fetch_signed(self, archive: Archive, source: Source) -> Signed:
        """InRelease, or what archives had before it: Release and Release.gpg."""
        folder = f"{source.uri}/dists/{source.suite}"
        try:
            return self._fetch(archive, folder, "InRelease")
        except NotFound as absent:
            try:
                return self._fetch(archive, folder, "Release", "Release.gpg")
            except NotFound:
                raise absent from None

    def _fetch(self, archive: Archive, folder: str, *names: str) -> Signed:
        found = []
        for name in names:
            with open(self.log, "a") as log:
                log.write(f"fetching {without_credentials(f'{folder}/{name}')}\n")
            found.append((name, fetch_bytes(f"{folder}/{name}", way=archive.way)))
        return tuple(found)

    def _verify(self, archive: Archive, source: Source, content: Signed) -> Verified:
        paths = []
        for name in ("InRelease", "Release", "Release.gpg"):
            (self.scratch / _local_name(name, source)).unlink(missing_ok=True)
        for name, bytes_ in content:
            paths.append(self.scratch / _local_name(name, source))
            paths[-1].write_bytes(bytes_)
        where = without_credentials(f"{source.uri}/dists/{source.suite}/{content[0][0]}")
        release = read_release(
            paths[0],
            self.scratch / KEYRING,
            source.suite,
            where=where,
            terms=archive.terms,
            log=self.log,
        )
        self._seen.check(release, source.suite, source.uri, terms=archive.terms, where=where)
        indexes = tuple(self._place_indexes(archive, source, release))
        self._seen.note(release, source.suite, source.uri)
        digest = hashlib.sha256(content[0][1]).hexdigest()
        return Verified(source, release, digest, indexes)

    def _place_indexes(
        self, archive: Archive, source: Source, release: Release
    ) -> Iterator[tuple[str, str]]:
        cache = self.cache.indexes
        for component in source.components:
            path = fetch_index(source, release, component, self.arch, cache=cache, way=archive.way)
            if path is not None:
                name = index_name(source, component)
                target = self.scratch / name
                earlier = self.earlier.glob(f"*/{name}")
                if not copy_unpacked(earlier, target, release, component, self.arch):
                    unpack_index(path, target, release, component, self.arch)
                yield source.uri, name
            elif source.role == "main":
                raise PipelineError(
                    f"{without_credentials(source.uri)}: {source.suite} has no component "
                    f"'{component}' for {self.arch}",
                    hint="correct `components` or `arch`",
                )


def _local_name(name: str, source: Source) -> str:
    stem, dot, end = name.partition(".")
    return f"{stem}-{source.role}{dot}{end}"


def _say_without(source: Source) -> None:
    shown = without_credentials(source.uri)
    print_line(f"     {shown} has no {source.suite}: the guest is built without its {source.role}")
