"""Fetching over HTTP: whole and checked, or one clear error."""

import errno
import hashlib
import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

from pipeline.console.progress import progress_bar
from pipeline.diagnosis import MAKE_ROOM
from pipeline.errors import DiskFull, EnvironmentFault, PipelineError, VerificationError
from pipeline.files import CHUNK, digest_file
from pipeline.interruption import gate, passing
from pipeline.locks import make_locked
from pipeline.mirror.credentials import AUTH_HINT, DIRECT, Way, without_credentials
from pipeline.mirror.trouble import CHOOSE, MirrorTrouble
from pipeline.scratch import remove_dead_parts

T = TypeVar("T")

OFFLINE = "DOMU_OFFLINE"  # 1 in the environment forbids the network, in every process
ATTEMPTS = 3
PAUSE_S = 0.5
BAR_FROM_BYTES = 4 << 20
_PLAIN = Way()


class NotFound(PipelineError):
    """The mirror has no such file."""


def fetch_bytes(
    url: str, *, way: Way = _PLAIN, limit: int = 16 << 20, is_anonymous: bool = False
) -> bytes:
    """A small file's content, at most `limit` bytes; raises PipelineError or NotFound.

    Where `is_anonymous` no password is sent, whoever asks for one.
    """
    sink = io.BytesIO()

    def attempt() -> bytes:
        sink.seek(0)
        sink.truncate()
        _get(url, way, limit, sink.write, is_anonymous=is_anonymous)
        return sink.getvalue()

    return _retry(url, attempt)


def fetch_file(url: str, target: Path, *, size: int, sha256: str, way: Way = _PLAIN) -> Path:
    """Fetch into `target`; VerificationError unless size in bytes and sha256 (hex) match.

    Nothing appears at `target` unless it is right. What is there already and is wrong, or is no
    file, is replaced. Threads and processes may fetch the same at once.
    """
    if _is_right(target, size, sha256):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_dead_parts(target.parent, target.name)
    try:
        with _part_of(target) as (part, stream):
            digest = _retry(url, lambda: _download(url, stream, size, way))
            _check(url, stream, digest, size=size, sha256=sha256)
            with gate("keep", target):
                if target.is_dir() and not target.is_symlink():
                    shutil.rmtree(target)
                os.replace(part, target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(
            f"no space left for {target.name} ({size} bytes) in {target.parent}", hint=MAKE_ROOM
        ) from error
    return target


def measure(url: str, *, way: Way = _PLAIN, limit: int) -> float:
    """Bytes a second over the first `limit` bytes of a file; raises PipelineError or NotFound."""
    if url.startswith("file:"):
        return float(_local(url).stat().st_size << 10)
    return _retry(url, lambda: _measure(url, way, limit))


def _measure(url: str, way: Way, limit: int) -> float:
    taken, begun = 0, time.monotonic()
    for piece in _body(url, way, limit, is_start_enough=True):
        taken += len(piece)
        if taken >= limit:
            break
    return taken / max(time.monotonic() - begun, 0.001)


def _is_right(target: Path, size: int, sha256: str) -> bool:
    if target.is_symlink() or not target.is_file() or target.stat().st_size != size:
        return False
    return digest_file(target) == sha256


@contextmanager
def _part_of(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A file beside the target, locked for as long as it is written to: others are leftovers."""
    part = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    part.unlink(missing_ok=True)
    with passing(part), _open_locked(part) as stream:
        yield part, stream


def _open_locked(part: Path) -> BinaryIO:
    return open(make_locked(part, 0o644), "w+b")


def _download(url: str, stream: BinaryIO, size: int, way: Way) -> str:
    """Fill the stream, return its sha256 (hex)."""
    stream.seek(0)
    stream.truncate()
    digest = hashlib.sha256()

    def write(piece: bytes) -> None:
        stream.write(piece)
        digest.update(piece)

    if size < BAR_FROM_BYTES:
        _get(url, way, size, write)
    else:
        name = url.rpartition("/")[2]
        name = "a package index" if "/by-hash/" in url else name
        with progress_bar(f"fetching {name}", total=size, unit="B") as bar:

            def show(piece: bytes) -> None:
                write(piece)
                bar.advance(len(piece))

            _get(url, way, size, show)
    stream.flush()
    return digest.hexdigest()


def _check(url: str, stream: BinaryIO, digest: str, *, size: int, sha256: str) -> None:
    got = stream.tell()
    if got != size or digest != sha256:
        seen = f"{got} of {size} bytes" if got != size else f"sha256 {digest[:16]}..."
        raise _wrong_bytes(url, f"{seen}, expected {sha256[:16]}...")


def _wrong_bytes(url: str, seen: str) -> VerificationError:
    return VerificationError(
        f"{without_credentials(url)}: wrong bytes ({seen})",
        hint="the mirror or its proxy serves something else than was signed: purge the proxy's "
        "copy, or build again with snapshot_max_age=0",
    )


def _retry(url: str, attempt: Callable[[], T]) -> T:
    """Try again on passing trouble, ATTEMPTS times at most."""
    if url.startswith("file:"):
        return attempt()
    if os.environ.get(OFFLINE) == "1":
        raise EnvironmentFault(
            f"offline=yes: {url.rpartition('/')[2]} is not kept here, and the network is forbidden",
            hint="while there is a network: doit lock name=GUEST keeps everything that it needs",
        )
    trouble: MirrorTrouble | None = None
    for number in range(ATTEMPTS):
        time.sleep(PAUSE_S * (2**number - 1))
        try:
            return attempt()
        except MirrorTrouble as error:
            trouble = error
    assert trouble is not None
    trouble.brief += f" (tried {ATTEMPTS} times)"
    raise trouble


def _get(
    url: str, way: Way, limit: int, write: Callable[[bytes], object], *, is_anonymous: bool = False
) -> None:
    total = 0
    for piece in _body(url, way, limit, is_anonymous=is_anonymous):
        total += len(piece)
        if total > limit:
            raise _wrong_bytes(url, f"more than the expected {limit} bytes")
        write(piece)


def _body(
    url: str, way: Way, limit: int, *, is_start_enough: bool = False, is_anonymous: bool = False
) -> Iterator[bytes]:
    """A file's bytes as they come; a longer one than is wanted ends before it has begun."""
    if url.startswith("file:"):
        with open(_local(url), "rb") as stream:
            yield from iter(lambda: stream.read(CHUNK), b"")
        return
    from pipeline.mirror.http_client import ask  # requests: 90 ms

    with ask(url, way=way, limit=limit, is_anonymous=is_anonymous) as answer:
        _check_status(url, answer.status)
        if not is_start_enough and (answer.size or 0) > limit:
            raise _wrong_bytes(url, f"more than the expected {limit} bytes")
        yield from answer.pieces()


@contextmanager
def open_at(url: str, start: int, *, limit: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """A file's bytes from `start` on as they come, and where they do begin: there, or at 0.

    `limit` is how many bytes may be left to come; raises VerificationError where more are promised.
    """
    if url.startswith("file:"):
        with open(_local(url), "rb") as stream:
            stream.seek(start)
            yield start, iter(lambda: stream.read(CHUNK), b"")
        return
    from pipeline.mirror.http_client import ask

    if os.environ.get(OFFLINE) == "1":
        raise EnvironmentFault("offline=yes: the network is forbidden")
    with ask(url, way=_PLAIN, limit=limit, start=start) as answer:
        if answer.status != HTTPStatus.PARTIAL_CONTENT:
            _check_status(url, answer.status)
        if answer.start not in (0, start) or (answer.size or 0) > limit + start - answer.start:
            raise _wrong_bytes(url, f"another part of it, or more than {limit} bytes")
        yield answer.start, answer.pieces()


def is_answering(url: str) -> bool:
    """Whether HTTP is spoken at an address of this machine, whatever is said."""
    from pipeline.mirror.http_client import ask

    try:
        with ask(url, way=Way(proxy=DIRECT), limit=CHUNK, is_anonymous=True):
            return True
    except PipelineError:
        return False


def _check_status(url: str, status: int) -> None:
    if status == 200:
        return
    shown = without_credentials(url)
    if status in (404, 410):
        raise NotFound(
            f"{shown}: not found ({status})",
            hint=(
                "the security archive of a suite past its life loses packages: security=no, or a "
                "mirror of the archive"
                if "-security/pool/" in shown
                else "check mirror= and suite=; a suite past its life is in the archive"
            ),
        )
    if status == 401:
        raise PipelineError(f"{shown}: the mirror asks for a password (401)", hint=AUTH_HINT)
    answer = f"{shown}: the mirror answers {status} {_phrase(status)}"
    if status >= 500 or status == 429:
        raise MirrorTrouble(answer.rstrip(), hint=CHOOSE)
    raise PipelineError(answer.rstrip(), hint="check the mirror, or choose another with mirror=URL")


def _local(url: str) -> Path:
    """The file of a file: URL, whose odd characters are %XX (RFC 8089)."""
    path = Path(unquote(urlsplit(url).path))
    if not path.is_file() or not os.access(path, os.R_OK):
        raise NotFound(f"{path}: not found or not readable", hint="check mirror=file:/...")
    return path


def _phrase(status: int) -> str:
    """A status code in words, as RFC 9110 has them; "" for one that it does not know."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
