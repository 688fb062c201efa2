"""A place for files: a folder, s3, sftp (through fsspec), or a web server, to read from.

Nothing of what a place gives is trusted here: it is read with a bound, and checked by who asked. A
file appears whole, or not: under another name until it is, then by one step of the place's own.
"""

import os
import stat
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import EnvironmentFault, PipelineError, UsageError, VerificationError
from pipeline.files import CHUNK
from pipeline.mirror.fetch import ATTEMPTS, OFFLINE, PAUSE_S, NotFound, fetch_bytes, open_at

T = TypeVar("T")
_AT_ONCE = 16 << 20
MOST_SMALL = 4 << 20  # bytes of what is read at once: a statement, a lease


class PlaceTrouble(EnvironmentFault):
    """A place does not answer, or refuses: nothing is said about what it holds."""


class PlaceRefusal(PlaceTrouble):
    """It will answer the same if it is asked again."""


@dataclass(frozen=True)
class Listed:
    """A file there: its name below the place's root, its size in bytes, when it was written."""

    name: str
    size: int
    written_at: float


class Place:
    """Files by name. Each method raises PlaceTrouble; FileNotFoundError where there is no file.

    What is not overridden is what a place does not do.
    """

    is_writable = False

    def __init__(self, url: str) -> None:
        self.shown = url

    def read(self, name: str, *, limit: int) -> bytes:
        """A small file; VerificationError where it is larger than `limit` bytes."""
        raise self._refusal(name)

    def pieces(self, name: str, size: int) -> Iterator[bytes]:
        """A file as it comes, at most one byte more than `size`."""
        raise self._refusal(name)

    def put(self, path: Path, name: str) -> None:
        """A file that nobody reads yet."""
        raise self._refusal(name)

    def create(self, name: str, content: bytes) -> bool:
        """A small file of a new name, at once; False where there is one.

        No two callers give the same content: what is there after a lost answer may be ours.
        """
        raise self._refusal(name)

    def replace(self, name: str, content: bytes) -> None:
        """A small file, at once, whatever was there."""
        raise self._refusal(name)

    def remove(self, name: str) -> None:
        """A file; nothing where there is none."""
        raise self._refusal(name)

    def list(self, folder: str) -> list[Listed]:
        """Every file below a folder."""
        raise self._refusal(folder)

    def _refusal(self, name: str) -> PlaceTrouble:
        return PlaceTrouble(
            f"{self.shown}/{name}: it is only read from",
            hint="name the URL that it is written to: s3://, sftp://, file://",
        )


def open_place(url: str) -> Place:
    """The place behind a URL; raises UsageError for one that is none, EnvironmentFault."""
    parts = urlsplit(url)
    if parts.password is not None:
        raise UsageError(
            f"{parts.scheme}://{parts.hostname}: a password in a URL, for all to see",
            hint="sftp takes SSH keys; s3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws",
        )
    if parts.scheme != "file" and os.environ.get(OFFLINE) == "1":
        raise UsageError(f"offline=yes and {url} are both asked for", hint="leave one of them")
    if parts.scheme in ("http", "https"):
        return _Web(url)
    if parts.scheme == "file":
        root = unquote(parts.path)
        return _Folder(url, root, lambda: LocalFileSystem(skip_instance_cache=True))
    try:
        return _open_far(url)
    except ImportError as error:
        hint = "put the library that it names into .venv with pip: requirements-fleet.lock has it"
        raise EnvironmentFault(f"{url}: {error}", hint=hint) from error
    except ValueError as error:
        hint = "places are file, sftp, s3 and fsspec's others"
        raise UsageError(f"{url}: {error}", hint=hint) from error


def _open_far(url: str) -> Place:
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.scheme == "sftp":
        from pipeline.remote.sftp import SftpFolder, explain_refusal  # paramiko: 200 ms

        given = {"port": parts.port, "username": parts.username and unquote(parts.username)}
        words = {key: value for key, value in given.items() if value}

        def connect() -> AbstractFileSystem:
            return SftpFolder(parts.hostname, skip_instance_cache=True, **words)

        return _Folder(url, path, connect, explain_refusal)
    if parts.scheme != "s3":
        files, base = url_to_fs(url)
        return _Folder(url, base, lambda: files)
    from s3fs import S3FileSystem  # aiobotocore: 600 ms

    options = {"use_listings_cache": False, "max_concurrency": 4}
    config = {"retries": {"max_attempts": 2}}
    s3 = S3FileSystem(skip_instance_cache=True, config_kwargs=config, **options)
    return _Bucket(url, f"{parts.netloc}{path}", lambda: s3)


def refuse_others(url: str) -> None:
    """Root writes to no folder in which another user could put links: EnvironmentFault."""
    if not url.startswith("file:"):
        return
    root = Path(unquote(urlsplit(url).path))
    with suppress(FileNotFoundError):
        state = root.stat()
        is_open = state.st_uid != 0 or state.st_mode & stat.S_IWOTH
        if os.geteuid() == 0 and is_open:
            raise EnvironmentFault(
                f"{root}: others may write there, and root would",
                hint=f"chown root {root} and chmod o-w {root}, or build as its owner",
            )


class _Folder(Place):
    """A folder, here or behind sftp, where a rename is one step."""

    is_writable = True
    tries = ATTEMPTS

    def __init__(
        self,
        url: str,
        root: str,
        connect: Callable[[], AbstractFileSystem],
        explain: Callable[[Exception], str] = lambda _error: "",
    ) -> None:
        super().__init__(url)
        self._root = root.rstrip("/")
        self._connect = connect
        self._explain = explain
        # a connection is for one thread at a time; those that nobody uses are closed with the place
        self._idle: deque[AbstractFileSystem] = deque()
        weakref.finalize(self, _close_all, self._idle)

    def read(self, name: str, *, limit: int) -> bytes:
        def attempt(files: AbstractFileSystem) -> bytes:
            with files.open(self._at(name), "rb") as stream:
                return bytes(stream.read(limit + 1))

        content = self._attempt(name, attempt)
        if len(content) > limit:
            raise VerificationError(f"{self.shown}/{name}: larger than {limit >> 10} KiB")
        return content

    def pieces(self, name: str, size: int) -> Iterator[bytes]:
        with self._told(name) as files, files.open(self._at(name), "rb") as stream:
            if hasattr(stream, "prefetch"):
                stream.prefetch(min(size, stream.stat().st_size or 0))
            left = size + 1
            while left and (piece := stream.read(min(CHUNK, left))):
                left -= len(piece)
                yield piece

    def put(self, path: Path, name: str) -> None:
        def attempt(files: AbstractFileSystem) -> None:
            files.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
            files.put_file(str(path), self._at(name))

        self._attempt(name, attempt)

    def create(self, name: str, content: bytes) -> bool:
        aside = self._put_aside(name, content)
        try:
            self._attempt(name, lambda files: files.link(self._at(aside), self._at(name)))
        except (FileExistsError, FileNotFoundError):
            return self.read(name, limit=MOST_SMALL) == content
        finally:
            self.remove(aside)
        return True

    def replace(self, name: str, content: bytes) -> None:
        aside = self._put_aside(name, content)
        self._attempt(name, lambda files: files.mv(self._at(aside), self._at(name)))

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._attempt(name, lambda files: self._remove(files, self._at(name)))

    def list(self, folder: str) -> list[Listed]:
        def attempt(files: AbstractFileSystem) -> dict[str, dict[str, Any]]:
            return dict(files.find(self._at(folder), detail=True))

        facts = self._attempt(folder, attempt)
        return [self._describe(path, facts[path]) for path in sorted(facts)]

    def _remove(self, files: AbstractFileSystem, path: str) -> None:
        files.rm_file(path)
        with suppress(OSError):  # others are in it
            files.rmdir(path.rpartition("/")[0])

    def _put_aside(self, name: str, content: bytes) -> str:
        folder, _, last = name.rpartition("/")
        aside = f"{folder}/.{last}.{uuid.uuid4().hex[:12]}".lstrip("/")

        def attempt(files: AbstractFileSystem) -> None:
            files.makedirs(self._at(folder), exist_ok=True)
            files.pipe_file(self._at(aside), content)

        self._attempt(name, attempt)
        return aside

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _describe(self, path: str, facts: dict[str, Any]) -> Listed:
        written = facts.get("mtime") or facts.get("LastModified") or 0.0
        if isinstance(written, datetime):
            written = written.timestamp()
        name = path.removeprefix(self._root).lstrip("/")
        return Listed(name, int(facts.get("size") or 0), float(written))

    def _attempt(self, name: str, what: Callable[[AbstractFileSystem], T]) -> T:
        """Some times over, each with a connection of its own after trouble."""
        for number in range(self.tries):
            time.sleep(PAUSE_S * (2**number - 1))
            try:
                with self._told(name) as files:
                    return what(files)
            except PlaceRefusal:
                raise
            except PlaceTrouble:
                if number == self.tries - 1:
                    raise
        raise AssertionError

    def _take(self) -> AbstractFileSystem:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    @contextmanager
    def _told(self, name: str) -> Iterator[AbstractFileSystem]:
        """A connection; what its library raises in words."""
        files = None
        try:
            files = self._take()
            yield files
            self._idle.append(files)
        except (FileNotFoundError, FileExistsError, PipelineError, GeneratorExit):
            self._idle.append(files)
            raise
        except Exception as error:
            _close_all(deque([files] if files else []))
            said = str(error).partition("\n")[0][:300] or type(error).__name__
            hint = self._explain(error)
            kind = PlaceRefusal if hint else PlaceTrouble
            hint = hint or "is it there, and may this user read and write there?"
            raise kind(f"{self.shown}/{name}: {said}", hint=hint) from error


def _close_all(connections: deque[AbstractFileSystem]) -> None:
    while connections:
        getattr(connections.pop(), "close", int)()


class _Bucket(_Folder):
    """A bucket of s3: no rename, but a put that fails where the object is there (If-None-Match)."""

    tries = 1  # botocore has its own

    def read(self, name: str, *, limit: int) -> bytes:
        """One request: opened as a file it would be two."""
        content = self._attempt(name, lambda files: self._cat(files, name, limit + 1))
        if len(content) > limit:
            raise VerificationError(f"{self.shown}/{name}: larger than {limit >> 10} KiB")
        return content

    def pieces(self, name: str, size: int) -> Iterator[bytes]:
        if size > _AT_ONCE:
            yield from super().pieces(name, size)
        else:
            yield self._attempt(name, lambda files: self._cat(files, name, size + 1))

    def _cat(self, files: AbstractFileSystem, name: str, size: int) -> bytes:
        return bytes(files.cat_file(self._at(name), start=0, end=size))

    def create(self, name: str, content: bytes) -> bool:
        def attempt(files: AbstractFileSystem) -> None:
            files.pipe_file(self._at(name), content, mode="create")

        try:
            self._attempt(name, attempt)
        except FileExistsError:
            return self.read(name, limit=MOST_SMALL) == content
        return True

    def replace(self, name: str, content: bytes) -> None:
        self._attempt(name, lambda files: files.pipe_file(self._at(name), content))

    def _remove(self, files: AbstractFileSystem, path: str) -> None:
        files.rm_file(path)


class _Web(Place):
    """A web server, which is only read from, by the one HTTP client."""

    def read(self, name: str, *, limit: int) -> bytes:
        with self._told(name):
            return fetch_bytes(f"{self.shown}/{name}", limit=limit)

    def pieces(self, name: str, size: int) -> Iterator[bytes]:
        with (
            self._told(name),
            open_at(f"{self.shown}/{name}", 0, limit=size) as (_, pieces),
        ):
            yield from pieces

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except NotFound:
            raise FileNotFoundError(f"{self.shown}/{name}") from None
        except VerificationError:
            raise
        except PipelineError as error:
            raise PlaceTrouble(error.brief, hint=error.hint) from error
