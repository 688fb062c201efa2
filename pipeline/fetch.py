"""Fetching over HTTP: whole and checked, or one clear error."""

from __future__ import annotations

import errno
import io
import os
import shutil
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from pipeline.archive.credentials import AUTH_HINT, find_credentials, without_credentials
from pipeline.archive.trouble import name_trouble, trusted_cas
from pipeline.archive.way import Way
from pipeline.canonical import CHUNK, digest_file
from pipeline.errors import EnvironmentFault, PipelineError, VerificationError
from pipeline.progress import progress_bar

if TYPE_CHECKING:
    import requests

T = TypeVar("T")

TIMEOUT_S: tuple[float, float] = (10, 30)
OFFLINE = "DOMU_OFFLINE"  # 1 in the environment forbids the network, in every process
ATTEMPTS = 3
PAUSE_S = 0.5
BAR_FROM_BYTES = 4 << 20
# a mirror that drips keeps every read within its timeout: slower than this is as good as dead
SLOW_AFTER_S = 20.0
SLOW_BYTES_PER_S = 2048
_PLAIN = Way()
_CHOOSE = "check that the mirror or its proxy runs, or choose another with mirror=URL"


class NotFound(PipelineError):
    """The mirror has no such file."""


class _ServerTrouble(PipelineError):
    """The mirror answers 5xx or 429, or drips: it may be better in a moment."""


def fetch_bytes(url: str, *, way: Way = _PLAIN, limit: int = 16 << 20) -> bytes:
    """A small file's content, at most `limit` bytes; raises PipelineError or NotFound."""
    if url.startswith("file:"):
        return _local(url).read_bytes()
    return _retry(url, lambda: _collect(url, way, limit))


def fetch_file(url: str, target: Path, *, size: int, sha256: str, way: Way = _PLAIN) -> Path:
    """Fetch into `target`; VerificationError unless size in bytes and sha256 (hex) match.

    Nothing appears at `target` unless it is right. A wrong file that is there already is replaced.
    """
    if target.is_file() and target.stat().st_size == size and digest_file(target) == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        if url.startswith("file:"):
            shutil.copyfile(_local(url), part)
        else:
            _retry(url, lambda: _download(url, part, size, way))
        _check(url, part, size=size, sha256=sha256)
        os.replace(part, target)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise EnvironmentFault(
            f"no space left for {target.name} ({size} bytes) in {target.parent}",
            hint="free some space (`df -h`), old store entries below output/store/ can go",
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def measure(url: str, *, way: Way = _PLAIN, limit: int) -> float:
    """Bytes a second over the first `limit` bytes of a file; raises PipelineError or NotFound."""
    if url.startswith("file:"):
        return float(len(_local(url).read_bytes()) << 10)
    return _retry(url, lambda: _measure(url, way, limit))


def _measure(url: str, way: Way, limit: int) -> float:
    taken, begun = 0, time.monotonic()
    with _asked(url, way) as response:
        _check_status(url, response.status_code)
        while taken < limit and (piece := response.raw.read1(CHUNK, decode_content=False)):
            taken += len(piece)
    return taken / max(time.monotonic() - begun, 0.001)


def _collect(url: str, way: Way, limit: int) -> bytes:
    sink = io.BytesIO()
    _get(url, way, limit, sink.write)
    return sink.getvalue()


def _download(url: str, part: Path, size: int, way: Way) -> None:
    with open(part, "wb") as stream:
        if size < BAR_FROM_BYTES:
            _get(url, way, size, stream.write)
            return
        name = url.rpartition("/")[2]
        name = "a package index" if "/by-hash/" in url else name
        with progress_bar(f"fetching {name}", total=size, unit="B") as bar:

            def write(piece: bytes) -> None:
                stream.write(piece)
                bar.advance(len(piece))

            _get(url, way, size, write)


def _check(url: str, part: Path, *, size: int, sha256: str) -> None:
    got, found = part.stat().st_size, digest_file(part)
    if got != size or found != sha256:
        seen = f"{got} of {size} bytes" if got != size else f"sha256 {found[:16]}..."
        raise _wrong_bytes(url, f"{seen}, expected {sha256[:16]}...")


def _wrong_bytes(url: str, seen: str) -> VerificationError:
    return VerificationError(
        f"{without_credentials(url)}: wrong bytes ({seen})",
        hint="the mirror or its proxy serves something else than was signed: purge the proxy's "
        "copy, or build again with snapshot_max_age=0",
    )


def _retry(url: str, attempt: Callable[[], T]) -> T:
    """Try again on passing trouble, ATTEMPTS times at most."""
    if os.environ.get(OFFLINE) == "1":
        raise EnvironmentFault(
            f"offline=yes: {url.rpartition('/')[2]} is not kept here, and the network is forbidden",
            hint="while there is a network: doit lock name=GUEST keeps everything that it needs",
        )
    import requests  # 90 ms, only where something is fetched
    import urllib3.exceptions

    shown = without_credentials(url)
    trouble: PipelineError | None = None
    for number in range(ATTEMPTS):
        time.sleep(PAUSE_S * (2**number - 1))
        try:
            return attempt()
        except _ServerTrouble as error:
            trouble = error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            found = name_trouble(error)
            tried = f" (tried {ATTEMPTS} times)" if found.is_passing else ""
            trouble = PipelineError(f"{shown}: {found.reason}{tried}", hint=found.hint)
            if not found.is_passing:
                break
    assert trouble is not None
    raise trouble


def _asked(url: str, way: Way) -> requests.Response:
    import requests

    return requests.get(
        url,
        stream=True,
        timeout=TIMEOUT_S,
        auth=find_credentials(url, own=way.credentials),
        proxies=way.proxies,
        verify=trusted_cas(),
        headers={"Accept-Encoding": "identity"},
    )


def _get(url: str, way: Way, limit: int, write: Callable[[bytes], object]) -> None:
    with _asked(url, way) as response:
        _check_status(url, response.status_code)
        total, begun = 0, time.monotonic()
        # raw: a server that calls a .gz file "gzip-encoded" must not make us unpack it
        while piece := response.raw.read1(CHUNK, decode_content=False):
            total += len(piece)
            if total > limit:
                raise _wrong_bytes(url, f"more than the expected {limit} bytes")
            write(piece)
            _check_speed(url, total, time.monotonic() - begun)


def _check_speed(url: str, total: int, seconds: float) -> None:
    if seconds > SLOW_AFTER_S and total < seconds * SLOW_BYTES_PER_S:
        raise _ServerTrouble(
            f"{without_credentials(url)}: too slow ({total} bytes in {seconds:.0f} s)", hint=_CHOOSE
        )


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
        raise _ServerTrouble(f"{answer.rstrip()} (tried {ATTEMPTS} times)", hint=_CHOOSE)
    raise PipelineError(answer.rstrip(), hint="check the mirror, or choose another with mirror=URL")


def _local(url: str) -> Path:
    path = Path(urlsplit(url).path)
    if not path.is_file() or not os.access(path, os.R_OK):
        raise NotFound(f"{path}: not found or not readable", hint="check mirror=file:/...")
    return path


def _phrase(status: int) -> str:
    """A status code in words, as RFC 9110 has them; "" for one that it does not know."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
