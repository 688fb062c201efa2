"""Package indexes: fetched by the digest that the signed Release gives, and searched.

Signed does not mean well made: what a stanza says is looked at before it names a file or a URL.
"""

import re
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pipeline.compression import SUFFIXES, unpack
from pipeline.errors import PipelineError, VerificationError, suggest_nearest
from pipeline.files import digest_file
from pipeline.mirror.apt_sources import Source
from pipeline.mirror.credentials import Way, without_credentials
from pipeline.mirror.fetch import NotFound, fetch_file
from pipeline.mirror.release import IndexFile, Release
from pipeline.mirror.stanzas import find_lines, find_stanzas, read_fields
from pipeline.walls.package_names import (
    require_architecture,
    require_package,
    require_sha256,
    require_version,
)

_PLAIN = Way()
# how it may be packed, in the order of preference
_ENDS = (".xz", ".gz", ".bz2", "")
# Debian's largest has 50 MiB, Ubuntu's 70
MOST_INDEX_BYTES = 512 << 20
MOST_PACKAGE_BYTES = 16 << 30
_FILENAME = re.compile(r"(?!/)(?!(?:.*/)?\.\.(?:/|$))[^\x00-\x1f\x7f-\x9f\ufffd]{1,1000}")
_SIZE = re.compile(r"[0-9]{1,11}")
_TELL = "the archive signs what cannot be used: tell its owner, or choose another mirror="


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
        return self.url.rpartition("/")[2]


def fetch_index(
    source: Source, release: Release, component: str, arch: str, *, cache: Path, way: Way = _PLAIN
) -> Path | None:
    """The Packages file of one component, compressed as served, in `cache` by digest.

    None when the suite has no such component; raises PipelineError when it cannot be fetched.
    """
    stem = f"{component}/binary-{arch}/Packages"
    entry = next((release.files[stem + end] for end in _ENDS if stem + end in release.files), None)
    if entry is None:
        return None
    suffix = Path(entry.name).suffix
    target = cache / f"{entry.sha256}{suffix}"
    last: NotFound | None = None
    for url in index_urls(source, release, entry):
        try:
            return fetch_file(url, target, size=entry.size, sha256=entry.sha256, way=way)
        except NotFound as error:
            last = error
    assert last is not None
    raise last


def index_urls(source: Source, release: Release, entry: IndexFile) -> Iterable[str]:
    """Where an index is: by its digest, where the archive has that, and by its name."""
    folder = f"{source.uri}/dists/{source.suite}"
    if release.has_by_hash:
        yield f"{folder}/{entry.name.rpartition('/')[0]}/by-hash/SHA256/{entry.sha256}"
    yield f"{folder}/{entry.name}"


def unpack_index(path: Path, target: Path, release: Release, component: str, arch: str) -> None:
    """Write a fetched Packages file uncompressed, no longer than its Release says it is.

    Raises VerificationError for one that is longer, that needs too much memory, or is damaged.
    """
    plain = release.files.get(f"{component}/binary-{arch}/Packages")
    limit = min(plain.size if plain else MOST_INDEX_BYTES, MOST_INDEX_BYTES)
    where = f"{release.codename or release.suite}, the index of {component}"
    try:
        plain_text = unpack(path.read_bytes(), SUFFIXES[path.suffix], limit=limit)
    except ValueError as error:
        raise VerificationError(f"{where}: cannot be unpacked ({error})", hint=_TELL) from error
    target.write_bytes(plain_text)


def copy_unpacked(
    earlier: Iterable[Path], target: Path, release: Release, component: str, arch: str
) -> bool:
    """Write an index from one that was unpacked before; False where none has its very bytes.

    Of an archive's parts one moves at a time, and unpacking the largest takes a second.
    """
    plain = release.files.get(f"{component}/binary-{arch}/Packages")
    if plain is None:
        return False
    for path in earlier:
        try:
            if path.stat().st_size == plain.size:
                shutil.copyfile(path, target)
                if digest_file(target) == plain.sha256:
                    return True
        except OSError:  # another run has just published a newer state
            continue
    target.unlink(missing_ok=True)
    return False


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

    def knows(self, name: str) -> bool:
        """Whether apt could install something of that name: a package, or one that provides it."""
        provided = re.compile(rb"(?:^|[ ,])" + re.escape(name.encode()) + rb"(?:[ ,(:]|$)")
        texts = [text for _, text in (*self._read(), *PackageIndex(self._spare)._read())]
        return any(next(find_stanzas(text, name), None) for text in texts) or any(
            provided.search(line) for text in texts for _, line in find_lines(text, b"Provides: ")
        )

    def suggest(self, name: str) -> str:
        """`did you mean 'less'?`, or nothing."""
        names = re.compile(rb"^Package: (" + re.escape(name[:2].encode()) + rb".*)$", re.MULTILINE)
        known = {match.decode() for _, text in self._read() for match in names.findall(text)}
        return suggest_nearest(name, sorted(known))

    def _all(self, name: str) -> list[Package]:
        return [
            read_package(root, stanza)
            for root, text in self._read()
            for stanza in find_stanzas(text, name)
        ]

    def _read(self) -> list[tuple[str, bytes]]:
        if not self._texts:
            self._texts = [(root, path.read_bytes()) for root, path in self._files]
        return self._texts


def read_package(root: str, stanza: bytes) -> Package:
    """A stanza of an index; VerificationError unless every field has the form that it must."""
    where = f"the index of {without_credentials(root)}"
    try:
        fields = defaultdict(str, read_fields(stanza))
    except ValueError as error:
        reason = ascii(str(error))
        raise VerificationError(f"{where}: not a stanza ({reason})", hint=_TELL) from None
    where = f"{where}, package {fields['package'][:100] or '?'}"
    try:
        require_package(fields["package"], where=where)
        require_version(fields["version"], where=where)
        require_architecture(fields["architecture"], where=where)
        require_sha256(fields["sha256"], where=f"{where}: SHA256")
        if not _FILENAME.fullmatch(fields["filename"]):
            raise PipelineError(f"{where}: {ascii(fields['filename'][:80])} is no Filename")
        if not _SIZE.fullmatch(fields["size"]) or not 0 < int(fields["size"]) <= MOST_PACKAGE_BYTES:
            raise PipelineError(f"{where}: {ascii(fields['size'][:80])} is no Size")
    except PipelineError as error:
        raise VerificationError(error.brief, hint=_TELL) from error
    return Package(
        name=fields["package"],
        version=fields["version"],
        architecture=fields["architecture"],
        url=f"{root}/{quote(fields['filename'], safe='/+~:=,@')}",
        size=int(fields["size"]),
        sha256=fields["sha256"],
        depends=fields["depends"],
    )
