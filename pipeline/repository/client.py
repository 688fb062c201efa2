"""A repository as a host trusts it: what it has seen there once is never less the next time.

The first look needs the root of trust, keys/root.json of who publishes, by another way than the
repository itself. From then on its state is kept in this host's folder: the keys, which change by
signed steps only, and the newest metadata, which nobody can take back.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from pipeline.artifact.block_stream import read_stream
from pipeline.artifact.sums import measure_file
from pipeline.console.progress import print_line
from pipeline.errors import PipelineError, UsageError, VerificationError, suggest_nearest
from pipeline.files import digest_file, read_bytes
from pipeline.interruption import gate
from pipeline.locks import locked
from pipeline.mirror.fetch import NotFound, fetch_bytes
from pipeline.mirror.trouble import MirrorTrouble, TooSlow
from pipeline.repository import catalog
from pipeline.repository.catalog import GuestEntry, Image, Index, Manifest
from pipeline.repository.download import download
from pipeline.scratch import remove_tree

_MOST_METADATA = 5 << 20
_MOST_LISTED = 16 << 20
_REFUSALS: tuple[tuple[type[Exception], str, str], ...] = (
    (
        ExpiredMetadataError,
        "its signatures have expired: what it shows may be long out of date",
        "its owner renews them with doit keys sign=yes; is this machine's clock right?",
    ),
    (
        BadVersionNumberError,
        "it shows an older state than this host has seen there",
        "somebody goes back to what had faults, or shows parts of different states; tell its owner",
    ),
    (
        UnsignedMetadataError,
        "it is not signed by the keys that this host trusts",
        "did its owner change them? root=FILE takes a new root of trust from him",
    ),
    (
        LengthOrHashMismatchError,
        "its parts do not belong together",
        "it may be half copied: again in a while; then tell its owner",
    ),
    (
        DownloadLengthMismatchError,
        "it sends more than it may",
        "nothing of it was used; tell its owner",
    ),
)


class _Fetcher(FetcherInterface):
    """tuf's way to metadata, by our own HTTP client."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            return iter([fetch_bytes(url, limit=_MOST_METADATA)])
        except NotFound as error:
            raise DownloadHTTPError(error.brief, 404) from error


class Repository:
    """What a URL serves, as it was signed. Make one with `opened`.

    `fetched` counts the bytes of its files that came over the wire.
    """

    def __init__(self, url: str, updater: Updater, index: Index) -> None:
        self.url = url
        self._updater = updater
        self.index = index
        self.fetched = 0

    def guest(self, name: str) -> GuestEntry:
        """What it has of a guest; raises UsageError."""
        if name not in self.index.guests:
            known = sorted(self.index.guests)
            hints = [suggest_nearest(name, known), f"there are: {', '.join(known) or 'none'}"]
            raise UsageError(f"{self.url} has no {name}", hint="; ".join(filter(None, hints)))
        return self.index.guests[name]

    def version(self, name: str, channel: str) -> str:
        """Where a channel of a guest leads; raises UsageError."""
        channels = self.guest(name).channels
        if channel not in channels:
            raise UsageError(
                f"{self.url}: {name} has no channel {channel}",
                hint=f"channel={' or '.join(sorted(channels)) or '... none leads anywhere yet'}",
            )
        return channels[channel]

    def manifest(self, name: str, version: str) -> Manifest:
        """What a version is made of."""
        path = catalog.manifest_path(name, version)
        manifest = catalog.read(Manifest, _read(self._updater, self.url, path), source=path)
        if (manifest.guest, manifest.version) != (name, version):
            raise VerificationError(f"{self.url}: {path} is of {manifest.guest} {manifest.version}")
        return manifest

    def file(self, digest: str, folder: Path) -> Path:
        """A small file of a version, in a folder of those that are kept."""
        path = catalog.file_path(digest)
        sha256 = path.rpartition("/")[2]
        target = folder / sha256
        if target.is_file() and not target.is_symlink() and digest_file(target) == sha256:
            return target
        return self._download(path, target, "kernel and descriptions")

    def image(self, image: Image, folder: Path) -> Path:
        """A golden image in a folder of those that are kept: that one, made from another, or new.

        What is made is measured: a kept image that somebody has written to does no harm.
        """
        target = folder / _name(image.digest)
        if target.is_file() and not target.is_symlink() and measure_file(target) == image.digest:
            return target
        for older in sorted(image.deltas, key=lambda digest: image.deltas[digest]):
            kept = folder / _name(older)
            if kept.is_file() and not kept.is_symlink():
                packed = self._download(
                    catalog.delta_path(image.digest, older), folder / ".delta", "what has changed"
                )
                if _unpack(packed, target, image, older=kept):
                    return target
                print_line(f"  {kept} is not what was fetched: all of the image is fetched")
        packed = self._download(catalog.image_path(image.digest), folder / ".image", "the image")
        if not _unpack(packed, target, image):
            raise VerificationError(f"{self.url}: its image is not what its manifest says")
        return target

    def _download(self, path: str, target: Path, what: str) -> Path:
        info = _find(self._updater, self.url, path)
        place = f"{self.url}/targets/{info.get_prefixed_paths()[0]}"
        with _explained(self.url):
            size, sha256 = info.length, info.hashes["sha256"]
            self.fetched += download(place, target, size=size, sha256=sha256, what=what)
        return target


@contextmanager
def opened(url: str, states: Path, scratch: Path, *, root: Path | None) -> Iterator[Repository]:
    """A repository whose metadata were fetched and are good; `states` holds what hosts have seen.

    `root` is the file with the root of trust, needed for the first look. A user who may not write
    to `states` looks with a copy in `scratch`. Raises VerificationError for anything that is
    signed wrongly, too old, or not signed.
    """
    url = url.rstrip("/")
    folder = states / hashlib.sha256(url.encode()).hexdigest()[:16]
    bootstrap = read_bytes(root, limit=_MOST_METADATA, follow=True) if root else None
    if bootstrap is None and not (folder / "root.json").exists():
        raise UsageError(
            f"{url}: this host does not know whom to trust there",
            hint="root=FILE with keys/root.json of who publishes, once; not from the same server",
        )
    if not _may_write(states):
        if folder.is_dir():
            shutil.copytree(folder, scratch / "state", symlinks=True)
        yield _open(url, scratch / "state", bootstrap)
        return
    states.mkdir(parents=True, exist_ok=True)
    with locked(states / f".{folder.name}.lock"):
        is_new = not folder.exists()
        try:
            repository = _open(url, folder, bootstrap)
        except PipelineError:
            if is_new and folder.exists():  # a root that signs nothing there is none to keep
                remove_tree(folder)
            raise
        yield repository


def _may_write(states: Path) -> bool:
    at = states
    while not at.exists():
        at = at.parent
    return os.access(at, os.W_OK)


def _open(url: str, folder: Path, bootstrap: bytes | None) -> Repository:
    folder.mkdir(parents=True, exist_ok=True)
    with _explained(url):
        updater = Updater(
            str(folder),
            f"{url}/metadata/",
            target_base_url=f"{url}/targets/",
            fetcher=_Fetcher(),
            bootstrap=bootstrap,
        )
        updater.refresh()
    content = _read(updater, url, catalog.INDEX)
    return Repository(url, updater, catalog.read(Index, content, source=f"{url}: index.json"))


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """tuf's refusals, and those of the network, in words."""
    try:
        yield
    except PipelineError as error:
        raise _reworded(error) from error.__cause__
    except (RepositoryError, DownloadError) as error:
        cause = error.__cause__
        if isinstance(cause, PipelineError):
            raise _reworded(cause) from error
        for kind, brief, hint in _REFUSALS:
            if isinstance(error, kind):
                raise VerificationError(f"{url}: {brief}", details=str(error), hint=hint) from error
        raise VerificationError(
            f"{url}: its metadata are none ({str(error)[:200]})", hint="tell its owner"
        ) from error


def _reworded(error: PipelineError) -> PipelineError:
    """The same, with what to do about a repository, not about a mirror."""
    if isinstance(error, TooSlow):
        return VerificationError(
            error.brief, hint="who sends so slowly keeps this host where it is; tell its owner"
        )
    if isinstance(error, NotFound):
        error.hint = "is that the address of an image repository? It has metadata/timestamp.json"
    elif isinstance(error, VerificationError):
        error.hint = "nothing of it was used; tell its owner"
    elif isinstance(error, MirrorTrouble):
        error.hint = "check its address and whether its server runs; again in a while"
    return error


def _find(updater: Updater, url: str, path: str) -> TargetFile:
    with _explained(url):
        info = updater.get_targetinfo(path)
    if info is None:
        raise VerificationError(
            f"{url}: {path} is not among what was signed", hint="again in a while; tell its owner"
        )
    return info


def _read(updater: Updater, url: str, path: str) -> bytes:
    """A small target's content."""
    info = _find(updater, url, path)
    if info.length > _MOST_LISTED:
        raise VerificationError(f"{url}: {path} has {info.length} bytes, which nobody needs")
    with _explained(url):
        place = f"{url}/targets/{info.get_prefixed_paths()[0]}"
        content = fetch_bytes(place, limit=info.length)
        info.verify_length_and_hashes(content)
    return content


def _name(digest: str) -> str:
    return f"{digest.removeprefix('sha256:')}.img"


def _unpack(packed: Path, target: Path, image: Image, *, older: Path | None = None) -> bool:
    """Make the image; whether it is the right one: if not there is none."""
    made = target.with_name(f".{target.name}.new")
    made.unlink(missing_ok=True)
    try:
        read_stream(packed, made, size=image.size, older=older)
        if measure_file(made) != image.digest:
            return False
        with gate("keep", target):
            os.replace(made, target)
    except VerificationError:
        return False
    finally:
        made.unlink(missing_ok=True)
        packed.unlink(missing_ok=True)
    return True
