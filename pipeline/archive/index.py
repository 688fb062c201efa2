"""Package indexes: fetched by the digest that the signed Release gives, and searched."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.archive.release import IndexFile, Release
from pipeline.archive.sources import Source
from pipeline.archive.way import Way
from pipeline.errors import PipelineError
from pipeline.fetch import NotFound, fetch_file

_PLAIN = Way()
# the module that unpacks it, in the order of preference
_OPENERS = {".xz": "lzma", ".gz": "gzip", ".bz2": "bz2", "": ""}


@dataclass(frozen=True)
class Package:
    """One package of an index: where its .deb is and what it must be."""

    name: str
    version: str
    architecture: str
    url: str
    size: int
    sha256: str
    depends: str

    @property
    def file_name(self) -> str:
        """The .deb's own name."""
        return self.url.rpartition("/")[2]


def fetch_index(
    source: Source,
    release: Release,
    component: str,
    arch: str,
    *,
    cache: Path,
    way: Way = _PLAIN,
) -> Path | None:
    """The Packages file of one component, compressed as served, in `cache` by digest.

    None when the suite has no such component; raises PipelineError when it cannot be fetched.
    """
    stem = f"{component}/binary-{arch}/Packages"
    entry = next(
        (release.files[stem + end] for end in _OPENERS if stem + end in release.files), None
    )
    if entry is None:
        return None
    suffix = Path(entry.name).suffix
    target = cache / f"{entry.sha256}{suffix}"
    last: NotFound | None = None
    for url in _urls(source, release, entry):
        try:
            return fetch_file(url, target, size=entry.size, sha256=entry.sha256, way=way)
        except NotFound as error:
            last = error
    assert last is not None
    raise last


def _urls(source: Source, release: Release, entry: IndexFile) -> Iterable[str]:
    folder = f"{source.uri}/dists/{source.suite}"
    if release.has_by_hash:
        yield f"{folder}/{entry.name.rpartition('/')[0]}/by-hash/SHA256/{entry.sha256}"
    yield f"{folder}/{entry.name}"


def read_index(path: Path) -> bytes:
    """A Packages file's content, uncompressed."""
    packed = path.read_bytes()
    module = _OPENERS[path.suffix]
    return importlib.import_module(module).decompress(packed) if module else packed


class PackageIndex:
    """The packages of all indexes of a snapshot; each is (archive root, Packages file).

    Those of `spare` count only where a version is asked for by name: backports.
    """

    def __init__(
        self, files: Iterable[tuple[str, Path]], spare: Iterable[tuple[str, Path]] = ()
    ) -> None:
        self._files = list(files)
        self._spare = list(spare)
        self._texts: list[tuple[str, bytes]] = []

    def find(self, name: str, version: str = "") -> Package:
        """The newest (or exactly that) version of a package; raises PipelineError if absent."""
        from debian.debian_support import Version

        every = self._all(name)
        if version:
            every = [*every, *PackageIndex(self._spare)._all(name)]
        found = [package for package in every if version in ("", package.version)]
        if not found:
            others = sorted({package.version for package in every})
            known = f"it has {', '.join(others)}" if others else "no package of that name"
            wanted = f"{name}={version}" if version else name
            raise PipelineError(
                f"package {wanted}: not in this suite and its components ({known})",
                hint="check the name, `components`, and that the mirror has updates and security",
            )
        return max(found, key=lambda package: Version(package.version))

    def has(self, name: str) -> bool:
        """Whether there is any version of a package."""
        return bool(self._all(name))

    def _all(self, name: str) -> list[Package]:
        found = []
        for root, text in self._read():
            at = -1
            sign = f"\nPackage: {name}\n".encode()
            while (at := text.find(sign, at + 1)) >= 0:
                end = text.find(b"\n\n", at + 1)
                stanza = text[at + 1 : end if end >= 0 else len(text)]
                found.append(_package(root, stanza.decode("utf-8", "replace")))
        return found

    def _read(self) -> list[tuple[str, bytes]]:
        """The indexes, each with a line before its first stanza; bytes, for they are only searched.

        Decoding Debian's and a regular expression over it took longer than unpacking a kernel.
        """
        if not self._texts:
            self._texts = [(root, b"\n" + read_index(path)) for root, path in self._files]
        return self._texts


def _package(root: str, stanza: str) -> Package:
    from debian.deb822 import Deb822

    fields = Deb822(stanza)
    return Package(
        name=fields["Package"],
        version=fields["Version"],
        architecture=fields["Architecture"],
        url=f"{root}/{fields['Filename']}",
        size=int(fields["Size"]),
        sha256=fields["SHA256"],
        depends=fields.get("Depends", ""),
    )
