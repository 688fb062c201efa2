"""Source packages: found in the indexes that a snapshot's signed Release files vouch for.

Facts: deb-src-control(5), and the Debian repository format page (wiki: DebianRepository/Format).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pipeline.compression import SUFFIXES, unpack
from pipeline.errors import PipelineError, VerificationError
from pipeline.mirror.apt_sources import Source
from pipeline.mirror.index import MOST_INDEX_BYTES, index_urls
from pipeline.mirror.release import Release, parse_release
from pipeline.mirror.snapshot import Snapshot
from pipeline.mirror.stanzas import find_stanzas, read_fields
from pipeline.project import Cache
from pipeline.walls.package_names import require_version

MOST_SOURCE_BYTES = 1 << 30
_FILE = re.compile(r"([0-9a-f]{64}) ([0-9]{1,10}) ([A-Za-z0-9][A-Za-z0-9.+~_-]{0,200})")
_FOLDER = re.compile(r"(?!/)(?!(?:.*/)?\.\.(?:/|$))[A-Za-z0-9.+~_/-]{1,300}")


@dataclass(frozen=True)
class SourceFile:
    """One file of a source package: where it is and what it must be."""

    name: str
    url: str
    size: int
    sha256: str


@dataclass(frozen=True)
class SourcePackage:
    """A source package of one version."""

    name: str
    version: str
    files: tuple[SourceFile, ...]


def signed_release(snapshot: Snapshot, source: Source) -> Release:
    """What a source's Release says; its signature was checked when the snapshot was taken."""
    text = snapshot.signed_files(source)[0].read_text(errors="replace")
    _, mark, signed = text.partition("-----BEGIN PGP SIGNED MESSAGE-----")
    body = signed.partition("\n\n")[2].partition("-----BEGIN PGP SIGNATURE")[0]
    return parse_release(body if mark else text, (), where=source.suite)


def find_source(snapshot: Snapshot, name: str, *, cache: Cache) -> SourcePackage:
    """The newest version of it in all parts of the archive; raises PipelineError for none."""
    from pipeline.mirror.versions import is_newer

    every = [
        read_source(source.uri, stanza)
        for source in snapshot.sources
        for text in _indexes(snapshot, source, cache)
        for stanza in find_stanzas(text, name)
    ]
    if not every:
        raise PipelineError(
            f"source package {name}: not in {', '.join(one.suite for one in snapshot.sources)}",
            hint="choose a mirror that has sources (dists/SUITE/main/source), such as mirror=host",
        )
    newest = every[0]
    for package in every[1:]:
        newest = package if is_newer(package.version, newest.version) else newest
    return newest


def fetch_source(snapshot: Snapshot, package: SourcePackage, *, cache: Cache) -> Iterator[Path]:
    """Its files, verified, in the order of its index; they are kept by digest."""
    for file in package.files:
        kept = cache.debs / file.sha256
        yield snapshot.route.fetch(file.url, kept, size=file.size, sha256=file.sha256)


def _indexes(snapshot: Snapshot, source: Source, cache: Cache) -> Iterator[bytes]:
    release = signed_release(snapshot, source)
    for component in source.components:
        stem = f"{component}/source/Sources"
        end = next((end for end in (".xz", ".gz") if stem + end in release.files), "")
        if not end:
            continue
        entry = release.files[stem + end]
        kept = cache.indexes / f"{entry.sha256}{end}"
        # the archive may have moved on since: by its digest the index is there for some days
        url = next(iter(index_urls(source, release, entry)))
        path = snapshot.route.fetch(url, kept, size=entry.size, sha256=entry.sha256)
        try:
            yield unpack(path.read_bytes(), SUFFIXES[end], limit=MOST_INDEX_BYTES)
        except ValueError as error:
            raise VerificationError(f"{source.suite}, {stem}: {error}") from error


def read_source(root: str, stanza: bytes) -> SourcePackage:
    """A stanza of an index; VerificationError unless every field has the form that it must."""
    where = "an index of sources"
    try:
        fields = read_fields(stanza)
        folder = fields["directory"]
        matches = [_FILE.fullmatch(line) for line in fields["checksums-sha256"].split("\n") if line]
        require_version(fields["version"], where=where)
        if not matches or None in matches or not _FOLDER.fullmatch(folder):
            raise ValueError(f"{fields['package'][:80]}: its files")
        files = [
            SourceFile(match[3], f"{root}/{quote(f'{folder}/{match[3]}')}", int(match[2]), match[1])
            for match in matches
            if match
        ]
        if any(not 0 < file.size <= MOST_SOURCE_BYTES for file in files):
            raise ValueError(f"{fields['package'][:80]}: the size of its files")
    except (KeyError, ValueError, PipelineError) as error:
        raise VerificationError(f"{where}: {ascii(str(error))[:200]} makes no sense") from error
    return SourcePackage(fields["package"], fields["version"], tuple(files))
